"""Foreign NPZ files, read in pieces, with nothing in them believed before it is checked.

Nothing is ever unpickled. The one object that NumPy pickles where no user sees it, None, is
recognised by its bytes.
"""

from __future__ import annotations

import math
import pickle
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.lib import format as npy

from archive_schema.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from recorder.importers.foreign import ForeignFile

SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
_ENDING: Final = ".npy"
_MOST_EXPANDED: Final = 1100
"""Deflate makes at most 1,032 bytes out of one."""
_MOST_MEMBERS: Final = 1_000_000
_LARGEST_WHOLE: Final = 256 << 20
"""Bytes of an array that is read at once."""
_VERIFIED_AT_ONCE: Final = 1 << 20
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED: Final = 1
_PLAIN: Final = frozenset("biufSU")


def _pickled_none() -> frozenset[bytes]:
    """Return every way in which versions of NumPy pickle ``np.array(None)``."""
    own = [pickle.dumps(np.array(None), protocol) for protocol in (2, 3, 4, 5)]
    # NumPy 1 named the module numpy.core. Protocols 4 and 5 count characters.
    older = (
        data.replace(b"\x8c\x16numpy._core.", b"\x8c\x15numpy.core.")
        .replace(b"\x95\x87", b"\x95\x86")
        .replace(b"cnumpy._core.", b"cnumpy.core.")
        for data in own
    )
    return frozenset((*own, *older))


_NONE: Final = _pickled_none()


@dataclass(frozen=True, slots=True)
class NpzArray:
    """What one member's header says."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    is_none: bool
    """Whether it is the object array that holds None."""
    deflated: bool
    crc32: int
    """Of the member, its header included, as the archive's directory says."""


class NpzFile:
    """An open NPZ file.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for anything that ``numpy.savez`` would not have written.
    """

    def __init__(self, file: ForeignFile) -> None:
        self._file = file
        with explained(file, "its directory"):
            self._zip = zipfile.ZipFile(file.stream)
            infos = self._zip.infolist()
        self._check(infos)
        self.arrays: Mapping[str, NpzArray] = {
            info.filename.removesuffix(_ENDING): self._header(info) for info in infos
        }

        self._streams: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.close()
        self._zip.close()

    def read(self, name: str) -> NDArray[Any] | None:
        """Return a whole array; None for the object array that holds it.

        Raises
        ------
        InvalidInputError
            ``file-invalid`` if it is damaged or larger than anything that is read whole.
        """
        array = self.arrays[name]
        if array.is_none:
            return None
        nbytes = array.dtype.itemsize * math.prod(array.shape)
        if nbytes > _LARGEST_WHOLE:
            message = f"{name} has {nbytes} bytes, more than the {_LARGEST_WHOLE} read at once"
            raise self._file.refuse(message)
        values = self.rows(name).read(math.prod(array.shape))
        return values.reshape(array.shape, order="F" if array.fortran else "C")

    def rows(self, name: str, axes: int = -1) -> NpzRows:
        """Return the array to be read in order, its first *axes* axes as one; -1 takes all.

        Any number of arrays can be read in turns; they are closed with the file.
        """
        array = self.arrays[name]
        inner = () if axes < 0 else array.shape[axes:]
        if array.fortran and axes >= 0:
            message = f"{name} is in Fortran order, which cannot be read step by step"
            raise self._file.refuse(message)
        with explained(self._file, name):
            stream = self._zip.open(f"{name}{_ENDING}")
            self._streams.append(stream)
            _read_header(stream)
        return NpzRows(self._file, name, stream, array.dtype, inner)

    def verify(self) -> None:
        """Read every member to its end, where its checksum is.

        A damaged member gives wrong values before it is found out; they must not be recorded.
        """
        for name in self.arrays:
            with explained(self._file, name), self._zip.open(f"{name}{_ENDING}") as stream:
                while stream.read(_VERIFIED_AT_ONCE):
                    pass

    def _check(self, infos: list[zipfile.ZipInfo]) -> None:
        names = [info.filename for info in infos]
        packed = sum(info.compress_size for info in infos)
        foreign = next((name for name in names if not name.endswith(_ENDING)), None)
        odd = next((info for info in infos if info.compress_type not in _METHODS), None)
        bomb = next(
            (i for i in infos if i.file_size > i.compress_size * _MOST_EXPANDED + 1024), None
        )
        refusals = (
            (len(names) > _MOST_MEMBERS, f"expected at most {_MOST_MEMBERS} members"),
            (len(set(names)) < len(names), "two members have the same name"),
            (foreign is not None, f"expected members that end in .npy, found {foreign!r}"),
            (any(i.flag_bits & _ENCRYPTED for i in infos), "it is encrypted"),
            (odd is not None, f"member {odd and odd.filename!r} is neither stored nor deflated"),
            (packed > self._file.nbytes, "its members overlap"),
            (bomb is not None, f"member {bomb and bomb.filename!r} expands more than deflate can"),
        )
        for refused, reason in refusals:
            if refused:
                raise self._file.refuse(f"expected an NPZ file: {reason}")

    def _header(self, info: zipfile.ZipInfo) -> NpzArray:
        name = info.filename.removesuffix(_ENDING)
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        with explained(self._file, name), self._zip.open(info) as stream:
            shape, fortran, dtype = _read_header(stream)
            rest = info.file_size - stream.tell()
            if dtype.kind == "O":
                # A longer pickle is no None; no more of it is read than tells that.
                if shape != () or stream.read(max(map(len, _NONE)) + 1) not in _NONE:
                    message = f"{name} holds Python objects, which are never unpickled"
                    raise self._file.refuse(message)
                return NpzArray(name, dtype, shape, False, True, deflated, info.CRC)  # noqa: FBT003
        if dtype.kind not in _PLAIN or not all(length >= 0 for length in shape):
            message = f"{name} is no array of numbers or text: {dtype}, shape {shape}"
            raise self._file.refuse(message)
        nbytes = dtype.itemsize * math.prod(shape)
        if nbytes != rest:
            message = f"{name} declares {dtype} of shape {shape}, {nbytes} bytes, and holds {rest}"
            raise self._file.refuse(message)
        return NpzArray(name, dtype, shape, fortran, False, deflated, info.CRC)  # noqa: FBT003


