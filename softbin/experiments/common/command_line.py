"""What the commands share: flags that describe themselves, a config, and mistakes in a line."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

import ml_collections

from softbin.experiments.common import config_files
from softbin.experiments.common.errors import UserError


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
        self.add_argument("-h", "--help", "--helpshort", action="help", help="describe the command, and exit")

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`."""
        raise UserError(f"{message}: see {self.prog} --help")

    def add_config(self, change: str) -> None:
        """Define `--config`, with an example of how to change a field of it."""
        self.add_argument(
            "--config",
            required=True,
            help=f"a config by its name ({', '.join(config_files.names())}), or the path of a Python file with "
            f"get_config(); --config.FIELD=VALUE changes a field of it, as in {change}",
        )

    def parse_with_config(
        self, arguments: Sequence[str] | None
    ) -> tuple[argparse.Namespace, ml_collections.ConfigDict]:
        """The flags, and the config as they change it."""
        flags, changes = self.parse_known_args(arguments)
        return flags, config_files.load(flags.config, changes)
