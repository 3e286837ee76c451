"""The largest values of matrices, as (…, row, column, value) rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
import pyarrow as pa

from archive_schema.wire import MEDIA_TYPES, TOP_COLUMNS, SliceFormat
from server.formats.binary import npz_file
from server.formats.json import json_values
from server.formats.tidy import table_arrow, table_csv
from server.formats.values import Body

if TYPE_CHECKING:
    from server.query import Largest, Planned

TOP_FORMATS: Final = (SliceFormat.JSON, SliceFormat.NPZ, SliceFormat.CSV, SliceFormat.ARROW)


def encode_top(found: Planned, largest: Largest, chosen: SliceFormat) -> Body:
    """Return the *largest* values of the slice *found* in the format *chosen*.

    Where there are several matrices, the places along the axes before row and column come
    first, under the names of these axes.
    """
    *before, rows, columns = largest.places
    leading = {
        f"{dim}_" if dim in TOP_COLUMNS else dim: places
        for dim, places in zip(largest.dims, before, strict=False)
    }
    values = largest.values
    if chosen is SliceFormat.NPZ:
        return npz_file({**leading, "rows": rows, "columns": columns, "values": values})
    if chosen is SliceFormat.JSON:
        data = _document(found, largest)
    else:
        wide = values.astype("f4") if values.dtype == "f2" and chosen is SliceFormat.CSV else values
        table = pa.table({**leading, "row": rows, "column": columns, "value": wide})
        data = table_csv(table) if chosen is SliceFormat.CSV else table_arrow(table)
    return Body(MEDIA_TYPES[chosen], len(data), lambda: iter([data]))


def _document(found: Planned, largest: Largest) -> bytes:
    *before, rows, columns = (orjson.Fragment(json_values(one)) for one in largest.places)
    spec = found.field.spec
    places = dict(zip(largest.dims, before, strict=False))
    return orjson.dumps(
        {
            "run": found.field.run.manifest.id,
            "field": spec.name,
            "layer": None if found.layers else spec.layer,
            "dims": largest.dims,
            **({"places": places} if places else {}),
            "rows": rows,
            "columns": columns,
            "values": orjson.Fragment(json_values(largest.values)),
        }
    )
