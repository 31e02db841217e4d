"""Checkpoints of boosting: the margins of all rows, from which the next trees grow."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from softbin.experiments.runs import workdir
from softbin.experiments.runs.errors import one_line
from softbin.experiments.runs.newest_whole import newest_whole

_KEPT = 2
_PARTS = ("train", "validation", "test")


def save(folder: Path, done: int, margins: Sequence[np.ndarray]) -> None:
    """Write the margins after so many rounds, whole or not at all; the last two checkpoints are kept."""
    workdir.make(folder)
    temporary = folder / "new.tmp"
    with open(temporary, "wb") as file:
        train, validation, test = margins
        np.savez(file, train=train, validation=validation, test=test)
    os.replace(temporary, _path(folder, done))
    for old in sorted(_rounds(folder))[:-_KEPT]:
        _path(folder, old).unlink()


def restore(folder: Path) -> tuple[int, list[np.ndarray]]:
    """The newest checkpoint that is whole, as `(rounds, margins)`; `(0, [])` where there is none."""
    paths = {done: _path(folder, done) for done in _rounds(folder)}
    done = newest_whole(paths, _damage, "boosting goes on from round")
    return done, _read(paths[done]) if done else []


def _path(folder: Path, done: int) -> Path:
    return folder / f"{done}.npz"


def _rounds(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal()]


def _read(path: Path) -> list[np.ndarray]:
    with open(path, "rb") as file, np.load(file) as arrays:  # which verifies their checksums
        return [arrays[part] for part in _PARTS]


def _damage(path: Path) -> str | None:
    try:
        _read(path)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        return one_line(error)
    return None
