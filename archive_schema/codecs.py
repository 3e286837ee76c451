"""Blocks and tiles as stored bytes: what a Zarr v3 sharding codec would write, exactly.

A block is compressed and followed by its CRC32C. A tile is its blocks back to back in
C order, then the shard index: (offset, length) of each block as two little-endian
uint64, then the index' CRC32C. zarr-python and TensorStore read and write the same.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from fastcrc.crc32 import iscsi as crc32c
from isal.isal_zlib import crc32
from numcodecs import blosc
from zstandard import BufferWithSegments, ZstdCompressor, ZstdDecompressor, ZstdError

from archive_schema.dtypes import fill_value, numpy_dtype, to_given
from archive_schema.errors import ErrorKind, FormatError
from archive_schema.layout import blocks_per_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from archive_schema.models import Codec, FieldSpec

# Blosc's own threads share one lock and one pool; parallelism here is by tile.
blosc.use_threads = False

CHECKSUM_NBYTES: Final = 4
_ABSENT: Final = 2**64 - 1
_SHUFFLES: Final = {
    "noshuffle": blosc.NOSHUFFLE,
    "shuffle": blosc.SHUFFLE,
    "bitshuffle": blosc.BITSHUFFLE,
}


@dataclass(frozen=True, slots=True)
class EncodedTile:
    """One stored object and what its commit says about it."""

    data: bytes
    blocks: tuple[int, ...]
    """Stored length of each block in C order; 0 for a block beyond a short tile's samples."""
    crc32c: int
    """Of `data`."""
    crc32: int
    """Of the values as readers get them, little-endian, C order, no padding."""


def encode_tile(stored: NDArray[Any], spec: FieldSpec, block: Sequence[int]) -> EncodedTile:
    """Encode one tile.

    Parameters
    ----------
    stored : shape (samples of the tile, *tail) or (*tail), dtype spec.stored_dtype, C order
        Fewer samples than a whole tile are padded block by block, as Zarr demands.
    block
        Extent of a block along the axes of *stored*.
    """
    whole = (spec.tile, *stored.shape[1:]) if spec.tile else stored.shape
    rows = _rows(stored, block, spec.stored_dtype)
    count = math.prod(blocks_per_axis(whole, block))
    pieces: list[bytes | memoryview] = []
    lengths = [0] * count
    # What is absent is absent at the end: only the first axis, the samples', is ever short.
    index = np.full((count, 2), _ABSENT, "<u8")
    offset = 0
    for at, packed in enumerate(_packed(rows, spec.codec)):
        checksum = crc32c(packed).to_bytes(CHECKSUM_NBYTES, "little")
        pieces += (packed, checksum)
        lengths[at] = len(packed) + CHECKSUM_NBYTES
        index[at] = offset, lengths[at]
        offset += lengths[at]
    given = np.ascontiguousarray(to_given(stored, spec))
    crc = crc32(given.reshape(-1).view(np.uint8).data)
    if not pieces:
        return EncodedTile(b"", tuple(lengths), 0, crc)
    if block:  # a tile of one value is not sharded: its one block is the object
        pieces += (index.data, crc32c(index.data).to_bytes(CHECKSUM_NBYTES, "little"))
    data = b"".join(pieces)
    return EncodedTile(data, tuple(lengths), crc32c(data), crc)


def decode_tile(
    data: bytes,
    spec: FieldSpec,
    blocks: Sequence[int],
    shape: Sequence[int],
    block: Sequence[int],
) -> NDArray[Any]:
    """Decode what `encode_tile` wrote.

    Parameters
    ----------
    blocks
        Stored length of each block in C order.
    shape
        Of the values, without padding: (samples of the tile, *tail) or (*tail).
    block
        Extent of a block along these axes.

    Returns
    -------
    NDArray, shape *shape*, dtype spec.stored_dtype

    Raises
    ------
    FormatError
        ``tile-damaged`` if a block is.
    """
    whole = (spec.tile, *shape[1:]) if spec.tile else tuple(shape)
    values = np.empty(whole, numpy_dtype(spec.stored_dtype))
    view = memoryview(data)
    offset = 0
    grid = blocks_per_axis(whole, block)
    for at, length in zip(product(*map(range, grid)), blocks, strict=True):
        if not length:
            continue
        cut = (slice(i * b, (i + 1) * b) for i, b in zip(at, block, strict=True))
        # The ellipsis keeps what has no axes an array, which can be written to.
        box: tuple[Any, ...] = (*cut, ...)
        part = values[box]
        piece = decode_block(view[offset : offset + length], spec.codec, spec.stored_dtype, block)
        part[...] = piece[tuple(map(slice, part.shape))]
        offset += length
    return values[tuple(map(slice, shape))]


def encode_block(values: NDArray[Any], codec: Codec) -> bytes:
    """Compress one whole block and append its CRC32C."""
    (packed,) = _packed(values.reshape(1, -1), codec)
    return b"".join((packed, crc32c(packed).to_bytes(CHECKSUM_NBYTES, "little")))


