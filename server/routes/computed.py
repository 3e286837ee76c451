"""Arrays and tables that are computed for an answer, in all formats of slices and tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from fastapi import Request, Response

from archive_schema.dtypes import dtype_name
from archive_schema.selection import ALL, parse_selector, plural, take
from archive_schema.wire import DIMS_HEADER, DTYPE_HEADER, MEDIA_TYPES, SHAPE_HEADER, SliceFormat
from server.answers import BodyResponse, Head, raw_header
from server.conditional import cache_control, etag, none_matches
from server.formats import TEXT_FORMATS, Values, choose_format, encode
from server.formats.tables import TABLE_FORMATS, encode_table
from server.limits import check_size
from server.replies import reply_bytes
from server.routes.exports import notes_header
from server.service import service_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from archive_schema.wire import CoordinateTable
    from server.query import RunView

FORMATS: Final = tuple(SliceFormat)


@dataclass(frozen=True, slots=True)
class Computed:
    """An array that is no field of the run."""

    run: RunView
    name: str
    dims: tuple[str, ...]
    array: NDArray[Any]
    notes: Sequence[str] = ()
    """What is to be said of it, a sentence each."""
    positions: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """What the entries of an axis are called, by dimension; by default 0, 1, 2, …."""

    def part(self, selectors: Mapping[str, str | None]) -> Values:
        """Return the part that *selectors*, by dimension, take; None takes all.

        Raises
        ------
        InvalidInputError
            ``invalid-selection`` or ``selection-out-of-bounds``.
        """
        array = self.array
        coordinates: dict[str, NDArray[np.int64]] = {}
        for dim, length in zip(self.dims, array.shape, strict=True):
            text = selectors.get(dim)
            taken = take(ALL if text is None else parse_selector(text, plural(dim)), dim, length)
            array = np.take(array, taken, axis=len(coordinates))
            if not isinstance(taken, int):
                at = np.array(taken, np.int64)
                coordinates[dim] = self.positions[dim][at] if dim in self.positions else at
        array = np.ascontiguousarray(array).reshape(array.shape)
        return Values(
            run=self.run.manifest.id,
            field=self.name,
            layer=None,
            dims=tuple(coordinates),
            shape=array.shape,
            dtype=array.dtype,
            dtype_name=dtype_name(array.dtype),
            coordinates=lambda: coordinates,
            pieces=lambda _: iter([array]),
        )


def reply_table(
    request: Request, run: RunView, table: CoordinateTable, name: str | None
) -> Response:
    """Answer with a table in the format *name*, or as ``Accept`` says."""
    chosen = choose_format(name, request.headers.get("accept"), TABLE_FORMATS)
    data = encode_table(table, chosen)
    return reply_bytes(request, data, MEDIA_TYPES[chosen], sealed=run.sealed, varies=name is None)


def reply_array(
    request: Request,
    computed: Computed,
    selectors: Mapping[str, str | None],
    name: str | None,
) -> Response:
    """Answer with a part of an array in the format *name*, or as ``Accept`` says.

    Raises
    ------
    TooLargeError
        ``answer-too-large``; errors of `Computed.part`.
    """
    chosen = choose_format(name, request.headers.get("accept"), FORMATS)
    values = computed.part(selectors)
    settings = service_of(request).settings
    limit = settings.max_text_bytes if chosen in TEXT_FORMATS else settings.max_answer_bytes
    check_size(values, limit, f"an answer as {chosen}")
    headers = [
        raw_header(DTYPE_HEADER, values.dtype_name),
        raw_header(SHAPE_HEADER, ",".join(map(str, values.shape))),
        raw_header(DIMS_HEADER, ",".join(values.dims)),
    ]
    headers += notes_header(computed.notes)
    said = blake2b(
        repr((values.field, values.dims, values.shape, headers)).encode(), digest_size=16
    )
    for piece in values.pieces(values.nbytes):
        said.update(piece.tobytes())
    tag = etag(said.hexdigest(), chosen)
    lifetime = cache_control(sealed=computed.run.sealed)
    if none_matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": lifetime})
    return BodyResponse(Head(tag, lifetime, headers, varies=name is None), encode(values, chosen))
