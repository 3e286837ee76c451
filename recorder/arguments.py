"""Checks of plain arguments, with messages that say what was expected."""

from __future__ import annotations

import operator

from archive_schema.errors import ErrorKind, invalid


def check_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a *value* of the argument *name* that is not one of those *allowed*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``.
    """
    if value not in allowed:
        message = f"expected {name} of {', '.join(allowed)}; got {value!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)


def check_at_least(limit: int, **values: float | None) -> None:
    """Refuse an argument below *limit*; None is no value.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``.
    """
    for name, value in values.items():
        if value is not None and value < limit:
            message = f"expected {name} of {limit} or more, got {value}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)


def integer(name: str, value: object) -> int:
    """Return the Python integer of any library's integer.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for anything else; a truth value is no number here.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    message = f"expected {name} as an integer, got {type(value).__name__} {value!r:.100}"
    raise invalid(ErrorKind.INVALID_PARAMETER, message)
