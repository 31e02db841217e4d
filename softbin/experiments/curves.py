"""Training curves as a picture."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def save_curves(history: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Plot loss, accuracies and the batch's shares against the epoch into a PNG file."""
    panels = {
        "training loss": {"loss": "loss"},
        "test accuracy": {"test_accuracy": "argmax of logits", "test_accuracy_thresholded": "with thresholds"},
        "validation accuracy": {
            "validation_accuracy": "argmax of logits",
            "validation_accuracy_thresholded": "with thresholds",
        },
        "share of the batch": {
            "active": "active",
            "saturated_right": "saturated, right",
            "saturated_wrong": "saturated, wrong",
        },
    }
    panels = {
        name: kept
        for name, lines in panels.items()
        if (kept := {key: label for key, label in lines.items() if key in history[0]})
    }
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    figure.suptitle(title)
    epochs = [record["epoch"] for record in history]
    for axes, (name, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for key, label in lines.items():
            axes.plot(epochs, [record[key] for record in history], label=label)
        axes.set(xlabel="epoch", title=name)
        if len(lines) > 1:
            axes.legend(frameon=False)
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)
