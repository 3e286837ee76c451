"""From the body of a request to arrays: `.npy`, raw values with their description, `.npz`.

Values are received into the array that holds them, which is made once dtype and shape are
known and checked, and memory for it is taken. Nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.dtypes import dtype_name, numpy_dtype, storage_of
from archive_schema.errors import ErrorKind, invalid
from archive_schema.models import Encoding
from archive_schema.wire import DTYPE_HEADER, SHAPE_HEADER
from recorder.importers.foreign import ForeignFile
from recorder.importers.npz_file import NpzFile
from recorder.snapshot import HostArray
from server.push.upload import too_large

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BytesIO

    from numpy.typing import NDArray

    from server.push.upload import Upload

_MAGIC: Final = b"\x93NUMPY"
_LENGTH_NBYTES: Final = {1: 2, 2: 4}
"""Of the header's length, by version."""
_LONGEST_HEADER: Final = 10_000
_MOST_AXES: Final = 32
_LARGEST_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
_SHAPE: Final = re.compile(r"(?:[0-9]{1,18}(?:,[0-9]{1,18})*)?")


@dataclass(frozen=True, slots=True)
class Described:
    """What values are, before they come."""

    source: str
    """Name of their dtype; one that NumPy lacks, too."""
    dtype: np.dtype[Any]
    """Of the bytes that come: with their byte order; bits, of a dtype that NumPy lacks."""
    shape: tuple[int, ...]
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes that come."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, max_bytes: int) -> None:
        """Refuse what cannot be recorded, and what is too large.

        Raises
        ------
        InvalidInputError
            ``shape-mismatch``.
        TooLargeError
            ``request-too-large``.
        """
        if len(self.shape) > _MOST_AXES:
            message = f"expected at most {_MOST_AXES} axes, got {len(self.shape)}"
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        # An axis without entries makes no other axis small.
        extent = math.prod(max(length, 1) for length in self.shape) * self.dtype.itemsize
        if extent > max_bytes:
            raise too_large(extent, max_bytes)


async def npy_described(upload: Upload) -> Described:
    """Take the header of a `.npy` body.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for what is none, and ``dtype-mismatch`` for what is not recorded.
    """
    start = await upload.read(len(_MAGIC) + 2)
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + 2:
        message = f"expected a .npy body, which begins with {_MAGIC!r}; got {start[:6]!r}"
        raise invalid(ErrorKind.FILE_INVALID, message)
    version = start[len(_MAGIC)]
    size = _LENGTH_NBYTES.get(version)
    if size is None:
        raise invalid(ErrorKind.FILE_INVALID, f"expected .npy version 1 or 2, got {version}")
    length = int.from_bytes(await upload.read(size), "little")
    if length > _LONGEST_HEADER:
        message = f"expected a .npy header of at most {_LONGEST_HEADER:,} bytes, got {length:,}"
        raise invalid(ErrorKind.FILE_INVALID, message)
    return _parsed(await upload.read(length))


def raw_described(dtype: str | None, shape: str | None) -> Described:
    """Return what the headers of a raw body say.

    Parameters
    ----------
    dtype
        ``X-Trace-Dtype``: the name of any dtype that can be recorded, bfloat16 and float8 too.
    shape
        ``X-Trace-Shape``: lengths with commas between them; nothing, for a single value.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` or ``dtype-mismatch``.
    """
    if dtype is None or shape is None:
        missing = DTYPE_HEADER if dtype is None else SHAPE_HEADER
        message = (
            f"raw values need {DTYPE_HEADER} and {SHAPE_HEADER}, such as float32 and 8,249,4;"
            f" {missing} is missing"
        )
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    text = shape.replace(" ", "")
    if not _SHAPE.fullmatch(text):
        message = f"expected {SHAPE_HEADER} such as 8,249,4; got {shape[:100]!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    name = dtype.strip()
    bits = storage_of(name, narrow="bits")
    plain = bits.stored if bits.encoding is Encoding.BITS else name
    return Described(name, numpy_dtype(plain), tuple(map(int, text.split(","))) if text else ())


