"""An HDF5 file as a virtual file: its metadata in memory and first, its datasets behind it.

1. The HDF5 library creates the file's groups, attributes and datasets, and gives none of the
   contiguous datasets a place, as it does until values are written.
2. It does its I/O on a `Capture`, which keeps what is written: the metadata, in one piece.
3. The values follow it, one dataset after another. The two things that the library could not
   know are filled in: where each dataset's values begin, and where the file ends.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5g, h5o, h5p, h5s, h5t

from server.exporters.values import Conversion
from server.exporters.virtual_file import Content, Literal, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Attribute: TypeAlias = "str | bool | int | float | np.generic | NDArray[Any] | list[str]"
"""Stored as h5py would store it: str as variable-length UTF-8, bool as an enum."""

_TEXT: Final = h5py.string_dtype()

# Of the library's oldest layout, which `_create` asks for: superblock 0, object headers 1.
_ADDRESS: Final = 8
_END_OF_FILE: Final = 40
"""Where the superblock says how long the file is."""
_HEADER_PREFIX: Final = 16
_MESSAGE_PREFIX: Final = 8
_LAYOUT_MESSAGE: Final = 8
_NOWHERE: Final = b"\x03\x01" + b"\xff" * _ADDRESS


class ArrayContent(Content, Protocol):
    """Values of an array that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, little-endian."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """An array in the file; HDF5 knows no ``U`` strings, only ``S``."""

    values: ArrayContent | NDArray[Any]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """A group in the file; members and attributes are created in their order here."""

    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    members: Mapping[str, Group | Dataset] = field(default_factory=dict)


def encoded_text(dtype: np.dtype[Any]) -> Conversion:
    """Return the conversion of ``U`` strings to fixed UTF-8, of four bytes a character."""
    encoded = h5py.string_dtype("utf-8", dtype.itemsize)

    def apply(values: NDArray[Any]) -> NDArray[Any]:
        texts: NDArray[Any] = np.char.encode(values, "utf-8").astype(encoded)
        return texts

    return Conversion("utf-8", encoded, apply)


def hdf5_file(root: Group) -> VirtualFile:
    """Return the file that holds *root*; equal trees give equal bytes."""
    capture = _Capture()
    headers = _create(root, capture)
    metadata = capture.data()
    end = len(metadata)
    contents: list[Content] = []
    for header, content in headers:
        _put_address(metadata, header, end)
        contents.append(content)
        end += content.nbytes
    metadata[_END_OF_FILE : _END_OF_FILE + _ADDRESS] = end.to_bytes(_ADDRESS, "little")
    return VirtualFile([Literal(bytes(metadata)), *contents])


_Headed: TypeAlias = tuple[int, Content]
"""Where a dataset's object header lies, and the values of the dataset."""


