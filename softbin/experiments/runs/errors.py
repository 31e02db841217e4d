"""Errors that a command reports in a line, without a traceback."""

import sys
from collections.abc import Callable
from typing import Any


class UserError(Exception):
    """The request cannot be carried out; the message says why and what to do."""


def exit_on_user_error(command: Callable[[], Any]) -> None:
    """Run a command; on a `UserError` print its message alone and exit with status 2."""
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def one_line(reason: object) -> str:
    """The text of another's error, which may have several."""
    return " ".join(str(reason).split())
