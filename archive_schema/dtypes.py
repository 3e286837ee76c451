"""Which values the sampler hands over, which the archive stores, and which a reader gets.

Three dtypes, by name: *source* (``bfloat16``), *stored* in the Zarr array (``float32``)
and *dtype* for the reader (``float32``). bfloat16 and float8 are widened exactly, because
no common reader knows them; token ids are narrowed to uint8 and given back as int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import ml_dtypes
import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Encoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.models import FieldSpec

_WIDENED: Final = {
    "bfloat16": "float32",
    "float8_e4m3fn": "float16",
    "float8_e4m3fnuz": "float16",
    "float8_e5m2": "float16",
    "float8_e5m2fnuz": "float16",
    "float8_e8m0fnu": "float32",
}
"""The smallest NumPy float that holds every value of a type NumPy lacks."""

_PLAIN: Final = frozenset(
    ("bool", "float16", "float32", "float64"),
) | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
TOKENS_STORED: Final = "uint8"
TOKENS_GIVEN: Final = "int64"
_LARGEST_TOKEN: Final = 255


@dataclass(frozen=True, slots=True)
class Storage:
    """The three dtypes of a field, by name, and how the stored values encode the given ones."""

    source: str
    stored: str
    dtype: str
    encoding: Encoding


def storage_of(
    source: str, *, tokens: bool = False, narrow: Literal["widen", "bits"] = "widen"
) -> Storage:
    """Decide how values of the dtype named *source* are stored.

    Parameters
    ----------
    source : str
        NumPy or torch name of the dtype, without ``torch.``; strings as ``U8``, ``S8``.
    tokens : bool
        Integers that index a vocabulary of at most 256.
    narrow : {"widen", "bits"}
        What happens to bfloat16 and float8: widened exactly, or kept bit by bit.

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch`` for a dtype that the archive does not store.
    """
    if source in _WIDENED:
        wide = _WIDENED[source]
        if narrow == "bits":
            bits = "uint16" if source == "bfloat16" else "uint8"
            return Storage(source, bits, wide, Encoding.BITS)
        return Storage(source, wide, wide, Encoding.PLAIN)
    if tokens and np.dtype(source).kind in "iu":
        return Storage(source, TOKENS_STORED, TOKENS_GIVEN, Encoding.TOKENS)
    if source in _PLAIN or is_text(source):
        return Storage(source, source, source, Encoding.PLAIN)
    message = (
        "expected bool, an integer, float16/32/64, bfloat16, float8 or a fixed string;"
        f" got {source}"
    )
    raise InvalidInputError(ErrorKind.DTYPE_MISMATCH, message)


def is_text(name: str) -> bool:
    """Return whether *name* is a fixed string dtype, such as ``U8`` or ``S8``."""
    return name[:1] in ("U", "S") and name[1:].isdigit() and int(name[1:]) > 0


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name under which *dtype* is declared: ``float16``, ``U8``.

    Examples
    --------
    >>> dtype_name(np.dtype(">f2")), dtype_name(np.dtype("<U8"))
    ('float16', 'U8')
    """
    if dtype.kind == "U":
        return f"U{dtype.itemsize // 4}"
    return f"S{dtype.itemsize}" if dtype.kind == "S" else dtype.name


@lru_cache(maxsize=256)
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the little-endian NumPy dtype that `dtype_name` named."""
    return np.dtype(name).newbyteorder("<")


def to_stored(values: NDArray[Any], spec: FieldSpec) -> NDArray[Any]:
    """Return *values* as the Zarr array of *spec* holds them: little-endian, C order.

    Parameters
    ----------
    values
        Of the source dtype; a bfloat16 or float8 as the unsigned integers of its bits.

    Raises
    ------
    InvalidInputError
        ``value-out-of-range`` for token ids outside [0, 255].
    """
    if spec.source_dtype in _WIDENED:
        stored = values if spec.encoding is Encoding.BITS else _widen(values, spec.source_dtype)
    elif spec.encoding is Encoding.TOKENS:
        stored = _tokens(values, spec.name)
    else:
        stored = values
    return np.ascontiguousarray(stored, dtype=numpy_dtype(spec.stored_dtype)).reshape(values.shape)


def to_given(stored: NDArray[Any], spec: FieldSpec) -> NDArray[Any]:
    """Return values of the Zarr array of *spec* as readers get them; the inverse of `to_stored`."""
    if spec.encoding is Encoding.TOKENS:
        return stored.astype(numpy_dtype(spec.dtype))
    if spec.encoding is Encoding.BITS:
        return _widen(stored, spec.source_dtype)
    return stored


def given(stored: NDArray[Any], spec: FieldSpec) -> NDArray[Any]:
    """Return `to_given` as far as NumPy does not do it where the values are assigned."""
    return to_given(stored, spec) if spec.encoding is Encoding.BITS else stored


def fill_value(stored_dtype: str) -> object:
    """Return what Zarr shows where nothing was recorded: NaN where the dtype has one."""
    dtype = numpy_dtype(stored_dtype)
    return float("nan") if dtype.kind == "f" else dtype.type()


def _tokens(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if values.dtype != np.uint8 and values.size:
        least, most = values.min(), values.max()
        if least < 0 or most > _LARGEST_TOKEN:
            message = (
                f"field {name!r}: expected token ids in [0, 255],"
                f" got {least} to {most}; declare it with tokens=False"
            )
            raise InvalidInputError(ErrorKind.VALUE_OUT_OF_RANGE, message)
    return values.astype(np.uint8)


def _widen(bits: NDArray[Any], source: str) -> NDArray[Any]:
    if source == "bfloat16":
        # A shift is exact for every code and twice as fast as a cast.
        return (bits.astype(np.uint32) << 16).view(np.float32)
    values: NDArray[Any] = _float8_values(source)[bits]
    return values


@lru_cache
def _float8_values(source: str) -> NDArray[Any]:
    codes = np.arange(256, dtype=np.uint8).view(np.dtype(getattr(ml_dtypes, source)))
    # e8m0 has 2^127, which float32 holds; a NaN code raises a spurious "invalid" flag.
    with np.errstate(all="ignore"):
        values: NDArray[Any] = codes.astype(_WIDENED[source])
    return values
