"""Values as JSON, nested like the array, a piece at a time.

Numbers are the shortest that read back as the same float32 or float64; a float16 is written
as the float32 of the same value. NaN and ±inf, which JSON lacks, become null; so does what is
not recorded where ``missing=mask`` asked for it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from archive_schema.wire import MEDIA_TYPES, SliceFormat
from server.formats.values import Body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from server.formats.values import Values

PIECE_NBYTES: Final = 1 << 18


def json(values: Values) -> Body:
    """Return the values as the JSON document of a slice."""
    return Body(MEDIA_TYPES[SliceFormat.JSON], None, partial(_parts, values))


def json_values(array: NDArray[Any], present: NDArray[np.bool_] | None = None) -> bytes:
    """Return *array* as nested JSON arrays.

    Parameters
    ----------
    present : optional, shape (array.size,)
        Values to give; the others become null.
    """
    if present is not None and array.dtype.kind == "f":
        array = np.where(present.reshape(array.shape), array, array.dtype.type(np.nan))
    elif present is not None:
        plain = as_text(array).astype(object).reshape(-1)
        plain[~present] = None
        return orjson.dumps(plain.reshape(array.shape).tolist())
    if array.dtype.kind in "US":
        return orjson.dumps(as_text(array).tolist())
    return orjson.dumps(
        np.ascontiguousarray(array) if array.ndim else array[()],
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def as_text(array: NDArray[Any]) -> NDArray[Any]:
    """Return byte strings as text; other values as they are."""
    if array.dtype.kind != "S":
        return array
    return np.char.decode(array, "utf-8", "backslashreplace")


def _parts(values: Values) -> Iterator[bytes]:
    head = {
        "run": values.run,
        "field": values.field,
        "layer": values.layer,
        "dims": values.dims,
        "shape": values.shape,
        "dtype": values.dtype_name,
        "steps": values.steps,
        **({"layers": values.layers} if values.layers else {}),
        "data": None,
    }
    yield orjson.dumps(head)[: -len(b"null}")]
    start = 0
    for piece in values.pieces(PIECE_NBYTES) if values.size else ():
        yield _nested(values, piece.reshape(-1), start)
        start += piece.size
    if not values.size:
        yield json_values(np.empty(values.shape, values.dtype))
    yield b"}"


def _nested(values: Values, piece: NDArray[Any], start: int) -> bytes:
    """Return the text of a piece, with the brackets that open before and close after it."""
    if not values.shape:
        return json_values(piece.reshape(()), values.present(0, 1))
    shape, stop = values.shape, start + piece.size
    units = [math.prod(shape[axis:]) for axis in range(len(shape))]
    axis = 0  # becomes the axis that the piece cuts: before it, the piece lies within one entry
    while axis + 1 < len(shape) and start // units[axis + 1] == (stop - 1) // units[axis + 1]:
        axis += 1
    rows = piece.reshape(-1, *shape[axis + 1 :])
    text = json_values(rows, values.present(start, stop))[1:-1]
    opening = sum(start % unit == 0 for unit in units[: axis + 1])
    closing = sum(stop % unit == 0 for unit in units[: axis + 1])
    comma = b"," if start else b""
    return comma + b"[" * opening + text + b"]" * closing
