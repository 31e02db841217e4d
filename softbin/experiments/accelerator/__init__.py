"""The accelerator kit: what `softbin-bench --accelerator` checks and times on a TPU or GPU, and the page it writes."""
