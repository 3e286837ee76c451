"""What an answer about a slice says before its values, and how large it may be."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from archive_schema.wire import (
    DIMS_HEADER,
    DTYPE_HEADER,
    LAYERS_HEADER,
    SHAPE_HEADER,
    STEPS_HEADER,
    ranges_text,
    step_ranges,
)
from server.answers import Head
from server.conditional import cache_control
from server.formats import TEXT_FORMATS
from server.limits import check_size

if TYPE_CHECKING:
    from archive_schema.wire import SliceFormat
    from server.formats import Values
    from server.parameters import SliceRequest
    from server.query import Planned
    from server.settings import Settings

LONGEST_HEADER: Final = 4096
_DTYPE, _SHAPE, _DIMS, _STEPS, _LAYERS = (
    name.lower().encode()
    for name in (DTYPE_HEADER, SHAPE_HEADER, DIMS_HEADER, STEPS_HEADER, LAYERS_HEADER)
)


def check_answer(found: Planned | Values, chosen: SliceFormat, settings: Settings) -> None:
    """Check that a slice is not too large for an answer in the format *chosen*.

    Raises
    ------
    TooLargeError
        ``answer-too-large``.
    """
    if chosen in TEXT_FORMATS:
        check_size(found, settings.max_text_bytes, f"an answer as {chosen}")
    else:
        check_size(found, settings.max_answer_bytes, "a binary answer")


def slice_head(
    found: Planned, tag: str, request: SliceRequest, values: Values | None = None
) -> Head:
    """Return tag, lifetime and headers; *values* are what is sent, where it is one array."""
    headers: list[tuple[bytes, bytes]] = []
    if values is not None:
        headers += [
            (_DTYPE, values.dtype_name.encode()),
            (_SHAPE, ",".join(map(str, values.shape)).encode()),
            (_DIMS, ",".join(values.dims).encode()),
        ]
    text = steps_text(found.steps)
    if text and len(text) <= LONGEST_HEADER and not (found.layers and values is None):
        headers.append((_STEPS, text.encode()))
    if found.layers:
        names = ",".join(quote(layer, safe="") for layer in found.layers)
        if len(names) <= LONGEST_HEADER:
            headers.append((_LAYERS, names.encode()))
    lifetime = cache_control(sealed=found.field.run.sealed)
    return Head(tag, lifetime, headers, varies=request.format is None)


def steps_text(steps: tuple[int, ...]) -> str:
    """Return step numbers in the order in which they come, ranges where they rise."""
    if len(steps) == 1:  # what is asked most
        return str(steps[0])
    if all(earlier < later for earlier, later in pairwise(steps)):
        return ranges_text(step_ranges(steps))
    return ",".join(map(str, steps))
