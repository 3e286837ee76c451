"""Which format an answer has: ``?format=`` by name, else ``Accept`` by media type."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.wire import MEDIA_TYPES, SliceFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALSO: Final = {"application/x-ndarray": SliceFormat.NPY, "application/zip": SliceFormat.NPZ}
"""Media types that others use for the same bytes."""


def choose_format(
    name: str | None, accept: str | None, offered: tuple[SliceFormat, ...]
) -> SliceFormat:
    """Return the format of an answer.

    Parameters
    ----------
    name
        Value of ``?format=``, which wins over ``Accept``.
    accept
        Value of ``Accept``, with quality values; None and ``*/*`` mean the first offered.
    offered
        In the server's order of preference.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable``.
    """
    if name is None:
        return accepted(accept, offered) if accept else offered[0]
    for one in offered:
        if one == name:
            return one
    raise _not_acceptable(f"format {name!r}", offered)


@lru_cache(maxsize=256)
def accepted(accept: str, offered: tuple[SliceFormat, ...]) -> SliceFormat:
    """Return the offered format with the highest quality in *accept*; errors as `choose_format`."""
    ranges = [_media_range(part) for part in accept.split(",") if part.strip()]
    best, best_quality = offered[0], 0.0
    for one in offered:
        names = [MEDIA_TYPES[one], *(media for media, also in _ALSO.items() if also is one)]
        quality = max(_quality(media, ranges) for media in names)
        if quality > best_quality:
            best, best_quality = one, quality
    if ranges and not best_quality:
        raise _not_acceptable(f"Accept {accept!r:.200}", offered)
    return best


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of *media* by the most specific range that matches it."""
    kind = media.partition("/")[0]
    for pattern in (media, f"{kind}/*", "*/*"):
        for name, quality in ranges:
            if name == pattern:
                return quality
    return 0.0


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.lower().split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return name, quality


def _not_acceptable(asked: str, offered: Sequence[SliceFormat]) -> InvalidInputError:
    names = ", ".join(f"{one} ({MEDIA_TYPES[one]})" for one in offered)
    message = f"{asked} is not offered here; expected one of {names}"
    return InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
