"""What `softbin-train` and `softbin-sweep` share: a config from a file and the command line, and its mistakes."""

from collections.abc import Callable, Sequence
from functools import partial

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from softbin.experiments.common.errors import UserError, exit_on_user_error


def run(command: Callable[[ml_collections.ConfigDict, str], None], example: str) -> None:
    """Call `command` with the `--config` and the `--workdir` of the command line; mistakes are reported in a line."""
    config = config_flags.DEFINE_config_file("config", help_string=f"A file with get_config(), as {example}.")
    workdir = flags.DEFINE_string("workdir", None, "Where the results go.")
    flags.mark_flags_as_required(["config", "workdir"])

    def main(arguments: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)
        if len(arguments) > 1:
            raise UserError(
                f"unexpected arguments {' '.join(arguments[1:])}: settings are given as --config.field=value"
            )
        command(_settings(config), str(workdir.value))

    exit_on_user_error(partial(app.run, main, flags_parser=_parse))


def _settings(config) -> ml_collections.ConfigDict:
    try:
        return config.value.copy_and_resolve_references()
    except OSError as error:
        raise UserError(f"cannot read the config: {_one_line(error)}") from None


def _parse(arguments: list[str]) -> list[str]:
    """Absl's parser, with ml_collections' errors about the config made ours."""
    try:
        return app.parse_flags_with_usage(arguments)
    except AttributeError as error:
        raise UserError(f"the config has no field {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    cause = error.args[0]
    return _one_line(cause) if isinstance(cause, BaseException) else " ".join(str(cause).split())
