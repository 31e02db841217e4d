"""Where data are: in packages that ship them, and in a folder that is named."""

import os
from importlib.util import find_spec
from pathlib import Path

from softbin.experiments.runs.errors import UserError

DATA_VARIABLE = "SOFTBIN_DATA"


def folder(name: str, requirement: str = "") -> Path:
    """The folder of a package, which is not imported.

    Args:
      name: by which it would be imported.
      requirement: by which it is installed, where that is another.

    Raises:
      UserError: it is not installed.
    """
    found = find_spec(name)
    if found is None or found.origin is None:
        raise UserError(f"the data come with the package {name}: pip install {requirement or name}")
    return Path(found.origin).parent


def data_folder(data_dir: str) -> Path | None:
    """The folder of a config, or else that of the environment, if any."""
    named = data_dir or os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None
