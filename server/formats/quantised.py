"""Values as small integers between the least and the greatest, for what is only looked at.

``value = offset + scale x integer``. The greatest integer stands for what is not finite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from server.formats.values import Values

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"u8": np.dtype("u1"), "u16": np.dtype("<u2")}
_PIECE_NBYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Quantised:
    """Values as integers, and what they stand for."""

    values: Values
    scale: float
    offset: float
    """NaN if no value is finite."""


def quantised(values: Values, kind: Literal["u8", "u16"]) -> Quantised:
    """Return *values* as integers of *kind*; they are read once for their extremes.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for text.
    """
    if values.dtype.kind not in "biuf":
        message = f"expected numbers to quantise; field {values.field!r} is {values.dtype_name}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    dtype = _DTYPES[kind]
    none = np.iinfo(dtype).max
    low, high = _extremes(values)
    scale = (high / (none - 1) - low / (none - 1)) if high > low else 0.0

    def pieces(max_bytes: int) -> Iterator[NDArray[Any]]:
        for piece in values.pieces(max_bytes):
            wide = piece.astype(np.float64)
            finite = np.isfinite(wide)
            with np.errstate(all="ignore"):
                share = (wide - low) / scale if scale else np.zeros_like(wide)
            nearest = np.rint(np.where(finite, share, 0)).clip(0, none - 1)
            yield np.where(finite, nearest, none).astype(dtype)

    integers = replace(values, dtype=dtype, dtype_name=dtype.name, pieces=pieces)
    return Quantised(integers, scale, low)


def _extremes(values: Values) -> tuple[float, float]:
    """Return the least and the greatest finite value; NaN where there is none."""
    low, high = np.inf, -np.inf
    for piece in values.pieces(_PIECE_NBYTES) if values.size else ():
        finite = piece[np.isfinite(piece)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (np.nan, np.nan)
