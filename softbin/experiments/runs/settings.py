"""Checks that the configs of all runs share."""

import math
from typing import Any

import ml_collections

from softbin.experiments.kinds import Kind
from softbin.experiments.runs import config_files
from softbin.experiments.runs.errors import UserError


def check(config: ml_collections.ConfigDict, kind: Kind) -> None:
    """Refuse a config that lacks a field of its kind, has an unknown one, or has a number out of range.

    Raises:
      UserError: the config is wrong; the message names the field, or the file of the kind's example.
    """
    source = config_files.path(kind.example)
    missing, unknown = set(kind.fields) - set(config), set(config) - set(kind.fields)
    if missing:
        raise UserError(f"the config has no field {', '.join(sorted(missing))}: see {source}")
    if unknown:
        raise UserError(f"the config has unknown fields {', '.join(sorted(unknown))}: see {source}")
    for name, field in kind.fields.items():
        if field.least is not None and config[name] < field.least:
            raise UserError(f"{name} must be at least {field.least}, got {config[name]}")
        if field.positive and not 0 < config[name] < math.inf:
            raise UserError(f"{name} must be positive and finite, got {config[name]}")


def check_hidden(hidden: Any) -> None:
    """Refuse a value that is not a sequence of widths for the hidden layers of an MLP.

    Raises:
      UserError: a width is not a whole number of at least 1.
    """
    if not isinstance(hidden, tuple | list) or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UserError(f"hidden must be widths of at least 1, such as (128, 128), got {hidden}")
