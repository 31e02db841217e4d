"""Pictures of runs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def save_curves(
    history: Sequence[Mapping[str, Any]], panels: Mapping[str, Mapping[str, str]], title: str, path: Path, step: str
) -> None:
    """Plot what changes from step to step into a PNG file.

    Args:
      history: the records.
      panels: by their titles, the keys to plot there and how to call them; keys that the records lack are left out.
      title: of the figure.
      path: of the file.
      step: the key on the horizontal axis.
    """
    panels = {
        name: kept
        for name, lines in panels.items()
        if (kept := {key: label for key, label in lines.items() if key in history[0]})
    }
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    figure.suptitle(title)
    steps = [record[step] for record in history]
    for axes, (name, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for key, label in lines.items():
            axes.plot(steps, [record[key] for record in history], label=label)
        axes.set(xlabel=step, title=name)
        if len(lines) > 1:
            axes.legend(frameon=False)
    write_figure(path, figure)


def write_figure(path: Path, figure: Figure) -> None:
    """Write a PNG file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)
