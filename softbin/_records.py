"""Results with named fields, of which each has a docstring."""

import inspect
import re
from typing import TypeVar

_Record = TypeVar("_Record", bound=type)
_FIELDS = re.compile(r"^  ((?:\w+, )*\w+): (.*(?:\n    .*)*)", re.MULTILINE)


def documented(record: _Record) -> _Record:
    """Say of each field of a named tuple what its class says of it, and not "Alias for field number 0".

    Annotations stay the text that they are in the source, so that `help` shows no references to them.
    """
    _, _, attributes = inspect.cleandoc(record.__doc__ or "").partition("Attributes:\n")
    for names, text in _FIELDS.findall(attributes.partition("\n\n")[0]):
        for name in names.split(", "):
            getattr(record, name).__doc__ = " ".join(text.split())
    hints = record.__new__.__annotations__
    record.__annotations__ = {name: getattr(hint, "__forward_arg__", hint) for name, hint in hints.items()}
    record.__new__.__annotations__ = record.__annotations__
    record.__new__.__module__ = record.__module__  # where the text is to be looked up
    return record
