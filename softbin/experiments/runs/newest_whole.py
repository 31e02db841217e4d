"""Which checkpoint of a run to go on from: the newest that is whole."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path


def newest_whole(checkpoints: Mapping[int, Path], damage: Callable[[Path], str | None], going_on: str) -> int:
    """The step of the newest checkpoint that is whole, or 0; those after it are set aside as `damaged-...`.

    Args:
      checkpoints: their files or folders, by step.
      damage: what is wrong with one, or None.
      going_on: what goes on from which kind of step, as in `training goes on from epoch`.
    """
    damaged: dict[Path, str] = {}
    newest = 0
    for step in sorted(checkpoints, reverse=True):
        reason = damage(checkpoints[step])
        if reason is None:
            newest = step
            break
        damaged[checkpoints[step]] = reason
    for path, reason in damaged.items():
        aside = path.with_name(f"damaged-{path.name}")
        if aside.is_dir():
            shutil.rmtree(aside)
        path.replace(aside)
        print(
            f"checkpoint {path} is damaged ({reason}), moved to {aside.name}: {going_on} {newest}",
            file=sys.stderr,
        )
    return newest
