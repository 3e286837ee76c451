"""Reading slices of one field: what is asked of the server, and the arrays that come back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote

import numpy as np

from archive_schema.errors import ErrorKind, FormatError, invalid
from archive_schema.wire import DIMS_HEADER, DTYPE_HEADER, SHAPE_HEADER, TOP_COLUMNS, steps_of
from clients.axis import SAMPLE, STEP
from clients.documents import run_path
from clients.exchange import Request, changed
from clients.payload import Expected, Given, npz_members
from clients.retry import fetched
from clients.slicing import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from archive_schema.wire import FieldDocument, RunDocument
    from clients.exchange import Operation, Reply
    from clients.options import Options

MaskedArray: TypeAlias = "np.ma.MaskedArray[Any, np.dtype[Any]]"


@dataclass(frozen=True)
class Source:
    """A field as a run's document describes it."""

    run: RunDocument
    document: FieldDocument

    @cached_property
    def path(self) -> str:
        """Path of the field's slices, relative to the base URL."""
        place, layer, name = self.document.place, self.document.layer, self.document.name
        where = "fields" if place == "trace" else place
        parts = (where, *(() if layer is None else (layer,)), name)
        return "/".join((run_path(self.run.id), *(quote(part, safe="") for part in parts)))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What values are given as, little-endian."""
        return np.dtype(self.document.dtype).newbyteorder("<")

    @cached_property
    def whole(self) -> Selection:
        """All of the field."""
        return Selection.whole(
            self.document.dims, self.document.shape, steps_of(self.document.steps)
        )


class Top(NamedTuple):
    """The largest values of a matrix, or of several, largest first."""

    rows: NDArray[np.int64]
    """Positions along the last axis but one, or step numbers."""
    columns: NDArray[np.int64]
    values: NDArray[Any]
    places: Mapping[str, NDArray[np.int64]]
    """The same along the axes before, by their names: which matrix."""


def read(source: Source, selection: Selection, options: Options) -> Operation[NDArray[Any]]:
    """Fetch exactly *selection*, in several requests where it is larger than one may be.

    Returns
    -------
    NDArray, shape and dims of *selection*, dtype of the field
        C order; an array of its own, also for a single value.
    """
    if selection.size is None:
        return (yield from _part(source, selection, options))
    values = np.empty([length or 0 for length in selection.shape], source.dtype)
    for part, place in selection.parts(most_values(source, options)):
        values[place] = yield from _part(source, part, options)
    return values


def masked(source: Source, selection: Selection, options: Options) -> Operation[MaskedArray]:
    """Fetch *selection* where it is recorded, and say where it is not.

    Returns
    -------
    MaskedArray, shape and dims of *selection*, dtype of the field
        Masked where nothing is recorded.
    """
    if selection.size is None:
        message = f"field {source.document.name!r} changes its shape; select one step"
        raise invalid(ErrorKind.INVALID_SELECTION, message)
    nothing = np.zeros([length or 0 for length in selection.shape], source.dtype)
    values: MaskedArray = np.ma.MaskedArray(nothing, mask=True)
    for part, place in selection.parts(most_values(source, options)):
        request = slice_request(source, part, "npz", missing="mask")
        decode = partial(_masked, source, part)
        values[place] = yield from fetched(request, options.retry, decode)
    return values


def reduced(
    source: Source,
    selection: Selection,
    options: Options,
    op: str,
    over: str | Sequence[str] | None,
) -> Operation[NDArray[Any]]:
    """Let the server reduce *selection* over the dims *over*, or over all that it keeps."""
    names = (over,) if isinstance(over, str) else selection.dims if over is None else tuple(over)
    left = [axis for axis in selection.kept if axis.dim not in names]
    expected = Expected(tuple(axis.dim for axis in left), tuple(axis.length for axis in left))
    named = {"over": ",".join(names)} if names else {}
    request = slice_request(source, selection, "raw", reduce=op, **named)
    return (yield from fetched(request, options.retry, partial(_array, expected)))


def largest(
    source: Source, selection: Selection, options: Options, k: int, threshold: float | None
) -> Operation[Top]:
    """Let the server find the *k* largest values of a matrix, or of several."""
    limit = {} if threshold is None else {"threshold": repr(float(threshold))}
    request = slice_request(source, selection, "npz", top=str(k), **limit)
    return (yield from fetched(request, options.retry, partial(_top, selection.dims[:-2])))


def most_values(source: Source, options: Options) -> int:
    """Return how many values of a field one request may be for."""
    return max(1, options.max_request_bytes // max(1, source.dtype.itemsize))


def slice_request(source: Source, selection: Selection, kind: str, **params: str) -> Request:
    """Return the request for *selection* in the format *kind*."""
    return Request(source.path, params=(*selection.params, *params.items(), ("format", kind)))


def _part(source: Source, selection: Selection, options: Options) -> Operation[NDArray[Any]]:
    expected = Expected(selection.dims, selection.shape, source.dtype)
    request = slice_request(source, selection, "raw")
    return (yield from fetched(request, options.retry, partial(_array, expected)))


def _array(expected: Expected, reply: Reply) -> NDArray[Any]:
    try:
        dims, shape, dtype = (
            reply.headers[name.lower()] for name in (DIMS_HEADER, SHAPE_HEADER, DTYPE_HEADER)
        )
        given = Given(
            tuple(dims.split(",")) if dims else (),
            tuple(map(int, shape.split(","))) if shape else (),
            np.dtype(dtype).newbyteorder("<"),
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"{reply.url}: expected headers that describe an array, got {error!r}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
    return expected.take(given, reply.body, reply.url)


def _masked(source: Source, selection: Selection, reply: Reply) -> MaskedArray:
    members = npz_members(reply, (source.document.name, "recorded"))
    values, recorded = members[source.document.name], members["recorded"]
    if values.shape != selection.shape or values.dtype != source.dtype:
        raise changed(
            f"{reply.url}: expected shape {selection.shape} of {source.dtype},"
            f" got {values.shape} of {values.dtype}"
        )
    # The mask has the step and the sample axis only.
    axes = tuple(at for at, dim in enumerate(selection.dims) if dim not in (STEP, SAMPLE))
    missing = np.broadcast_to(np.expand_dims(~recorded, axes), values.shape)
    return np.ma.MaskedArray(values, mask=missing)


def _top(before: Sequence[str], reply: Reply) -> Top:
    columns = {dim: f"{dim}_" if dim in TOP_COLUMNS else dim for dim in before}
    members = npz_members(reply, ("rows", "columns", "values", *columns.values()))
    places = {dim: members[column] for dim, column in columns.items()}
    return Top(members["rows"], members["columns"], members["values"], places)
