"""Networks that choose k of n inside: sparse autoencoders, mixtures of experts, selected pixels, pruned weights."""
