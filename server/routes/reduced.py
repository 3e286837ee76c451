"""What is computed of planned slices: reductions, overviews and tables of statistics.

1. The slice is reduced over some dimensions, and what is left perhaps once more.
2. Some axes of the result are cut into parts, of which the means are given.

A small result is kept by the digest of the slice, which tells every value that it follows from.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, TooLargeError
from archive_schema.wire import CoordinateTable
from server.exporters.kept import Kept
from server.formats import Values
from server.parameters import LAST_TWO
from server.query import (
    BINS,
    LAYER,
    Held,
    LayerSlices,
    Slice,
    Statistics,
    downsample,
    part_edges,
    reduce,
    statistics,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from server.parameters import ReductionRequest, SliceRequest
    from server.query import Planned

Made: TypeAlias = "Values | list[tuple[str, Values]]"
"""An array, or one for each layer where they are no one array."""

MOST_ROWS: Final = 100_000
"""Of a table of statistics."""
_KEPT_NBYTES: Final = 32 << 20
_LARGEST_KEPT_NBYTES: Final = 4 << 20
_KEPT: Final = Kept[Values](_KEPT_NBYTES, lambda values: values.nbytes + 1024)
_TABLES: Final = Kept[CoordinateTable](1 << 17, lambda table: len(table.index) + 16)
"""As many rows together."""
_INLINE_DIMS: Final = 2


def dims_over(found: Planned, asked: ReductionRequest) -> tuple[str, ...]:
    """Return the dims of *found* that go first; never none.

    Raises
    ------
    InvalidInputError
        ``unknown-parameter`` for a dim to keep that *found* has not, and ``invalid-parameter``
        where nothing would be reduced.
    """
    if asked.over is not None or asked.keep is None or asked.then is not None:
        return asked.over or found.dims
    return _others(found.dims, asked.keep)


def by_layer(found: Planned, over: Sequence[str]) -> bool:
    """Return whether *found* is several layers of which each is reduced by itself."""
    return bool(found.layers) and LAYER not in over


def outline(found: Planned, request: SliceRequest) -> Values:
    """Return dims and shape of what is held while *found* is computed, to be refused if too large.

    Of a chain of reductions that is what the first leaves.
    """
    over = () if request.reduction is None else dims_over(found, request.reduction)
    most = {} if request.reduction else _most(found.dims, request)
    kept = [
        (dim, min(length, most.get(dim, length)))
        for dim, length in zip(found.dims, found.shape, strict=True)
        if dim not in over
    ]
    dims, shape = tuple(dim for dim, _ in kept), tuple(length for _, length in kept)
    exact = request.reduction is not None and request.reduction.operation in ("min", "max")
    zero = np.zeros((), found.dtype if exact else np.float64)
    return _values(found, dims, np.broadcast_to(zero, shape), {})


def computed(found: Planned, request: SliceRequest) -> Made:
    """Return what *request* asks to be computed of *found*: reduced, downsampled, or both.

    Raises
    ------
    InvalidInputError, NotFoundError
        As `reduce`, `downsample` and `dims_over`.
    """
    key = (found.digest, request.how.rpartition("~")[0])
    known = _KEPT.get(key)
    if known is not None:
        return known
    made = _computed(found, request)
    if isinstance(made, Values) and made.nbytes <= _LARGEST_KEPT_NBYTES:
        _KEPT.put(key, made)
    return made


def statistics_table(found: Planned, asked: ReductionRequest) -> CoordinateTable:
    """Return a row of statistics for each layer and each entry along the dims that stay.

    Raises
    ------
    InvalidInputError, NotFoundError
        As `statistics`; ``unknown-parameter`` for a dim that a layer has not.
    TooLargeError
        ``answer-too-large`` for more than `MOST_ROWS`.
    """
    key = (found.digest, str(asked))
    known = _TABLES.get(key)
    if known is not None:
        return known
    slices = found.slices if isinstance(found, LayerSlices) else {"": found}
    expected_rows = sum(_row_count(one, asked) for one in slices.values())
    if expected_rows > MOST_ROWS:
        message = f"{expected_rows:,} rows of statistics; expected at most {MOST_ROWS:,}"
        message += ": keep fewer dimensions, or select a part of them"
        raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, message)
    columns: dict[str, list[Any]] = {}
    for layer, one in slices.items():
        rows = _rows(one, asked)
        if isinstance(found, LayerSlices):
            count = len(next(iter(rows.values())))
            columns.setdefault(LAYER, []).extend([layer] * count)
        for name, values in rows.items():
            columns.setdefault(name, []).extend(values)
    count = len(next(iter(columns.values())))
    filled = {name: tuple(column) for name, column in columns.items()}
    table = CoordinateTable(axis="row", index=tuple(range(count)), coordinates=filled)
    _TABLES.put(key, table)
    return table


def _computed(found: Planned, request: SliceRequest) -> Made:
    asked = request.reduction
    if asked is None or asked.operation is None:
        return _finished(found, found, request)
    operation, over = asked.operation, dims_over(found, asked)
    if not isinstance(found, LayerSlices) or not by_layer(found, over):
        return _finished(found, Held(found.field, *reduce(found, operation, over)), request)
    parts = {
        layer: Held(one.field, *reduce(one, operation, over)) for layer, one in found.slices.items()
    }
    if not found.alike(over):
        return [
            (layer, _finished(found.slices[layer], part, request)) for layer, part in parts.items()
        ]
    dims = next(iter(parts.values())).dims
    together = np.stack([part.array for part in parts.values()])
    return _finished(found, Held(found.field, (LAYER, *dims), together), request)


def _finished(found: Planned, left: Planned | Held, request: SliceRequest) -> Values:
    """Return what is left after the first reduction, reduced again and downsampled."""
    asked = request.reduction
    if asked is not None and asked.then is not None:
        over = _others(left.dims, asked.keep or ())
        left = Held(left.field, *reduce(left, asked.then, over))
    coordinates = {dim: at for dim, at in found.coordinates().items() if dim in left.dims}
    if not request.downsample:
        assert isinstance(left, Held)  # noqa: S101  otherwise there was nothing to compute
        return _values(found, left.dims, left.array, coordinates)
    most = _most(left.dims, request)
    for dim, length in zip(left.dims, left.shape, strict=True):
        if dim in most:  # a part is called as its first entry is
            coordinates[dim] = coordinates[dim][part_edges(length, most[dim])[:-1]]
    return _values(found, left.dims, downsample(left, most), coordinates)


def _rows(one: Slice, asked: ReductionRequest) -> dict[str, list[Any]]:
    """Return the columns of one layer's rows, or of the only ones."""
    kept = _kept(one, asked)
    axes = tuple(axis for axis, dim in enumerate(one.dims) if dim not in kept)
    coordinates = one.coordinates()
    along = [coordinates[dim] for dim in one.dims if dim in kept]
    rows = dict(
        zip(
            (dim for dim in one.dims if dim in kept),
            (grid.reshape(-1).tolist() for grid in np.meshgrid(*along, indexing="ij")),
            strict=True,
        )
    )
    found = statistics(one, axes)
    for about in fields(Statistics):
        values: NDArray[Any] = getattr(found, about.name)
        if about.name != "histogram":
            rows[about.name] = values.reshape(-1).tolist()
            continue
        for at, column in enumerate(values.reshape(-1, BINS).T):
            rows[f"{about.name}_{at}"] = column.tolist()
    return rows


