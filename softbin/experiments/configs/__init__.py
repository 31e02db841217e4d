"""Configs by name, `--config=digits` for `digits.py`: one file an experiment, each with `get_config()`.

They are in the folder `configs` at the top of the repository, and come here with the package.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
"""The folder that has them."""
if not (FOLDER / "digits.py").exists():
    FOLDER = FOLDER.parents[2] / "configs"  # this is a checkout
__path__ = [str(FOLDER)]
