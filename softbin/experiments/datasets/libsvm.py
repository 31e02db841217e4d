"""libsvm files: sparse features with labels, and what is wrong with those that cannot be read."""

import bz2
import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from softbin.experiments.datasets import damage
from softbin.experiments.runs.errors import UserError, one_line

_LARGEST_INDEX = np.iinfo(np.int32).max
_NAMED = "name another with --config.data"
_OPENED_BY: dict[str, Callable[..., TextIO]] = {".gz": gzip.open, ".bz2": bz2.open}


def read(path: Path) -> tuple[Any, np.ndarray]:
    """A sparse matrix of features, and the labels of its rows; files may be packed, as `.gz` or `.bz2`.

    Raises:
      UserError: the file is missing, truncated, or no libsvm file; with the line that cannot be read.
    """
    from sklearn.datasets import load_svmlight_file

    _check_packed_as_named(path)
    try:
        features, labels = load_svmlight_file(str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): fetch it again") from None
    except (ValueError, OverflowError) as error:
        where = _first_fault(path) or one_line(error)
        raise UserError(f"{path} is not a libsvm file ({where}): {_NAMED}") from None
    if not np.isfinite(labels).all():
        raise UserError(f"{path} has a label that is no class ({_first_fault(path)}): {_NAMED}")
    return features, labels


def _check_packed_as_named(path: Path) -> None:
    try:
        with path.open("rb") as file:
            command = damage.unpacked_by(file.read(8))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): name a libsvm file with --config.data") from None
    if command != {".gz": "gunzip", ".bz2": "bunzip2"}.get(path.suffix):
        remedy = f"unpack it with {command}" if command else f"it is not packed, so take {path.suffix} from its name"
        raise UserError(f"{path} has another name than its content: {remedy}")


def _first_fault(path: Path) -> str:
    """The first line that cannot be read, and why; empty where all can."""
    for number, line in _lines(path):
        if reason := _fault(line):
            return f"line {number}: {reason}"
    return ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opened = _OPENED_BY.get(path.suffix, open)
    with opened(path, "rt", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if content := line.split("#")[0].split():
                yield number, " ".join(content)


def _fault(line: str) -> str:
    label, *entries = line.split()
    if (value := _number(label)) is None or not math.isfinite(value):
        return f"the label {_shortened(label)} is not a finite number"
    last = -1
    for entry in entries:
        name, _, text = entry.partition(":")
        if name == "qid":
            continue
        if not (name.isascii() and name.isdigit()) or _number(text) is None:
            return f"{_shortened(entry)} is not index:value"
        if int(name) > _LARGEST_INDEX:
            return f"the index of {_shortened(entry)} is above {_LARGEST_INDEX}: hash features to fewer"
        if int(name) <= last:
            return f"the index of {_shortened(entry)} does not rise"
        last = int(name)
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