def _row_count(one: Slice, asked: ReductionRequest) -> int:
    return math.prod(one.shape[one.dims.index(dim)] for dim in _kept(one, asked))


def _kept(one: Slice, asked: ReductionRequest) -> tuple[str, ...]:
    """Return the dims of which each entry has a row; a layer always has."""
    over = tuple(dim for dim in asked.over or () if dim != LAYER)
    keep = tuple(dim for dim in asked.keep or () if dim != LAYER)
    _check_known(one.dims, (*over, *keep))
    return tuple(dim for dim in one.dims if dim not in over) if over else keep


def _others(dims: tuple[str, ...], keep: tuple[str, ...]) -> tuple[str, ...]:
    _check_known(dims, keep)
    others = tuple(dim for dim in dims if dim not in keep)
    if not others:
        message = (
            f"nothing is left to reduce: keep names all of {', '.join(dims) or 'no dimension'}"
        )
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return others


def _check_known(dims: tuple[str, ...], names: Sequence[str]) -> None:
    for name in names:
        if name not in dims:
            message = f"{name!r} is not among the dimensions left: {', '.join(dims) or 'none'}"
            raise InvalidInputError(ErrorKind.UNKNOWN_PARAMETER, message)


def _most(dims: tuple[str, ...], request: SliceRequest) -> Mapping[str, int]:
    """Return the most parts of each of *dims* that is downsampled."""
    asked = request.downsample or {}
    if LAST_TWO in asked:
        return dict.fromkeys((dim for dim in dims[-_INLINE_DIMS:] if dim != LAYER), asked[LAST_TWO])
    _check_known(dims, tuple(asked))
    return asked


def _values(
    found: Planned,
    dims: tuple[str, ...],
    array: NDArray[Any],
    coordinates: dict[str, NDArray[Any]],
) -> Values:
    return Values(
        run=found.field.run.manifest.id,
        field=found.field.spec.name,
        layer=None if found.layers else found.field.spec.layer,
        dims=dims,
        shape=array.shape,
        dtype=array.dtype,
        dtype_name=array.dtype.name,
        coordinates=lambda: coordinates,
        pieces=lambda _: iter([array]),
        steps=found.steps,
        layers=found.layers if dims[:1] == (LAYER,) else (),
    )