class _Capture:
    """What the library takes for a file: keeps what is written, knows how long it would be.

    It cannot be read: the library caches all metadata that it makes.
    """

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []
        self.nbytes = 0
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.nbytes}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return where the next write goes."""
        return self._at

    def write(self, data: Any) -> int:
        kept = bytes(data)
        self.writes.append((self._at, kept))
        self._at += len(kept)
        self.nbytes = max(self.nbytes, self._at)
        return len(kept)

    def truncate(self, size: int | None = None) -> int:
        self.nbytes = self._at if size is None else size
        return self.nbytes

    def flush(self) -> None:
        """Do nothing: everything is in memory."""

    def data(self) -> bytearray:
        """Return the file; bytes that nobody wrote are zero, as in a sparse file."""
        data = bytearray(self.nbytes)
        for offset, written in self.writes:
            data[offset : offset + len(written)] = written
        return data


class _Layout:
    """Property lists and types, made once for a file: making them costs more than using them."""

    def __init__(self) -> None:
        # Without times, because equal trees must give equal bytes.
        self.group = h5p.create(h5p.GROUP_CREATE)
        self.group.set_obj_track_times(False)
        self.dataset = h5p.create(h5p.DATASET_CREATE)
        self.dataset.set_obj_track_times(False)
        self.dataset.set_alloc_time(h5d.ALLOC_TIME_LATE)
        self.dataset.set_fill_time(h5d.FILL_TIME_NEVER)
        self.scalar = h5s.create(h5s.SCALAR)
        self.text = h5t.py_create(_TEXT, logical=True)
        self._spaces: dict[tuple[int, ...], Any] = {(): self.scalar}
        self._types: dict[tuple[np.dtype[Any], Any], Any] = {}

    def space(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._spaces:
            self._spaces[shape] = h5s.create_simple(shape)
        return self._spaces[shape]

    def type(self, dtype: np.dtype[Any]) -> Any:
        # Whether bytes are UTF-8 is in a dtype's metadata, which equality does not see.
        key = (dtype, h5py.check_string_dtype(dtype))
        if key not in self._types:
            little = dtype if dtype.kind == "S" else dtype.newbyteorder("<")
            self._types[key] = h5t.py_create(little, logical=True)
        return self._types[key]


def _create(root: Group, capture: _Capture) -> list[_Headed]:
    """Let the library write *root*'s metadata; return each dataset's header and its values."""
    access = h5p.create(h5p.FILE_ACCESS)
    # The layout that every HDF5 since 1.0 reads, and that h5py's users have had.
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5fd.fileobj_driver, capture)
    file = h5f.create(b"virtual", h5f.ACC_TRUNC, fapl=access)
    headed: list[_Headed] = []
    try:
        _fill(h5g.open(file, b"/"), root, _Layout(), headed)
    finally:
        file.close()
    return headed


def _fill(group: Any, tree: Group, layout: _Layout, headed: list[_Headed]) -> None:
    for name, value in tree.attributes.items():
        _put_attribute(group, name, value, layout)
    for name, member in tree.members.items():
        if isinstance(member, Group):
            inner = h5g.create(group, name.encode(), gcpl=layout.group)
            _fill(inner, member, layout, headed)
            continue
        values = member.values
        made = h5d.create(
            group,
            name.encode(),
            layout.type(values.dtype),
            layout.space(values.shape),
            dcpl=layout.dataset,
        )
        if values.nbytes:  # an empty dataset has no place
            content = Literal(_little(values)) if isinstance(values, np.ndarray) else values
            headed.append((h5o.get_info(made).addr, content))
        for key, value in member.attributes.items():
            _put_attribute(made, key, value, layout)


def _put_attribute(owner: Any, name: str, value: Attribute, layout: _Layout) -> None:
    array = np.asarray(value)
    if array.dtype.kind in "UO" or isinstance(value, list):
        texts = np.array(value, dtype=_TEXT)
        made = h5a.create(owner, name.encode(), layout.text, layout.space(texts.shape))
        made.write(texts)
        return
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    kind = layout.type(array.dtype)
    made = h5a.create(owner, name.encode(), kind, layout.space(array.shape))
    made.write(array, mtype=kind)


def _little(values: NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _put_address(metadata: bytearray, header: int, address: int) -> None:
    """Say in the object header at *header* that the dataset's values begin at *address*."""
    at = header + _HEADER_PREFIX
    end = at + int.from_bytes(metadata[header + 8 : header + 12], "little")
    while at < end:
        kind = int.from_bytes(metadata[at : at + 2], "little")
        body = at + _MESSAGE_PREFIX
        # Version 3, contiguous, no address yet: the library has reserved the place.
        if kind == _LAYOUT_MESSAGE and metadata[body : body + 2 + _ADDRESS] == _NOWHERE:
            metadata[body + 2 : body + 2 + _ADDRESS] = address.to_bytes(_ADDRESS, "little")
            return
        at = body + int.from_bytes(metadata[at + 2 : at + 4], "little")
    message = f"expected a contiguous dataset without a place at {header}, found none"
    raise RuntimeError(message)
