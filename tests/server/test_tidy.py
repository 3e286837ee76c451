"""Tables of more values than one record batch holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from archive_schema.wire import SliceFormat
from server.formats import Values, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def whole(values: Values, chosen: SliceFormat) -> bytes:
    """Return the answer, which is as long as it says."""
    body = encode(values, chosen)
    data = b"".join(body.parts())
    assert body.nbytes in (None, len(data))
    return data


@pytest.mark.parametrize("shape", [(3, 7, 5, 1000), (5, 30_000), (100_001,), (2, 70_000, 1)])
def test_every_value_has_its_coordinates(shape: tuple[int, ...]) -> None:
    """Wherever batches begin and end: before, in and behind an entry of each axis."""
    array = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    positions = {f"axis{axis}": np.arange(n) * 3 + axis for axis, n in enumerate(shape)}

    def pieces(max_bytes: int) -> Iterator[NDArray[Any]]:
        flat = array.reshape(-1)
        for start in range(0, flat.size, max_bytes // 4 - 11):
            yield flat[start : start + max_bytes // 4 - 11]

    values = Values(
        run="r", field="x", layer=None, dims=tuple(positions), shape=shape, dtype=array.dtype,
        dtype_name="int32", coordinates=lambda: positions, pieces=pieces,
    )  # fmt: skip
    with pa.ipc.open_stream(whole(values, SliceFormat.ARROW)) as stream:
        table = stream.read_all()
    read = pa_csv.read_csv(pa.py_buffer(whole(values, SliceFormat.CSV)))

    places = np.unravel_index(np.arange(array.size), shape)
    for found in (table, read):
        np.testing.assert_array_equal(found["value"].to_numpy(), array.reshape(-1))
        for (dim, along), place in zip(positions.items(), places, strict=True):
            np.testing.assert_array_equal(found[dim].to_numpy(), along[place])
