"""What the commands share: flags that describe themselves, a config, and mistakes in a line."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import ml_collections

from softbin.experiments.runs import config_files
from softbin.experiments.runs.errors import UserError

_HELP = ("-h", "--help", "--helpshort")


class Parser(argparse.ArgumentParser):
    """The flags of a command; a mistake in them is a `UserError`."""

    def __init__(self, command: str, purpose: str, example: str):
        super().__init__(
            prog=command,
            description=purpose,
            epilog=f"example:\n  {command} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument(*_HELP, action="help", help="describe the command, and exit")

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`."""
        raise UserError(f"{message}: see {self.prog} --help")

    def add_config(self, change: str, described: str) -> None:
        """Define `--config`, with an example of how to change a field of it.

        Args:
          change: the example.
          described: the config whose fields the help describes, where it is asked without one.
        """
        self._described = described
        self.add_argument(
            "--config",
            required=True,
            help=f"a config by its name ({', '.join(config_files.names())}), or the path of a Python file with "
            f"get_config(); --config.FIELD=VALUE changes a field of it, as in {change}; the help of a "
            "config describes its fields",
        )

    def parse_with_config(
        self, arguments: Sequence[str] | None
    ) -> tuple[argparse.Namespace, ml_collections.ConfigDict]:
        """The flags, and the config as they change it."""
        arguments = sys.argv[1:] if arguments is None else arguments
        if not set(_HELP).isdisjoint(arguments):
            config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            config.add_argument("--config", default=self._described)
            named, _ = config.parse_known_args(arguments)
            self.epilog = f"{self.epilog}\n\n{config_files.describe(named.config)}"
        flags, changes = self.parse_known_args(arguments)
        return flags, config_files.load(flags.config, changes)
