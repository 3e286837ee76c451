"""An NPZ file as a virtual file: a ZIP of stored ``.npy`` members, exact before it is read.

Packed, its members are deflated while they are sent, and their lengths come behind them.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from isal import isal_zlib
from isal.isal_zlib import crc32, crc32_combine
from numpy.lib import format as npy

from server.exporters.checksum import values_crc32
from server.exporters.values import Values
from server.exporters.virtual_file import CHUNK_NBYTES, Content, Literal, Packing, VirtualFile, take

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
_DESCRIBED: Final = 0x8
_STORED: Final = 0
_DEFLATED: Final = 8
_LEVEL: Final = 2
"""Of deflate: the highest that costs hardly more than the lowest."""


def npz_file(members: Mapping[str, Member]) -> VirtualFile:
    """Return the file that ``np.load`` reads as *members*; equal members give equal bytes."""
    entries: list[_Entry] = []
    parts: list[Content] = []
    offset = 0
    for name, member in members.items():
        entry = _entry(f"{name}.npy", member, offset)
        local = Literal(entry.local())
        parts += (local, *entry.contents)
        offset += local.nbytes + entry.nbytes
        entries.append(entry)
    file = VirtualFile([*parts, Literal(_directory(entries, offset))])
    file.packing = Packing("deflate", partial(_packed, entries, file))
    return file


def _packed(entries: Sequence[_Entry], plain: VirtualFile) -> Iterator[bytes]:
    """Yield the file with its members deflated; their lengths come behind each of them."""
    sizes = [size for entry in entries for size in (len(entry.local()), *_chunks(entry.nbytes))]
    pieces = take(plain.read(), sizes)
    offset = 0
    done: list[_Entry] = []
    for entry in entries:
        local = replace(entry, offset=offset, packed_nbytes=0).local()
        yield local
        next(pieces)  # the header of the member as it is not packed
        packer = isal_zlib.compressobj(_LEVEL, wbits=-15)
        nbytes = 0
        for _ in _chunks(entry.nbytes):
            data = packer.compress(next(pieces))
            nbytes += len(data)
            yield data
        data = packer.flush()
        packed = replace(entry, offset=offset, packed_nbytes=nbytes + len(data))
        descriptor = packed.descriptor()
        yield data + descriptor
        offset += len(local) + nbytes + len(data) + len(descriptor)
        done.append(packed)
    yield _directory(done, offset)


def _chunks(nbytes: int) -> Iterator[int]:
    for at in range(0, nbytes, CHUNK_NBYTES):
        yield min(CHUNK_NBYTES, nbytes - at)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One member of the ZIP."""

    name: bytes
    nbytes: int
    crc32: int
    offset: int
    """Of the local header."""
    contents: tuple[Content, ...]
    packed_nbytes: int | None = None
    """Length when deflated, 0 before that is known; None if it is stored as it is."""

    def local(self) -> bytes:
        """Return the header that lies before the member."""
        if self.packed_nbytes is None:
            sizes = (self.nbytes, self.nbytes) if self._wide else ()
            extra = _zip64(sizes)
            return b"PK\x03\x04" + self._described(sizes, extra) + self.name + extra
        # Checksum and lengths are told by the descriptor behind the member.
        extra = _zip64((0, 0) if self._wide else ())
        nbytes = _LARGEST if self._wide else 0
        about = (_version(extra), self._flags, _DEFLATED, 0, _DATE, 0, nbytes, nbytes)
        described = struct.pack("<HHHHHLLLHH", *about, len(self.name), len(extra))
        return b"PK\x03\x04" + described + self.name + extra

    def descriptor(self) -> bytes:
        """Return what lies behind a deflated member."""
        sizes = "<QQ" if self._wide else "<LL"
        nbytes = struct.pack(sizes, self.packed_nbytes, self.nbytes)
        return b"PK\x07\x08" + struct.pack("<L", self.crc32) + nbytes

    def central(self) -> bytes:
        """Return the entry of the directory at the end of the file."""
        stored = self.nbytes if self.packed_nbytes is None else self.packed_nbytes
        sizes = (self.nbytes, stored) if self._wide else ()
        offsets = (self.offset,) if self.offset >= _LARGEST else ()
        extra = _zip64((*sizes, *offsets))
        made_by = struct.pack("<H", _UNIX | _version(extra))
        place = struct.pack("<HHHLL", 0, 0, 0, _MODE, min(self.offset, _LARGEST))
        described = self._described(sizes, extra)
        return b"PK\x01\x02" + made_by + described + place + self.name + extra

    @property
    def _wide(self) -> bool:
        # Deflate makes what cannot be compressed a little longer.
        largest = _LARGEST if self.packed_nbytes is None else _LARGEST - (_LARGEST >> 8)
        return self.nbytes >= largest

    @property
    def _flags(self) -> int:
        named = 0 if self.name.isascii() else _UTF8
        return named if self.packed_nbytes is None else named | _DESCRIBED

    def _described(self, sizes: tuple[int, ...], extra: bytes) -> bytes:
        method = _STORED if self.packed_nbytes is None else _DEFLATED
        stored = self.nbytes if self.packed_nbytes is None else self.packed_nbytes
        lengths = (_LARGEST, _LARGEST) if sizes else (stored, self.nbytes)
        about = (_version(extra), self._flags, method, 0, _DATE, self.crc32, *lengths)
        return struct.pack("<HHHHHLLLHH", *about, len(self.name), len(extra))


def _entry(name: str, member: Member, offset: int) -> _Entry:
    if isinstance(member, Values):
        head = npy_header(member.dtype, member.shape)
        crc = crc32_combine(crc32(head), values_crc32(member), member.nbytes)
        nbytes = len(head) + member.nbytes
        return _Entry(name.encode(), nbytes, crc, offset, (Literal(head), member))
    document = _document(member)
    return _Entry(name.encode(), len(document), crc32(document), offset, (Literal(document),))


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what is before the values, in C order, of an array as ``numpy.save`` writes it."""
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


def _directory(entries: Sequence[_Entry], offset: int) -> bytes:
    """Return what lies at the end of the file, from *offset* on."""
    directory = b"".join(entry.central() for entry in entries)
    return directory + _end(len(entries), len(directory), offset)


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
