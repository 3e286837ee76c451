"""Text and tables of values: JSON, CSV and Arrow as a slice is answered, beside libraries alone.

16 steps x 100 samples x 249 positions x 4 values that are in memory, so that encoding alone is
measured: float32 (6.4 MB), float16 and int64 tokens. The libraries get the same values as one
array: orjson alone, `numpy.savetxt` of the values without their coordinates, and pyarrow with a
table that is made first. The values are those of the common trace.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv

from archive_schema.wire import SliceFormat
from benchmarks.findings import Findings
from benchmarks.measure import compare
from benchmarks.traces import QUICK, trace
from server.formats import Values, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

STEPS: Final = 4 if QUICK else 16
ROUNDS: Final = 3 if QUICK else 5
DIMS: Final = ("step", "sample", "position", "channel")


def report() -> Findings:
    """Return a table for each dtype, and the speed of each way in MB of values a second."""
    found = Findings()
    scores = np.ascontiguousarray(trace().score_matrix[:STEPS])
    arrays: list[NDArray[Any]] = [scores.astype(np.float32), scores, trace().sequence[:STEPS]]
    for array in arrays:
        values = values_of(array)
        ways: dict[str, Callable[[], object]] = {
            "our JSON": partial(drain, values, SliceFormat.JSON),
            "orjson": partial(orjson_alone, array),
            "our CSV": partial(drain, values, SliceFormat.CSV),
            "pyarrow CSV": partial(arrow_csv, array),
            "numpy.savetxt": partial(savetxt, array),
            "our Arrow": partial(drain, values, SliceFormat.ARROW),
            "pyarrow stream": partial(arrow_stream, array),
        }
        verify(values, array)
        rows = compare(ways, reference="orjson", rounds=ROUNDS)
        title = f"{array.nbytes / 1e6:.1f} MB of {array.dtype} as text and tables"
        found.table(title, rows, "orjson")
        speeds = ", ".join(f"{row.name} {array.nbytes / 1e6 / row.cpu_s:.0f}" for row in rows)
        lengths = ", ".join(
            f"{name} {drain(values, name) / array.nbytes:.1f}"
            for name in (SliceFormat.JSON, SliceFormat.CSV, SliceFormat.ARROW)
        )
        found.text(f"MB of values a second of CPU: {speeds}. Bytes a byte of values: {lengths}.\n")
    return found


def values_of(array: NDArray[Any]) -> Values:
    """Return *array* as the values of a slice, in pieces like those of a run."""
    dims = DIMS[: array.ndim]

    def pieces(max_bytes: int) -> Iterator[NDArray[Any]]:
        rows = max(1, max_bytes // array[0, 0].nbytes)
        for step in array:
            for start in range(0, len(step), rows):
                yield step[start : start + rows]

    return Values(
        run="r",
        field="x",
        layer=None,
        dims=dims,
        shape=array.shape,
        dtype=array.dtype,
        dtype_name=array.dtype.name,
        coordinates=lambda: {
            dim: np.arange(length) for dim, length in zip(dims, array.shape, strict=True)
        },
        pieces=pieces,
        steps=tuple(range(len(array))),
    )


def drain(values: Values, chosen: SliceFormat) -> int:
    """Make the whole answer; return its length."""
    return sum(len(part) for part in encode(values, chosen).parts())


def verify(values: Values, array: NDArray[Any]) -> None:
    """Check that the answers hold the values."""
    made = {name: b"".join(encode(values, name).parts()) for name in SliceFormat}
    read: Any = np.array(orjson.loads(made[SliceFormat.JSON])["data"], array.dtype)
    np.testing.assert_array_equal(read, array)
    read = pa_csv.read_csv(io.BytesIO(made[SliceFormat.CSV]))
    np.testing.assert_array_equal(read["value"].to_numpy().astype(array.dtype), array.ravel())
    with pa.ipc.open_stream(made[SliceFormat.ARROW]) as stream:
        read = stream.read_all()
    np.testing.assert_array_equal(read["value"].to_numpy(), array.ravel())
    places = np.unravel_index(np.arange(array.size), array.shape)
    for dim, place in zip(values.dims, places, strict=True):
        np.testing.assert_array_equal(read[dim].to_numpy(), place)


def orjson_alone(array: NDArray[Any]) -> bytes:
    """Return nested lists of the values."""
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def savetxt(array: NDArray[Any]) -> None:
    """Write the values alone, a row of the last axis a line."""
    form = "%d" if array.dtype.kind == "i" else "%.9g"
    np.savetxt(io.BytesIO(), array.reshape(-1, array.shape[-1]), form, delimiter=",")


def tidy(array: NDArray[Any]) -> Any:
    """Return the table of the values with their coordinates."""
    places = np.unravel_index(np.arange(array.size), array.shape)
    columns = dict(zip(DIMS, places, strict=False))
    return pa.table({**columns, "value": array.ravel()})


def arrow_csv(array: NDArray[Any]) -> None:
    """Make the table and write it as CSV."""
    wide = array.astype(np.float32) if array.dtype == np.float16 else array
    pa_csv.write_csv(tidy(wide), pa.BufferOutputStream())


def arrow_stream(array: NDArray[Any]) -> None:
    """Make the table and write it as a stream."""
    table = tidy(array)
    with pa.ipc.new_stream(pa.BufferOutputStream(), table.schema) as writer:
        writer.write_table(table)
