"""A table of coordinates in the formats that hold a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from archive_schema.wire import SliceFormat
from server.formats.binary import npz_file
from server.formats.tidy import table_arrow, table_csv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.wire import CoordinateTable

TABLE_FORMATS: Final = (SliceFormat.JSON, SliceFormat.NPZ, SliceFormat.CSV, SliceFormat.ARROW)


def encode_table(table: CoordinateTable, chosen: SliceFormat) -> bytes:
    """Return *table* in the format *chosen*; its first column is the axis.

    What has no value is null in JSON and Arrow and empty in CSV. NPZ knows no absence: there
    a column with a gap is float64 with NaN, or text with an empty string.
    """
    if chosen is SliceFormat.JSON:
        return table.model_dump_json().encode()
    if chosen is SliceFormat.NPZ:
        members: dict[str, NDArray[Any]] = {table.axis: np.array(table.index, np.int64)}
        members |= {name: _array(column) for name, column in table.coordinates.items()}
        return b"".join(npz_file(members).parts())
    columns = {table.axis: pa.array(table.index, pa.int64()), **table.coordinates}
    made = pa.table({name: pa.array(column) for name, column in columns.items()})
    return table_csv(made) if chosen is SliceFormat.CSV else table_arrow(made)


def _array(column: tuple[Any, ...]) -> NDArray[Any]:
    if None not in column:
        return np.array(column) if column else np.empty(0)
    absent: Any = "" if any(isinstance(value, str) for value in column) else np.nan
    return np.array([absent if value is None else value for value in column])
