"""Configs by name or from a file, and what the command line changes in them."""

import difflib
import re
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from softbin.experiments import kinds
from softbin.experiments.configs import FOLDER
from softbin.experiments.runs.errors import UserError, one_line

_EXAMPLE = f"{FOLDER / 'digits.py'} is an example"


def path(name: str) -> Path:
    """The file of a packaged config."""
    return FOLDER / f"{name}.py"


def names() -> list[str]:
    """Of the packaged configs."""
    found = (file.relative_to(FOLDER).with_suffix("") for file in sorted(FOLDER.rglob("*.py")))
    return [file.as_posix() for file in found if file.name != "__init__"]


def load(config: str, changes: Sequence[str]) -> ml_collections.ConfigDict:
    """A packaged config by its name, or that of a file by its path.

    Args:
      config: the name, or the path of a Python file with `get_config()`.
      changes: arguments of the command line, such as `--config.loss=mse`.

    Raises:
      UserError: there is no such config, it cannot be read, or it has no such field or takes no such value.
    """
    return _changed(_read(_file(config)), changes)


def describe(config: str) -> str:
    """The fields of a config, of a sweep those of its runs, each with its value and what it means, in a line.

    What it means is the comment behind the value, in the config's file or else in that of its kind's example.

    Raises:
      UserError: there is no such config, or it cannot be read.
    """
    settings = _read(_file(config))
    run, prefix = (settings.run, "config.run") if "run" in settings else (settings, "config")
    kind = kinds.of(run)
    meanings = {**_comments(path(kind.example)), **_comments(_file(config))}
    given = {field: f"--{prefix}.{field}={_shown(run[field])}" for field in kind.fields if field in run}
    width = max(map(len, given.values()))
    lines = [f"  {text:{width}}  {meanings.get(field, '')}".rstrip() for field, text in given.items()]
    return "\n".join([f"fields of the config {config}:", *lines])


def _comments(file: Path) -> dict[str, str]:
    """By field, what is said of it behind its value."""
    return dict(re.findall(r"^ +config\.(\w+) = .*  # (.+)$", file.read_text(), re.MULTILINE))


def _shown(value: Any) -> str:
    text = str(value)
    return text if text and " " not in text else f"'{text}'"


def _file(config: str) -> Path:
    return path(config) if config in names() else Path(config)


def _read(path: Path) -> ml_collections.ConfigDict:
    if path.is_dir() or not path.exists():
        problem = f"the config {path} is a folder" if path.is_dir() else f"there is no config {path}"
        raise UserError(
            f"{problem}: give the path of a Python file with get_config(), or one of the names {', '.join(names())}"
        )
    try:
        content = runpy.run_path(str(path))
        config = content["get_config"]() if "get_config" in content else None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f" in line {lines[-1]}" if lines else ""  # a syntax error says it itself
        raise UserError(
            f"the config {path} fails{place} ({type(error).__name__}: {one_line(error)}): mend it; {_EXAMPLE}"
        ) from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"the config {path} has no get_config() that returns a ConfigDict: add one; {_EXAMPLE}")
    return config


def _changed(config: ml_collections.ConfigDict, changes: Sequence[str]) -> ml_collections.ConfigDict:
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(changes))
        _, *unexpected = values(["", *changes])
    except flags.UnrecognizedFlagError as error:
        unexpected = [error.flagvalue]
    except flags.Error as error:
        raise UserError(
            f"the config does not take this value ({_reason(error)}): give one of the type that it has there"
        ) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        problem = _unknown_field(config, changes) or f"the config has no such field ({_reason(error)})"
        raise UserError(f"{problem}: it has {', '.join(config)}") from None
    if unexpected:
        given = " ".join(unexpected)
        raise UserError(
            f"unexpected arguments {given}: settings are given as --config.field=value, and --help lists the flags"
        )
    return holder.value.copy_and_resolve_references()


def _unknown_field(config: ml_collections.ConfigDict, changes: Sequence[str]) -> str | None:
    for name in re.findall(r"^--?(?:no)?config\.(\w+)", "\n".join(changes), re.MULTILINE):
        if name not in config:
            near = difflib.get_close_matches(name, config, 1)
            return f"the config has no field {name}" + "".join(f" (did you mean {field}?)" for field in near)
    return None


def _reason(error: BaseException) -> str:
    cause = error.args[0]
    return _reason(cause) if isinstance(cause, BaseException) else one_line(cause)
