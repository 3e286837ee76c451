"""An HDF5 file as a virtual file: its metadata first and in memory, its datasets behind it.

Its values are contiguous, so that their places follow from shapes and dtypes. Packed, they are
in compressed chunks, whose lengths nobody knows before: everything is compressed twice, once
for the lengths and once to be sent, and nothing is kept in between but the lengths.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from server.exporters.hdf5_chunks import (
    LEVEL,
    chunk_of,
    chunk_sizes,
    index,
    index_nbytes,
    packed,
)
from server.exporters.hdf5_metadata import Metadata
from server.exporters.virtual_file import Literal, Packing, VirtualFile, take

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from server.exporters.hdf5_metadata import Laid
    from server.exporters.hdf5_tree import Group


def hdf5_file(root: Group) -> VirtualFile:
    """Return the file that holds *root*; equal trees give equal bytes."""
    metadata = Metadata(root)
    end = len(metadata.data)
    for dataset in metadata.datasets:
        metadata.place(dataset, end)
        end += dataset.content.nbytes
    contents = (dataset.content for dataset in metadata.datasets)
    file = VirtualFile([Literal(metadata.end(end)), *contents])
    file.packing = Packing("gzip", partial(_packed, root, file))
    return file


def _packed(root: Group, plain: VirtualFile) -> Iterator[bytes]:
    """Yield the file with its values compressed; nothing, again and again, while it is measured.

    Raises
    ------
    RuntimeError
        If values were compressed to another length the second time.
    """
    metadata = Metadata(root, chunk_of, level=LEVEL)
    lengths: list[int] = []
    for stored in _stored(metadata.datasets, plain):
        lengths.append(len(stored))
        yield b""
    yield from _front(metadata, lengths)
    for expected, stored in zip(lengths, _stored(metadata.datasets, plain), strict=True):
        if len(stored) != expected:
            message = f"expected a chunk of {expected} bytes as before, got {len(stored)}"
            raise RuntimeError(message)
        yield stored


def _stored(datasets: Sequence[Laid], plain: VirtualFile) -> Iterator[bytes]:
    """Yield every chunk as it is stored, in the order of the file."""
    values = plain.read(plain.size - sum(dataset.content.nbytes for dataset in datasets))
    sizes = [(dataset, *size) for dataset in datasets for size in chunk_sizes(dataset)]
    pieces = take(values, (nbytes for _, nbytes, _ in sizes))
    for (dataset, _, whole), data in zip(sizes, pieces, strict=True):
        yield packed(dataset, data, whole)


def _front(metadata: Metadata, lengths: Sequence[int]) -> Iterator[bytes]:
    """Yield what lies before the values: the metadata, and an index for each chunked dataset."""
    counts = [sum(1 for _ in chunk_sizes(dataset)) for dataset in metadata.datasets]
    at = len(metadata.data)
    end = at + sum(
        index_nbytes(dataset, count)
        for dataset, count in zip(metadata.datasets, counts, strict=True)
        if dataset.chunk is not None
    )
    indexes: list[bytes] = []
    first = 0
    for dataset, count in zip(metadata.datasets, counts, strict=True):
        mine = lengths[first : first + count]
        if dataset.chunk is None:
            metadata.place(dataset, end)
        else:
            made, root = index(dataset, mine, at, end)
            metadata.place(dataset, root)
            indexes.append(made)
            at += len(made)
        end += sum(mine)
        first += count
    yield metadata.end(end)
    yield from indexes
