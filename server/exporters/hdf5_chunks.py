"""HDF5 values in compressed chunks: how datasets are cut, and the index that finds the chunks."""

from __future__ import annotations

import math
import struct
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from isal import isal_zlib

from server.exporters.hdf5_metadata import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from server.exporters.hdf5_metadata import Laid
    from server.exporters.hdf5_tree import ArrayContent

LEVEL: Final = 1
"""Of deflate. With the bytes shuffled, higher ones cost more and save next to nothing."""
_CHUNK_NBYTES: Final = 1 << 19
"""A chunk's most; two of them fit the cache that h5py has for a dataset by default."""
_LEAST_NBYTES: Final = 1 << 13
"""Below it, the index, of 3 kB at least, would take most of what compression saves."""
_CHUNKS_IN_NODE: Final = 64
"""Of an index: the library's own number, which a superblock of version 0 cannot change."""


def chunk_of(values: ArrayContent | NDArray[Any]) -> tuple[int, ...] | None:
    """Return the shape of the chunks of *values*, which are consecutive bytes; None for one piece.

    Examples
    --------
    >>> chunk_of(np.zeros((9, 1000, 300), np.float16)), chunk_of(np.zeros(9))
    ((1, 873, 300), None)
    """
    if values.nbytes < _LEAST_NBYTES:
        return None
    shape, room = values.shape, _CHUNK_NBYTES // values.dtype.itemsize
    axis = 0
    while axis + 1 < len(shape) and math.prod(shape[axis + 1 :]) > room:
        axis += 1
    count = min(shape[axis], max(1, room // math.prod(shape[axis + 1 :])))
    return (1,) * axis + (count,) + shape[axis + 1 :]


def chunk_sizes(dataset: Laid) -> Iterator[tuple[int, int]]:
    """Yield bytes of values in each chunk, and what it has with the part beyond the array."""
    if dataset.chunk is None:
        yield dataset.content.nbytes, dataset.content.nbytes
        return
    whole = dataset.itemsize * math.prod(dataset.chunk)
    for lengths in product(*_cuts(dataset, dataset.chunk)):
        yield dataset.itemsize * math.prod(stop - start for start, stop in lengths), whole


def packed(dataset: Laid, data: bytes, whole: int) -> bytes:
    """Return one chunk as it is stored."""
    if dataset.chunk is None:
        return data
    data += bytes(whole - len(data))
    if dataset.itemsize > 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, dataset.itemsize).T.tobytes()
    stored: bytes = isal_zlib.compress(data, LEVEL)
    return stored


def index_nbytes(dataset: Laid, count: int) -> int:
    """Return the length of the index of *count* chunks."""
    nodes = 0
    while count > 1 or not nodes:
        count = -(-count // _CHUNKS_IN_NODE)
        nodes += count
    return nodes * _node_nbytes(dataset)


def index(dataset: Laid, lengths: Sequence[int], at: int, begin: int) -> tuple[bytes, int]:
    """Return the index that lies at *at*, and the address of its root.

    It is a B-tree of version 1, level after level from the leaves: a node has for each child
    the key of the first chunk below it, and after them the key of what comes next.

    Parameters
    ----------
    lengths : int, bytes
        Of the chunks as stored; they lie one after another from *begin* on.
    """
    chunk = dataset.chunk or ()
    places = product(*_cuts(dataset, chunk))
    starts = [(*(start for start, _ in place), 0) for place in places]
    # As the library ends it: one chunk further along every axis, that of the item's bytes too.
    beyond = [
        start + extent for start, extent in zip(starts[-1], (*chunk, dataset.itemsize), strict=True)
    ]
    key = struct.Struct(f"<LL{len(beyond)}Q")
    keys = [key.pack(nbytes, 0, *start) for nbytes, start in zip(lengths, starts, strict=True)]
    last = key.pack(0, 0, *beyond)
    children = [begin + offset for offset in np.cumsum([0, *lengths[:-1]], dtype=np.int64).tolist()]
    nodes: list[bytes] = []
    level, size = 0, _node_nbytes(dataset)
    while True:
        cuts = range(0, len(keys), _CHUNKS_IN_NODE)
        addresses = [at + size * (len(nodes) + number) for number in range(len(cuts))]
        around = [NOWHERE, *(one.to_bytes(8, "little") for one in addresses), NOWHERE]
        for number, cut in enumerate(cuts):
            below = slice(cut, cut + _CHUNKS_IN_NODE)
            following = keys[below.stop] if below.stop < len(keys) else last
            nodes.append(
                b"".join(
                    (
                        struct.pack("<4sBBH", b"TREE", 1, level, len(keys[below])),
                        around[number],
                        around[number + 2],
                        *(
                            k + c.to_bytes(8, "little")
                            for k, c in zip(keys[below], children[below], strict=True)
                        ),
                        following,
                    )
                ).ljust(size, b"\0")
            )
        if len(cuts) == 1:
            return b"".join(nodes), addresses[0]
        keys, children, level = keys[::_CHUNKS_IN_NODE], addresses, level + 1


def _node_nbytes(dataset: Laid) -> int:
    key = 8 + 8 * (len(dataset.shape) + 1)
    return 24 + _CHUNKS_IN_NODE * (key + 8) + key


def _cuts(dataset: Laid, chunk: tuple[int, ...]) -> list[list[tuple[int, int]]]:
    """Return where each chunk begins and ends along each axis."""
    return [
        [(at, min(at + extent, length)) for at in range(0, length, extent)]
        for length, extent in zip(dataset.shape, chunk, strict=True)
    ]
