"""Refusing what is too large before anything is read, and saying how to ask for it in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.errors import ErrorKind, TooLargeError
from archive_schema.selection import plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.formats import Values
    from server.query import Planned


def check_size(found: Planned | Values, limit: int, what: str) -> None:
    """Check that the values of an answer have at most *limit* bytes.

    Parameters
    ----------
    what : str
        What has the limit, for the message: "a binary answer".

    Raises
    ------
    TooLargeError
        ``answer-too-large``, with a selection that fits.
    """
    if found.nbytes <= limit:
        return
    firsts = {"step": found.steps} if found.steps else {}
    dims, shape, each = found.dims, found.shape, limit
    named, parts = "the slice has", "parts of it"
    if found.layers:
        # Layers are chosen by the path.
        dims, shape, each = dims[1:], shape[1:], max(limit // shape[0], 1)
        named, parts = f"the slices of {len(found.layers)} layers have", "fewer layers, or parts"
    part = part_that_fits(dims, shape, found.dtype.itemsize, each, firsts)
    message = (
        f"{named} {found.nbytes:,} bytes (shape {shape}, {found.dtype.name}) and"
        f" {what} takes at most {limit:,}; ask for {parts}, such as {part}"
    )
    raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, message)


def part_that_fits(
    dims: Sequence[str],
    shape: Sequence[int],
    itemsize: int,
    limit: int,
    numbers: Mapping[str, Sequence[int]],
) -> str:
    """Return the selection of a first part of at most *limit* bytes, as query parameters.

    Parameters
    ----------
    numbers
        What the entries of an axis are called, where that is not 0, 1, 2, ….

    Examples
    --------
    >>> part_that_fits(("step", "sample"), (100, 50), 8, 4000, {"step": range(0, 1000, 10)})
    'steps=0:91'
    >>> part_that_fits(("step", "sample"), (100, 50), 8, 80, {})
    'steps=0:1&samples=0:10'
    """
    chosen = []
    rest = itemsize
    for length in shape:
        rest *= length
    for dim, length in zip(dims, shape, strict=True):
        rest //= max(length, 1)
        count = max(1, min(length, limit // max(rest, 1)))
        names = numbers.get(dim, range(length))
        start, last = sorted((names[0], names[count - 1]))
        chosen.append(f"{plural(dim)}={start}:{last + 1}")
        if rest * count <= limit and rest <= limit:
            break
    return "&".join(chosen)