async def received(upload: Upload, described: Described, take: Callable[[int], None]) -> HostArray:
    """Receive the values of a body whose description was taken.

    Parameters
    ----------
    take
        Takes bytes of memory.

    Raises
    ------
    InvalidInputError
        ``shape-mismatch`` for more or fewer bytes, ``value-out-of-range`` for bytes that are no
        values of the dtype.
    StorageError
        What *take* raises.
    """
    take(needed_nbytes(described))
    order = described.shape[::-1] if described.fortran else described.shape
    array = np.empty(order, described.dtype)
    await upload.fill(array.reshape(-1).view(np.uint8).data)
    check_values(array)
    given = array.T if described.fortran else array
    # What is in Fortran order is copied into C order once it is recorded.
    return HostArray(described.source, given, owned=not described.fortran)


def npz_arrays(body: BytesIO, max_bytes: int, take: Callable[[int], None]) -> dict[str, HostArray]:
    """Return the arrays in an `.npz` body by name; memory for *body* itself was taken.

    Raises
    ------
    InvalidInputError
        ``file-invalid``, ``dtype-mismatch`` or ``value-out-of-range``.
    TooLargeError
        ``request-too-large`` for members that are too large together, unpacked.
    StorageError
        What *take* raises.
    """
    foreign = ForeignFile("the body", body, None, body.getbuffer().nbytes, b"")
    with NpzFile(foreign) as npz:
        described = {
            name: Described(dtype_name(one.dtype), one.dtype, one.shape, one.fortran)
            for name, one in npz.arrays.items()
        }
        for name, one in npz.arrays.items():
            if one.is_none:
                raise foreign.refuse(f"{name} holds Python objects, which are never unpickled")
            described[name].check(max_bytes)
        unpacked = sum(one.nbytes for one in described.values())
        if unpacked > max_bytes:
            raise too_large(unpacked, max_bytes)
        take(sum(map(needed_nbytes, described.values())))
        return {name: _member(npz, name, one) for name, one in described.items()}


def needed_nbytes(described: Described) -> int:
    """Return the memory that values take until they are stored: their own, and encoded."""
    stored = numpy_dtype(storage_of(described.source).stored).itemsize
    copies = 2 if described.fortran else 1
    return copies * described.nbytes + math.prod(described.shape) * stored


def check_values(array: NDArray[Any]) -> None:
    """Refuse bytes that are no values of their dtype.

    Raises
    ------
    InvalidInputError
        ``value-out-of-range``.
    """
    if array.dtype.kind == "b" and array.size and (highest := array.view(np.uint8).max()) > 1:
        message = f"expected bool values of 0 and 1, got a byte {highest}"
        raise invalid(ErrorKind.VALUE_OUT_OF_RANGE, message)
    if array.dtype.kind == "U" and array.size:
        codes = array.reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        first, last = _SURROGATES
        odd = codes[(codes > _LARGEST_CODE_POINT) | ((codes >= first) & (codes <= last))]
        if odd.size:
            message = f"expected text of Unicode characters, got the code {int(odd[0]):#x}"
            raise invalid(ErrorKind.VALUE_OUT_OF_RANGE, message)


def _member(npz: NpzFile, name: str, described: Described) -> HostArray:
    values = npz.read(name)
    assert values is not None, "members that hold None were refused"  # noqa: S101
    check_values(values if values.flags.c_contiguous else values.T)
    return HostArray(described.source, values, owned=bool(values.flags.c_contiguous))


def _parsed(header: bytes) -> Described:
    try:
        said = ast.literal_eval(header.decode("latin-1").strip())
        descr, fortran, shape = said["descr"], said["fortran_order"], said["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) else np.dtype("V")
    except (LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise invalid(ErrorKind.FILE_INVALID, f"expected a .npy header: {error!r:.200}") from error
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(fortran, bool):
        message = f"expected a .npy header with shape and order, got {shape!r:.80}, {fortran!r:.80}"
        raise invalid(ErrorKind.FILE_INVALID, message)
    if dtype.hasobject:
        message = "expected numbers or text, got Python objects, which are never unpickled"
        raise invalid(ErrorKind.DTYPE_MISMATCH, message)
    if dtype.kind == "V":
        message = (
            f"expected numbers or text, got {descr!r}; bfloat16 and float8 come as raw values"
            f" with {DTYPE_HEADER}"
        )
        raise invalid(ErrorKind.DTYPE_MISMATCH, message)
    storage_of(dtype_name(dtype))
    return Described(dtype_name(dtype), dtype, shape, fortran)
