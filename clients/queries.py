"""Several slices in one request, which costs the server and the network little more than one.

The answer is a stream of raw parts: the length of a description as a little-endian uint32,
the description (`PartsDocument`), then the values of each part, back to back.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import ValidationError

from archive_schema.errors import ErrorKind, FormatError, invalid
from archive_schema.models import Place
from archive_schema.wire import PartsDocument, QueryDocument, SliceQuery
from clients.documents import run_path
from clients.exchange import Request, changed, unreachable
from clients.payload import Expected, Given
from clients.retry import fetched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from clients.exchange import Operation, Reply
    from clients.options import Options
    from clients.slices import Source
    from clients.slicing import Selection

MOST_SLICES: Final = 256
"""Slices in one request."""

_LENGTH: Final = struct.Struct("<I")


def queried(
    run_id: str, wanted: Mapping[str, tuple[Source, Selection]], options: Options
) -> Operation[dict[str, NDArray[Any]]]:
    """Fetch the selections in *wanted*, in as few requests as their number and size allow.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for an array of another run.
    """
    for name, (source, _) in wanted.items():
        if source.run.id != run_id:
            message = f"{name!r} is an array of run {source.run.id!r}; expected one of {run_id!r}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
    found: dict[str, NDArray[Any]] = {}
    for group in _groups(wanted, options.max_request_bytes):
        query = QueryDocument(slices=tuple(_slice_query(name, *wanted[name]) for name in group))
        request = Request(
            f"{run_path(run_id)}/query",
            method="POST",
            params=(("format", "raw"),),
            headers={"Content-Type": "application/json"},
            body=query.model_dump_json(exclude_defaults=True).encode(),
        )
        expected = {name: wanted[name] for name in group}
        found |= yield from fetched(request, options.retry, partial(_parts, expected))
    return found


def _slice_query(name: str, source: Source, selection: Selection) -> SliceQuery:
    document = source.document
    return SliceQuery(
        name=name,
        field=document.name,
        layer=document.layer,
        place=Place(document.place),
        select=dict(selection.params),
    )


def _groups(wanted: Mapping[str, tuple[Source, Selection]], most: int) -> Iterator[Sequence[str]]:
    group: list[str] = []
    nbytes = 0
    for name, (source, selection) in wanted.items():
        size = (selection.size or 0) * source.dtype.itemsize
        if group and (nbytes + size > most or len(group) == MOST_SLICES):
            yield group
            group, nbytes = [], 0
        group.append(name)
        nbytes += size
    if group:
        yield group


def _parts(
    expected: Mapping[str, tuple[Source, Selection]], reply: Reply
) -> dict[str, NDArray[Any]]:
    body = reply.body
    if len(body) < _LENGTH.size or len(body) < _LENGTH.unpack_from(body)[0] + _LENGTH.size:
        raise unreachable(f"{reply.url}: the answer ends within its description")
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    try:
        described = PartsDocument.model_validate_json(body[_LENGTH.size : start])
    except ValidationError as error:
        message = f"{reply.url} answered with no description of parts: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
    names = [part.name for part in described.parts]
    if names != list(expected):
        raise changed(f"{reply.url}: expected parts {list(expected)}, got {names}")
    found = {}
    for part in described.parts:
        source, selection = expected[part.name]
        given = Given(part.dims, part.shape, np.dtype(part.dtype).newbyteorder("<"))
        values = body[start + part.offset :][: part.nbytes]
        wanted = Expected(selection.dims, selection.shape, source.dtype)
        found[part.name] = wanted.take(given, values, reply.url)
    return found
