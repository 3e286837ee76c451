"""The largest values of a matrix, as (row, column, value) triplets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson
import pyarrow as pa

from archive_schema.wire import MEDIA_TYPES, SliceFormat
from server.formats.binary import npz_file
from server.formats.json import json_values
from server.formats.tidy import table_arrow, table_csv
from server.formats.values import Body

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from server.query import Slice

TOP_FORMATS: Final = (SliceFormat.JSON, SliceFormat.NPZ, SliceFormat.CSV, SliceFormat.ARROW)

Triplets: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]"


def encode_top(found: Slice, triplets: Triplets, chosen: SliceFormat) -> Body:
    """Return *triplets* of the slice *found* in the format *chosen*."""
    rows, columns, values = triplets
    if chosen is SliceFormat.NPZ:
        return npz_file({"rows": rows, "columns": columns, "values": values})
    if chosen is SliceFormat.JSON:
        data = _document(found, triplets)
    else:
        wide = values.astype("f4") if values.dtype == "f2" and chosen is SliceFormat.CSV else values
        table = pa.table({"row": rows, "column": columns, "value": wide})
        data = table_csv(table) if chosen is SliceFormat.CSV else table_arrow(table)
    return Body(MEDIA_TYPES[chosen], len(data), lambda: iter([data]))


def _document(found: Slice, triplets: Triplets) -> bytes:
    rows, columns, values = (orjson.Fragment(json_values(array)) for array in triplets)
    spec = found.field.spec
    return orjson.dumps(
        {
            "run": found.field.run.manifest.id,
            "field": spec.name,
            "layer": spec.layer,
            "dims": found.dims,
            "rows": rows,
            "columns": columns,
            "values": values,
        }
    )
