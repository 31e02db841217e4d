"""Checks that the configs of all runs share."""

from collections.abc import Mapping, Set
from typing import Any

import ml_collections

from softbin.experiments.common import config_files
from softbin.experiments.common.errors import UserError


def check(config: ml_collections.ConfigDict, fields: Set[str], least: Mapping[str, int], example: str) -> None:
    """Refuse a config that lacks a field, has an unknown one, or has a number below the least.

    Raises:
      UserError: it is so; the message names the field, and the file of the packaged config `example`.
    """
    source = config_files.FOLDER / f"{example}.py"
    missing, unknown = fields - set(config.keys()), set(config.keys()) - fields
    if missing:
        raise UserError(f"the config has no field {', '.join(sorted(missing))}: see {source}")
    if unknown:
        raise UserError(f"the config has unknown fields {', '.join(sorted(unknown))}: see {source}")
    for field, bound in least.items():
        if config[field] < bound:
            raise UserError(f"{field} must be at least {bound}, got {config[field]}")


def check_hidden(hidden: Any) -> None:
    """Refuse what are no widths of the hidden layers of an MLP.

    Raises:
      UserError: it is so.
    """
    if not isinstance(hidden, tuple | list) or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UserError(f"hidden must be widths of at least 1, such as (128, 128), got {hidden}")