def decode_block(
    data: bytes | memoryview, codec: Codec, stored_dtype: str, block: Sequence[int]
) -> NDArray[Any]:
    """Decode what `encode_block` wrote; the values must not be written to.

    Returns
    -------
    NDArray, shape *block*, dtype *stored_dtype*

    Raises
    ------
    FormatError
        ``tile-damaged`` if the checksum or the length does not fit.
    """
    return BlockDecoder(codec, stored_dtype)(data, block)


class BlockDecoder:
    """Decodes the blocks of one field; the same as `decode_block`, made ready once."""

    def __init__(self, codec: Codec, stored_dtype: str) -> None:
        self._named = stored_dtype
        self._dtype = numpy_dtype(stored_dtype)
        self._unpack = _UNPACKERS[codec.name]
        self.views = codec.name == "raw"
        """Whether what it gives is a view of what it got."""

    def __call__(self, data: bytes | memoryview, block: Sequence[int]) -> NDArray[Any]:
        """Decode a block; errors as `decode_block`."""
        # What ends with its own CRC32C has this one, whatever it is. No bytes at all have not.
        if crc32c(data) != _SOUND:
            message = "the checksum of a block does not fit its bytes"
            raise FormatError(ErrorKind.TILE_DAMAGED, message)
        raw = self._unpack(memoryview(data)[:-CHECKSUM_NBYTES])
        dtype = self._dtype
        if len(raw) != dtype.itemsize * math.prod(block):
            message = f"expected a block of {tuple(block)} {self._named}, got {len(raw)} bytes"
            raise FormatError(ErrorKind.TILE_DAMAGED, message)
        return np.ndarray(block, dtype, raw)


def _unpacked_zstd(packed: memoryview) -> bytes:
    try:
        raw: bytes = _zstd.decompressor.decompress(packed)
    except ZstdError as error:
        raise FormatError(ErrorKind.TILE_DAMAGED, f"no Zstandard frame: {error}") from error
    return raw


def _unpacked_blosc(packed: memoryview) -> bytes:
    raw: bytes = blosc.decompress(packed)
    return raw


_SOUND: Final = 0x48674BC7
_UNPACKERS: Final[Mapping[str, Callable[[memoryview], bytes | memoryview]]] = {
    "raw": lambda packed: packed,
    "zstd": _unpacked_zstd,
    "blosc": _unpacked_blosc,
}


class _ZstdContexts(threading.local):
    """A thread's own contexts: making one anew costs as much as a block of 20 kB."""

    def __init__(self) -> None:
        self.decompressor = ZstdDecompressor()
        self._compressors: dict[int, ZstdCompressor] = {}

    def compressor(self, level: int) -> ZstdCompressor:
        """Return the compressor of a level."""
        known = self._compressors.get(level)
        if known is None:
            known = self._compressors[level] = ZstdCompressor(level)
        return known


_zstd: Final = _ZstdContexts()


def index_nbytes(blocks: int) -> int:
    """Return the length of the shard index at the end of a tile of *blocks* blocks."""
    return 16 * blocks + CHECKSUM_NBYTES


def _rows(stored: NDArray[Any], block: Sequence[int], stored_dtype: str) -> NDArray[Any]:
    """Return the blocks of a tile that hold any value, one a row, padded where it is short.

    A view, but for padding and for blocks that are no contiguous part of the tile.
    """
    grid = blocks_per_axis(stored.shape, block)
    covered = tuple(count * extent for count, extent in zip(grid, block, strict=True))
    if stored.shape != covered:
        whole = np.full(covered, fill_value(stored_dtype), stored.dtype)
        whole[tuple(map(slice, stored.shape))] = stored
        stored = whole
    cut = stored.reshape([extent for pair in zip(grid, block, strict=True) for extent in pair])
    axes = range(cut.ndim)
    rows = cut.transpose(*axes[::2], *axes[1::2])
    return np.ascontiguousarray(rows).reshape(math.prod(grid), math.prod(block))


def _packed(rows: NDArray[Any], codec: Codec) -> Iterable[bytes | memoryview]:
    """Compress blocks, one a row."""
    count = len(rows)
    if codec.name == "blosc":
        shuffle = _SHUFFLES[codec.shuffle]
        name = codec.compressor.encode()
        return [blosc.compress(row, name, codec.level, shuffle, 0) for row in rows]
    if not count:
        return ()
    raw = rows.view(np.uint8)
    if codec.name != "zstd":
        return [row.data for row in raw]
    compressor = _zstd.compressor(codec.level)
    if count == 1:
        return (compressor.compress(raw[0].data),)
    # All in one call: between two, another thread would take the interpreter.
    blocks = BufferWithSegments(raw.reshape(-1).data, _segments(*raw.shape))
    frames = compressor.multi_compress_to_buffer(blocks)
    return [memoryview(frames[at]) for at in range(count)]  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _segments(count: int, nbytes: int) -> bytes:
    """Return where blocks lie that follow one another, as `BufferWithSegments` takes it."""
    starts = np.arange(count, dtype="<u8") * np.uint64(nbytes)
    return np.stack([starts, np.full_like(starts, nbytes)], axis=1).tobytes()
