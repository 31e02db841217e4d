"""The paper's protocol and its published runs, packaged (arXiv:2602.23336; results/README.md names the sources)."""

import numpy as np
import pandas as pd

from softbin.experiments.reports import results

LOSSES = ("cross_entropy", "hypersimplex", "hinge", "mse")
BATCH_SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)
SEEDS = (0, 42, 1337, 2025, 31415)
TRAIN_EXAMPLES = {"fashion_mnist": 60_000, "cifar10": 50_000}  # all of them
PROTOCOL = {
    "validation_examples": 0,
    "label_noise": 0.0,
    "imbalance": 1.0,
    "model": "cnn",
    "augment": True,
    "mixed_precision": False,
    "epochs": 600,
    "evaluate_every": 1,
    "learning_rate": 1e-4,
}
"""The config fields that every published run shares."""
BUDGET, TEMPERATURE = "0.5", 1.5  # of the HyperSimplex loss
LEVEL = 0.1  # of significance
_ACCURACY_UNIT = 1e-4


def runs() -> pd.DataFrame:
    """A row for each of the 280 runs, with the config fields that it had."""
    table = pd.read_csv(results.path(results.PAPER))
    hypersimplex = table["loss"] == "hypersimplex"
    return table.assign(
        run=[_key(row) for row in table.itertuples()],
        train_examples=table["dataset"].map(TRAIN_EXAMPLES),
        budget=hypersimplex.map({True: BUDGET, False: ""}),
        temperature=hypersimplex.map({True: TEMPERATURE, False: np.nan}),
        device="NVIDIA RTX 6000 Ada",
        **PROTOCOL,
    )


def curves() -> pd.DataFrame | None:
    """The test accuracy after every epoch of every run: columns run, epoch, test_accuracy.

    They are large, so that the package does not have them; then it is None.
    """
    path = results.FOLDER / "paper_curves.npz"
    if not path.exists():
        return None
    with np.load(path) as arrays:
        parts = [
            pd.DataFrame({"run": run, "epoch": np.arange(1, len(values) + 1), "test_accuracy": values * _ACCURACY_UNIT})
            for run, values in arrays.items()
        ]
    return pd.concat(parts, ignore_index=True)


def _key(row) -> str:
    return f"{row.dataset}/{row.loss}/{row.batch_size}/{row.seed}"
