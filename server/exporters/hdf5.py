"""An HDF5 file as a virtual file: its metadata in memory, its datasets wherever they are.

1. The HDF5 library creates the file's groups, attributes and datasets, and writes none of
   the values. Datasets are contiguous and placed when they are created.
2. It does its I/O on a `_Capture`, which keeps what is written: the metadata.
3. The library says where each dataset's values belong. There go the contents, and the
   captured bytes between them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5g, h5p, h5s, h5t

from server.exporters.values import Conversion
from server.exporters.virtual_file import Content, Literal, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Attribute: TypeAlias = "str | bool | int | float | np.generic | NDArray[Any] | list[str]"
"""Stored as h5py would store it: str as variable-length UTF-8, bool as an enum."""

_TEXT: Final = h5py.string_dtype()


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
    placed = _create(root, capture)
    return VirtualFile(_parts(capture, sorted(placed, key=attrgetter("offset"))))


@dataclass(frozen=True, slots=True)
class _Placed:
    """The values of a dataset and where in the file they begin."""

    offset: int
    content: Content


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


class _Layout:
    """Property lists and types, made once for a file: making them costs more than using them."""

    def __init__(self) -> None:
        # Without times, because equal trees must give equal bytes.
        self.group = h5p.create(h5p.GROUP_CREATE)
        self.group.set_obj_track_times(False)
        self.dataset = h5p.create(h5p.DATASET_CREATE)
        self.dataset.set_obj_track_times(False)
        self.dataset.set_alloc_time(h5d.ALLOC_TIME_EARLY)
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


def _create(root: Group, capture: _Capture) -> list[_Placed]:
    access = h5p.create(h5p.FILE_ACCESS)
    # The layout that every HDF5 since 1.0 reads, and that h5py's users have had.
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5fd.fileobj_driver, capture)
    file = h5f.create(b"virtual", h5f.ACC_TRUNC, fapl=access)
    placed: list[_Placed] = []
    try:
        _fill(h5g.open(file, b"/"), root, _Layout(), placed)
    finally:
        file.close()
    return placed


def _fill(group: Any, tree: Group, layout: _Layout, placed: list[_Placed]) -> None:
    for name, value in tree.attributes.items():
        _put_attribute(group, name, value, layout)
    for name, member in tree.members.items():
        if isinstance(member, Group):
            inner = h5g.create(group, name.encode(), gcpl=layout.group)
            _fill(inner, member, layout, placed)
            continue
        values = member.values
        made = h5d.create(
            group,
            name.encode(),
            layout.type(values.dtype),
            layout.space(values.shape),
            dcpl=layout.dataset,
        )
        offset = made.get_offset()
        if offset is not None:  # an empty dataset has no place
            content = Literal(_little(values)) if isinstance(values, np.ndarray) else values
            placed.append(_Placed(offset, content))
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


def _parts(capture: _Capture, placed: list[_Placed]) -> list[Content]:
    """Return the parts of the file: contents where they belong, captured bytes between.

    Bytes that nobody wrote are zero, as in a sparse file.
    """
    gaps = _gaps(placed, capture.nbytes)
    starts = [start for start, _ in gaps]
    buffers = [bytearray(stop - start) for start, stop in gaps]
    for offset, data in capture.writes:
        at = bisect_right(starts, offset) - 1
        begin = offset - starts[at]
        if begin + len(data) > len(buffers[at]):
            message = f"the HDF5 library wrote {len(data)} bytes at {offset}, into a dataset"
            raise RuntimeError(message)
        buffers[at][begin : begin + len(data)] = data
    between = [Literal(bytes(buffer)) for buffer in buffers]
    contents = [one.content for one in placed]
    return [part for pair in zip_longest(between, contents) for part in pair if part is not None]


def _gaps(placed: list[_Placed], nbytes: int) -> list[tuple[int, int]]:
    """Return the ranges before, between and after the contents; one more than contents."""
    ends = [0, *(one.offset + one.content.nbytes for one in placed)]
    return list(zip(ends, [*(one.offset for one in placed), nbytes], strict=True))
