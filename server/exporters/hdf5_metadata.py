"""The metadata of an HDF5 file, written by the HDF5 library, with the values' places left open.

The library does its I/O on a `_Capture`, which keeps what it writes. Until values are written
it gives a dataset no place, so what it writes is all of the file but the values, in one piece.
Where they lie, and where the file ends, is filled in afterwards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5g, h5o, h5p, h5s, h5t

from server.exporters.hdf5_tree import Group
from server.exporters.virtual_file import Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from server.exporters.hdf5_tree import ArrayContent, Attribute, Dataset
    from server.exporters.virtual_file import Content

NOWHERE: Final = b"\xff" * 8
"""The address of what has none."""
_TEXT: Final = h5py.string_dtype()

# Of the library's oldest layout, which `Metadata` asks for: superblock 0, object headers 1.
_END_OF_FILE: Final = 40
"""Where the superblock says how long the file is."""
_HEADER_PREFIX: Final = 16
_MESSAGE_PREFIX: Final = 8
_LAYOUT_MESSAGE: Final = 8
_ADDRESS_AT: Final = {b"\x03\x01": 2, b"\x03\x02": 3}
"""Where a layout message has the address: of contiguous values, and of the index of chunks."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A dataset that has values."""

    header: int
    """Where its object header lies."""
    content: Content
    shape: tuple[int, ...]
    itemsize: int
    chunk: tuple[int, ...] | None
    """Shape of its chunks; None for contiguous values."""


class Metadata:
    """All of a file but its values.

    Parameters
    ----------
    chunk_of : callable, optional
        Given a dataset's values, returns the shape of its chunks, or None for contiguous
        values. By default all values are contiguous.
    level : int
        Of deflate, as the filters of chunked datasets say it.
    """

    def __init__(
        self,
        root: Group,
        chunk_of: Callable[[ArrayContent | NDArray[Any]], tuple[int, ...] | None] | None = None,
        *,
        level: int = 1,
    ) -> None:
        self.datasets: list[Laid] = []
        """Those that have values, in the order of the tree."""
        self._chunk_of = chunk_of
        self._library = _Library(level)
        capture = _Capture()
        access = h5p.create(h5p.FILE_ACCESS)
        # The layout that every HDF5 since 1.0 reads, and that h5py's users have had.
        access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        access.set_fileobj_driver(h5fd.fileobj_driver, capture)
        file = h5f.create(b"virtual", h5f.ACC_TRUNC, fapl=access)
        try:
            self._fill(h5g.open(file, b"/"), root)
        finally:
            file.close()
        self.data = capture.data

    def place(self, dataset: Laid, address: int) -> None:
        """Say where a dataset's values begin, or the index of its chunks."""
        data = self.data
        at = dataset.header + _HEADER_PREFIX
        end = at + int.from_bytes(data[dataset.header + 8 : dataset.header + 12], "little")
        while at < end:
            kind = int.from_bytes(data[at : at + 2], "little")
            body = at + _MESSAGE_PREFIX
            offset = _ADDRESS_AT.get(bytes(data[body : body + 2]))
            if kind == _LAYOUT_MESSAGE and offset is not None:
                begin = body + offset
                if data[begin : begin + 8] == NOWHERE:
                    data[begin : begin + 8] = address.to_bytes(8, "little")
                    return
            at = body + int.from_bytes(data[at + 2 : at + 4], "little")
        message = f"expected a dataset without a place at {dataset.header}, found none"
        raise RuntimeError(message)

    def end(self, nbytes: int) -> bytes:
        """Say how long the file is, and return the metadata."""
        self.data[_END_OF_FILE : _END_OF_FILE + 8] = nbytes.to_bytes(8, "little")
        return bytes(self.data)

    def _fill(self, group: Any, tree: Group) -> None:
        library = self._library
        for name, value in tree.attributes.items():
            library.put_attribute(group, name, value)
        for name, member in tree.members.items():
            if isinstance(member, Group):
                self._fill(h5g.create(group, name.encode(), gcpl=library.group), member)
            else:
                self._create(group, name, member)

    def _create(self, group: Any, name: str, dataset: Dataset) -> None:
        library, values = self._library, dataset.values
        chunk = None if self._chunk_of is None else self._chunk_of(values)
        kind, space = library.type(values.dtype), library.space(values.shape)
        how = library.storage(chunk, values.dtype.itemsize)
        made = h5d.create(group, name.encode(), kind, space, dcpl=how)
        if values.nbytes:  # an empty dataset has no place
            content = Literal(_little(values)) if isinstance(values, np.ndarray) else values
            header = h5o.get_info(made).addr
            self.datasets.append(Laid(header, content, values.shape, values.dtype.itemsize, chunk))
        for key, value in dataset.attributes.items():
            library.put_attribute(made, key, value)


class _Capture:
    """What the library takes for a file: keeps what is written, which is all metadata.

    It cannot be read: the library caches all metadata that it makes.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        """The file; bytes that nobody wrote are zero, as in a sparse file."""
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self.data)}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return where the next write goes."""
        return self._at

    def write(self, data: Any) -> int:
        end = self._at + len(data)
        self._extend(end)
        self.data[self._at : end] = data
        self._at = end
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        del self.data[size:]
        self._extend(size)
        return size

    def flush(self) -> None:
        """Do nothing: everything is in memory."""

    def _extend(self, nbytes: int) -> None:
        self.data.extend(bytes(max(0, nbytes - len(self.data))))


class _Library:
    """Property lists and types, made once for a file: making them costs more than using them."""

    def __init__(self, level: int) -> None:
        self._level = level
        # Without times, because equal trees must give equal bytes.
        self.group = h5p.create(h5p.GROUP_CREATE)
        self.group.set_obj_track_times(False)
        self.scalar = h5s.create(h5s.SCALAR)
        self.text = h5t.py_create(_TEXT, logical=True)
        self._spaces: dict[tuple[int, ...], Any] = {(): self.scalar}
        self._storages: dict[tuple[tuple[int, ...] | None, bool], Any] = {}
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

    def storage(self, chunk: tuple[int, ...] | None, itemsize: int) -> Any:
        """Return how a dataset is stored: contiguous, or in chunks, shuffled and deflated."""
        key = chunk, itemsize > 1
        if key not in self._storages:
            made = h5p.create(h5p.DATASET_CREATE)
            made.set_obj_track_times(False)
            made.set_fill_time(h5d.FILL_TIME_NEVER)
            if chunk is not None:
                made.set_chunk(chunk)
                if itemsize > 1:
                    made.set_shuffle()
                made.set_deflate(self._level)
            self._storages[key] = made
        return self._storages[key]

    def put_attribute(self, owner: Any, name: str, value: Attribute) -> None:
        array = np.asarray(value)
        if array.dtype.kind in "UO" or isinstance(value, list):
            texts = np.array(value, dtype=_TEXT)
            made = h5a.create(owner, name.encode(), self.text, self.space(texts.shape))
            made.write(texts)
            return
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        kind = self.type(array.dtype)
        made = h5a.create(owner, name.encode(), kind, self.space(array.shape))
        made.write(array, mtype=kind)


def _little(values: NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