class NpzRows:
    """An array that is read in order, a few rows at a time."""

    def __init__(
        self,
        file: ForeignFile,
        name: str,
        stream: IO[bytes],
        dtype: np.dtype[Any],
        inner: tuple[int, ...],
    ) -> None:
        self._file = file
        self._name = name
        self._stream = stream
        self._dtype = dtype
        self._inner = inner

    def read(self, count: int) -> NDArray[Any]:
        """Return the next *count* rows, shape (count, *inner), little-endian.

        Raises
        ------
        InvalidInputError
            ``file-invalid`` if the member ends before that.
        """
        nbytes = count * self._dtype.itemsize * math.prod(self._inner)
        data = bytearray()
        with explained(self._file, self._name):
            while len(data) < nbytes and (part := self._stream.read(nbytes - len(data))):
                data += part
        if len(data) < nbytes:
            raise self._file.refuse(f"{self._name} ends {nbytes - len(data)} bytes early")
        if not data:
            return np.zeros((count, *self._inner), self._dtype)
        values = np.frombuffer(data, self._dtype).reshape(count, *self._inner)
        return values.astype(self._dtype.newbyteorder("<"), copy=False)

    def skip(self, count: int) -> None:
        """Pass over the next *count* rows. Those of a deflated member are inflated all the same."""
        left = count * self._dtype.itemsize * math.prod(self._inner)
        with explained(self._file, self._name):
            while left and (part := self._stream.read(min(left, _VERIFIED_AT_ONCE))):
                left -= len(part)
        if left:
            raise self._file.refuse(f"{self._name} ends {left} bytes early")

    def finish(self) -> None:
        """Check that the member ends here, and that all that was read has its checksum.

        Raises
        ------
        InvalidInputError
            ``file-invalid``.
        """
        with explained(self._file, self._name):
            rest = self._stream.read(1)
        if rest:
            raise self._file.refuse(f"{self._name} is longer than what was read of it")


@contextmanager
def explained(file: ForeignFile, what: str) -> Iterator[None]:
    """Turn what zipfile and NumPy raise about damaged bytes into ``file-invalid``."""
    try:
        yield
    except InvalidInputError:
        raise
    except (
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise file.refuse(f"expected an NPZ file: {what}: {error}") from error


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    message = f"version {version} of the npy format"
    raise ValueError(message)
