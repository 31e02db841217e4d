"""The paper's network, on the images that are found or on random ones."""

import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from softbin.experiments.accelerator.plan import Plan
from softbin.experiments.datasets import data, readers
from softbin.experiments.reports import paper as published
from softbin.experiments.runs import config_files, life
from softbin.experiments.runs import workdir as folder
from softbin.experiments.runs.errors import UserError

RANDOM = "random images"
"""Of the shape of Fashion-MNIST's, for timing."""
_CONFIGS = {
    "fashion_mnist": "paper/fashion_mnist",
    "cifar10": "paper/cifar10",
    RANDOM: "paper/fashion_mnist",
}


def found() -> tuple[list[str], str]:
    """The data sets whose files are found, and what is wrong with the others."""
    names, problems = [], []
    for name in _CONFIGS:
        try:
            if name != RANDOM:
                data.load(name, train_examples=1)
                names.append(name)
        except UserError as error:
            problems.append(str(error))
    return names, "\n".join(problems)


def train(plan: Plan, dataset: str, loss: str, workdir: Path, to_the_end: bool) -> dict[str, Any]:
    """A run in a folder, of a few epochs or of all: the time of a step, and accuracies beside the published ones."""
    config = config_files.load(_CONFIGS[dataset], []).run
    config.loss = loss
    config.batch_size = plan.batch_size
    if not to_the_end:
        config.epochs, config.checkpoint_every = plan.epochs, 0
    if dataset == RANDOM:
        config.data_dir = str(_random_images(workdir / "images", plan.random_images))
    runs = workdir / f"{dataset} {loss} {config.epochs}".replace(" ", "_")
    summary = life.run(config, runs)
    seconds = [record["train_seconds"] for record in folder.read_history(runs, config.epochs)]
    steps = summary["train_examples"] // config.batch_size
    result = {
        "steps": steps,
        "milliseconds": 1e3 * statistics.median(b - a for a, b in pairwise(seconds)) / steps,  # without compiling
        "first_epoch_s": seconds[0],
    }
    return result | (_accuracies(summary) if to_the_end else {})


def _accuracies(summary: dict[str, Any]) -> dict[str, Any]:
    runs = published.runs()
    alike = np.logical_and.reduce([runs[field] == summary[field] for field in ("dataset", "loss", "batch_size")])
    names = ("max_test_accuracy", "last_test_accuracy")
    ours = {name: summary[name] for name in (*names, "last_test_accuracy_thresholded")}
    return ours | {f"published_{name}": runs.loc[alike, name].tolist() for name in names}


def _random_images(images: Path, count: int) -> Path:
    """Files of random images and labels, half as many for testing."""
    folder.make(images)
    rng = np.random.default_rng(0)
    for part, size in {"train": count, "t10k": count // 2}.items():
        _write_idx(images / f"{part}-images-idx3-ubyte", rng.integers(256, size=(size, 28, 28), dtype=np.uint8))
        _write_idx(images / f"{part}-labels-idx1-ubyte", np.arange(size, dtype=np.uint8) % readers.CLASSES)
    return images.absolute()


def _write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())
