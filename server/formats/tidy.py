"""Values as a tidy table, CSV or Arrow: one row a value, its coordinates before it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from archive_schema.wire import MEDIA_TYPES, SliceFormat
from server.formats.json import as_text
from server.formats.values import Body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from server.formats.values import Part, Values

ROWS: Final = 1 << 16
"""Rows of one record batch."""
_END: Final = b"\xff\xff\xff\xff" + bytes(4)
"""Of an Arrow stream."""
VALUE: Final = "value"
"""Name of the column of values; the others are called like the dimensions."""


def csv(values: Values) -> Body:
    """Return the table as CSV with a header line; not recorded is empty, NaN is ``nan``."""
    return Body(MEDIA_TYPES[SliceFormat.CSV], None, partial(_csv_parts, values))


def arrow(values: Values) -> Body:
    """Return the table as an Arrow stream.

    Its length is known beforehand, except with text, such as the names of several layers: Arrow
    stores it at variable length.
    """
    schema = _schema(values)
    return Body(
        MEDIA_TYPES[SliceFormat.ARROW],
        None if values.layers or values.dtype.kind in "US" else _arrow_nbytes(values, schema),
        partial(_arrow_parts, values, schema),
    )


def table_csv(table: Any) -> bytes:
    """Return a whole Arrow *table* as CSV."""
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def table_arrow(table: Any) -> bytes:
    """Return a whole *table* as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _schema(values: Values) -> Any:
    kind = values.dtype.kind
    column = pa.string() if kind in "US" else pa.from_numpy_dtype(values.dtype)
    metadata = {
        "run": values.run,
        "field": values.field,
        "layer": values.layer or "",
        "dims": ",".join(values.dims),
        "shape": ",".join(map(str, values.shape)),
        "dtype": values.dtype_name,
    }
    named = values.dims[:1] if values.layers else ()
    columns = [
        (dim, pa.string() if dim in named else pa.int64()) for dim in values.dims if dim != VALUE
    ]
    return pa.schema([*columns, (VALUE, column)], metadata=metadata)


def _batches(values: Values, schema: Any) -> Iterator[Any]:
    coordinates = values.coordinates()
    for start, rows in _rows(values):
        yield _batch(values, schema, coordinates, rows, start)


def _rows(values: Values) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield `ROWS` values at a time, fewer only at the end, wherever the pieces end."""
    start, held = 0, np.empty(0, values.dtype)
    for piece in values.pieces(ROWS * values.dtype.itemsize):
        flat = piece.reshape(-1)
        held = np.concatenate([held, flat]) if len(held) else flat
        while len(held) >= ROWS:
            yield start, held[:ROWS]
            start, held = start + ROWS, held[ROWS:]
    if len(held):
        yield start, held


def _batch(
    values: Values,
    schema: Any,
    coordinates: dict[str, NDArray[Any]],
    rows: NDArray[Any],
    start: int,
) -> Any:
    stop = start + len(rows)
    strides = [math.prod(values.shape[axis + 1 :]) for axis in range(len(values.shape))]
    columns = [
        pa.array(_column(coordinates[dim], stride, start, stop))
        for dim, stride in zip(values.dims, strides, strict=True)
        if dim != VALUE
    ]
    present = values.present(start, stop)
    absent = None if present is None else ~present
    columns.append(pa.array(as_text(rows), schema.field(VALUE).type, mask=absent))
    return pa.record_batch(columns, schema=schema)


def _column(positions: NDArray[Any], stride: int, start: int, stop: int) -> NDArray[Any]:
    """Return a coordinate of the values ``[start, stop)``; it is another every *stride* values."""
    changes = np.arange(start // stride, -(-stop // stride))
    taken = positions[changes % len(positions)]
    if stride == 1:
        return taken
    edges = np.append(changes * stride, stop).clip(min=start)
    return np.repeat(taken, np.diff(edges))


def _csv_parts(values: Values) -> Iterator[bytes]:
    schema = _schema(values)
    if pa.types.is_float16(schema.field(VALUE).type):
        schema = schema.set(len(schema) - 1, pa.field(VALUE, pa.float32()))
    yield table_csv(schema.empty_table())
    options = pa_csv.WriteOptions(include_header=False)
    for batch in _batches(values, schema):
        sink = pa.BufferOutputStream()
        pa_csv.write_csv(batch, sink, options)
        yield bytes(sink.getvalue())


def _arrow_parts(values: Values, schema: Any) -> Iterator[Part]:
    # Message by message, because a writer copies each of them several times.
    yield memoryview(schema.serialize())
    for batch in _batches(values, schema):
        yield memoryview(batch.serialize())
    yield _END


def _arrow_nbytes(values: Values, schema: Any) -> int:
    """Return the length of the stream: that of a batch depends on its rows and nulls alone."""
    coordinates = values.coordinates()
    known: dict[tuple[int, bool], int] = {}
    total = len(schema.serialize()) + len(_END)
    for start in range(0, values.size, ROWS):
        stop = min(start + ROWS, values.size)
        case = (stop - start, values.present(start, stop) is None)
        if case not in known:
            rows = np.zeros(stop - start, values.dtype)
            batch = _batch(values, schema, coordinates, rows, start)
            known[case] = pa.ipc.get_record_batch_size(batch)
        total += known[case]
    return total
