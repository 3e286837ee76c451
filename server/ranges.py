"""``Range`` requests: one range of bytes, after RFC 9110 §14.

What is malformed, asks for several ranges or is in another unit is ignored, as the RFC
allows: the answer is then the whole, with status 200.
"""

from __future__ import annotations

import re
from typing import Final

from archive_schema.errors import ErrorKind, InvalidInputError

_ONE_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


class UnsatisfiableRangeError(InvalidInputError):
    """No byte of the range exists; *size* is what the answer must tell."""

    def __init__(self, header: str, size: int) -> None:
        message = f"Range {header!r} lies outside of the {size} bytes that there are"
        super().__init__(ErrorKind.RANGE_NOT_SATISFIABLE, message)
        self.size = size


def requested_range(
    header: str | None, size: int, *, if_range: str | None = None, tag: str | None = None
) -> tuple[int, int] | None:
    """Return the bytes ``[start, stop)`` that are asked for; None for the whole.

    Parameters
    ----------
    header
        Value of ``Range``.
    size : int, bytes
        Length of the whole.
    if_range
        Value of ``If-Range``: unless it is *tag*, the whole is meant.

    Raises
    ------
    UnsatisfiableRangeError
        ``range-not-satisfiable``.

    Examples
    --------
    >>> requested_range("bytes=0-9", 100), requested_range("bytes=-10", 100)
    ((0, 10), (90, 100))
    >>> requested_range("bytes=90-", 95), requested_range("bytes=0-1,5-6", 100)
    ((90, 95), None)
    """
    if header is None or (if_range is not None and if_range.strip() != tag):
        return None
    found = _ONE_RANGE.fullmatch(header.strip())
    if found is None:
        return None
    first, last = found.groups()
    if first:
        start, stop = int(first), int(last) + 1 if last else size
        if last and int(last) < start:  # malformed, not unsatisfiable
            return None
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        return None
    if start >= size or not stop:
        raise UnsatisfiableRangeError(header, size)
    return start, min(stop, size)
