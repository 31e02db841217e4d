"""Files that cannot be read: what is told of them."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from softbin.experiments.runs.errors import UserError, one_line

_UNPACKED_BY = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"PK\3\4": "unzip"}
"""Commands, by how the files begin that they take."""


@contextmanager
def reported(path: Path, remedy: str) -> Iterator[None]:
    """Turn what readers raise of a damaged file into a `UserError` that names it; of a missing one too."""
    try:
        yield
    except (OSError, EOFError, zlib.error, BadZipFile, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {remedy}") from None


def unpacked_by(content: bytes) -> str | None:
    """The command that unpacks a file with this beginning, if it is packed."""
    return next((command for begin, command in _UNPACKED_BY.items() if content.startswith(begin)), None)
