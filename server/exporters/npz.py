"""An NPZ file as a virtual file: a ZIP of stored ``.npy`` members, exact before it is read."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from isal.isal_zlib import crc32, crc32_combine
from numpy.lib import format as npy

from server.exporters.checksum import values_crc32
from server.exporters.values import Values
from server.exporters.virtual_file import Content, Literal, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Member: TypeAlias = "Values | NDArray[Any] | None"
"""An array; None is the object array that ``np.savez`` makes of it."""

_LARGEST: Final = 0xFFFFFFFF
"""A length or offset from here on needs ZIP64."""
_MOST_MEMBERS: Final = 0xFFFF
_DATE: Final = 1 << 5 | 1
"""1980-01-01: equal values must give equal bytes. NumPy writes the same."""
_UNIX: Final = 3 << 8
_MODE: Final = 0o600 << 16
_UTF8: Final = 0x800


def npz_file(members: Mapping[str, Member]) -> VirtualFile:
    """Return the file that ``np.load`` reads as *members*; equal members give equal bytes."""
    parts: list[Content] = []
    central: list[bytes] = []
    offset = 0
    for name, member in members.items():
        entry = _entry(f"{name}.npy", member, offset)
        local = Literal(entry.local())
        parts += (local, *entry.contents)
        central.append(entry.central())
        offset += local.nbytes + entry.nbytes
    directory = b"".join(central)
    return VirtualFile([*parts, Literal(directory + _end(len(members), len(directory), offset))])


@dataclass(frozen=True, slots=True)
class _Entry:
    """One member of the ZIP, stored without compression."""

    name: bytes
    nbytes: int
    crc32: int
    offset: int
    """Of the local header."""
    contents: tuple[Content, ...]

    def local(self) -> bytes:
        """Return the header that lies before the member."""
        sizes = (self.nbytes, self.nbytes) if self.nbytes >= _LARGEST else ()
        extra = _zip64(sizes)
        return b"PK\x03\x04" + self._described(sizes, extra) + self.name + extra

    def central(self) -> bytes:
        """Return the entry of the directory at the end of the file."""
        sizes = (self.nbytes, self.nbytes) if self.nbytes >= _LARGEST else ()
        offsets = (self.offset,) if self.offset >= _LARGEST else ()
        extra = _zip64((*sizes, *offsets))
        made_by = struct.pack("<H", _UNIX | _version(extra))
        place = struct.pack("<HHHLL", 0, 0, 0, _MODE, min(self.offset, _LARGEST))
        described = self._described(sizes, extra)
        return b"PK\x01\x02" + made_by + described + place + self.name + extra

    def _described(self, sizes: tuple[int, ...], extra: bytes) -> bytes:
        nbytes = _LARGEST if sizes else self.nbytes
        flags = 0 if self.name.isascii() else _UTF8
        about = (_version(extra), flags, 0, 0, _DATE, self.crc32, nbytes, nbytes)
        return struct.pack("<HHHHHLLLHH", *about, len(self.name), len(extra))


def _entry(name: str, member: Member, offset: int) -> _Entry:
    if isinstance(member, Values):
        head = _header(member.dtype, member.shape)
        crc = crc32_combine(crc32(head), values_crc32(member), member.nbytes)
        nbytes = len(head) + member.nbytes
        return _Entry(name.encode(), nbytes, crc, offset, (Literal(head), member))
    document = _document(member)
    return _Entry(name.encode(), len(document), crc32(document), offset, (Literal(document),))


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    about = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def _document(array: NDArray[Any] | None) -> bytes:
    buffer = io.BytesIO()
    npy.write_array(buffer, np.array(array), allow_pickle=array is None)
    return buffer.getvalue()


def _zip64(values: tuple[int, ...]) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def _version(extra: bytes) -> int:
    return 45 if extra else 20


def _end(members: int, nbytes: int, offset: int) -> bytes:
    """Return what follows a directory of *nbytes* at *offset*."""
    end = b""
    if members >= _MOST_MEMBERS or max(nbytes, offset) >= _LARGEST:
        about = (44, _UNIX | 45, 45, 0, 0, members, members, nbytes, offset)
        end = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", *about)
        end += b"PK\x06\x07" + struct.pack("<LQL", 0, offset + nbytes, 1)
    count = min(members, _MOST_MEMBERS)
    short = (0, 0, count, count, min(nbytes, _LARGEST), min(offset, _LARGEST), 0)
    return end + b"PK\x05\x06" + struct.pack("<HHHHLLH", *short)
