"""Reading slices of one field: what is asked of the server, and the arrays that come back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np

from archive_schema.errors import ErrorKind, FormatError
from archive_schema.wire import DIMS_HEADER, DTYPE_HEADER, SHAPE_HEADER
from clients.exchange import Reply, Request, changed, unreachable
from clients.retry import fetched
from clients.slicing import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.wire import FieldDocument
    from clients.exchange import Operation
    from clients.options import Options

REDUCTIONS: Final = ("mean", "std", "min", "max", "sum", "l2", "entropy")


@dataclass(frozen=True)
class Source:
    """A field as a run's document describes it."""

    run_id: str
    document: FieldDocument
    steps: tuple[int, ...]

    @cached_property
    def path(self) -> str:
        """Path of the field's slices, relative to the base URL."""
        place, layer, name = self.document.place, self.document.layer, self.document.name
        where = "fields" if place == "trace" else place
        parts = ("runs", self.run_id, where, *(() if layer is None else (layer,)), name)
        return "/".join(quote(part, safe="") for part in parts)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What values are given as, little-endian."""
        return np.dtype(self.document.dtype).newbyteorder("<")

    @cached_property
    def whole(self) -> Selection:
        """All of the field."""
        return Selection.whole(self.document.dims, self.document.shape, self.steps)


class Top(NamedTuple):
    """The largest values of a matrix, largest first."""

    rows: NDArray[np.int64]
    """Positions along the first axis, or step numbers."""
    columns: NDArray[np.int64]
    values: NDArray[Any]


def read(source: Source, selection: Selection, options: Options) -> Operation[NDArray[Any]]:
    """Fetch exactly *selection*, in several requests where it is larger than one may be.

    Returns
    -------
    NDArray, shape and dims of *selection*, dtype of the field
        C order; an array of its own, also for a single value.
    """
    most = max(1, options.max_request_bytes // max(1, source.dtype.itemsize))
    if selection.size is None:
        return (yield from _part(source, selection, options))
    values = np.empty([length or 0 for length in selection.shape], source.dtype)
    if values.size:
        for part, place in selection.parts(most):
            values[place] = yield from _part(source, part, options)
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
    params = (("reduce", op), ("over", ",".join(names)))
    dims = tuple(axis.dim for axis in selection.kept if axis.dim not in names)
    shape = tuple(axis.length for axis in selection.kept if axis.dim not in names)
    request = _request(source, selection, params)
    return (yield from fetched(request, options.retry, partial(_array, dims, shape, None)))


def _part(source: Source, selection: Selection, options: Options) -> Operation[NDArray[Any]]:
    expected = partial(_array, selection.dims, selection.shape, source.dtype)
    return (yield from fetched(_request(source, selection, ()), options.retry, expected))


def _request(source: Source, selection: Selection, params: tuple[tuple[str, str], ...]) -> Request:
    return Request(source.path, params=(*selection.params, *params, ("format", "raw")))


def _array(
    dims: tuple[str, ...],
    shape: tuple[int | None, ...],
    dtype: np.dtype[Any] | None,
    reply: Reply,
) -> NDArray[Any]:
    """Return the values in *reply*, an answer in the raw format.

    Raises
    ------
    ConflictError
        ``run-differs`` if they are not what was expected: None is any length, any dtype.
    StorageError
        ``store-unreachable`` if the body is not as long as its shape says.
    """
    given_dims, given_shape, given_dtype = _described(reply)
    fits = len(shape) == len(given_shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, given_shape, strict=True)
    )
    if given_dims != dims or not fits or dtype not in (None, given_dtype):
        raise changed(
            f"{reply.url}: expected {dims} of shape {shape} and {dtype or 'any dtype'},"
            f" got {given_dims} of shape {given_shape} and {given_dtype}"
        )
    nbytes = math.prod(given_shape) * given_dtype.itemsize
    if nbytes != len(reply.body):
        raise unreachable(
            f"{reply.url}: shape {given_shape} of {given_dtype} is {nbytes} bytes,"
            f" got {len(reply.body)}"
        )
    # A copy, because an array over `bytes` cannot be written to.
    return np.frombuffer(reply.body, given_dtype).reshape(given_shape).copy()


def _described(reply: Reply) -> tuple[tuple[str, ...], tuple[int, ...], np.dtype[Any]]:
    try:
        dims, shape, dtype = (
            reply.headers[name.lower()] for name in (DIMS_HEADER, SHAPE_HEADER, DTYPE_HEADER)
        )
        return (
            tuple(dims.split(",")) if dims else (),
            tuple(map(int, shape.split(","))) if shape else (),
            np.dtype(dtype).newbyteorder("<"),
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"{reply.url}: expected headers that describe an array, got {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
