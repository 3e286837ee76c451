"""Blocks and tiles as stored bytes: what a Zarr v3 sharding codec would write, exactly.

A block is compressed and followed by its CRC32C. A tile is its blocks back to back in
C order, then the shard index: (offset, length) of each block as two little-endian
uint64, then the index' CRC32C. zarr-python and TensorStore read and write the same.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from crc32c import crc32c
from isal.isal_zlib import crc32
from numcodecs import blosc
from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError

from archive_schema.dtypes import fill_value, numpy_dtype, to_given
from archive_schema.errors import ErrorKind, FormatError
from archive_schema.layout import blocks_per_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    pieces: list[bytes] = []
    index: list[int] = []
    lengths: list[int] = []
    offset = 0
    grid = blocks_per_axis(whole, block)
    for at in product(*map(range, grid)):
        part = stored[tuple(slice(i * b, (i + 1) * b) for i, b in zip(at, block, strict=True))]
        if part.size == 0:
            index += (_ABSENT, _ABSENT)
            lengths.append(0)
            continue
        piece = encode_block(_padded(part, block, spec.stored_dtype), spec.codec)
        pieces.append(piece)
        index += (offset, len(piece))
        lengths.append(len(piece))
        offset += len(piece)
    given = np.ascontiguousarray(to_given(stored, spec))
    crc = crc32(given.reshape(-1).view(np.uint8).data)
    if not any(lengths):
        return EncodedTile(b"", tuple(lengths), 0, crc)
    if block:  # a tile of one value is not sharded: its one block is the object
        table = np.array(index, "<u8").tobytes()
        pieces += (table, crc32c(table).to_bytes(CHECKSUM_NBYTES, "little"))
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
    packed: bytes
    if codec.name == "blosc":
        packed = blosc.compress(
            values.reshape(-1),
            codec.compressor.encode(),
            codec.level,
            _SHUFFLES[codec.shuffle],
            0,
        )
    elif codec.name == "zstd":
        packed = _zstd.compressor(codec.level).compress(values.reshape(-1).view(np.uint8).data)
    else:
        packed = values.tobytes()
    return packed + crc32c(packed).to_bytes(CHECKSUM_NBYTES, "little")


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


def _padded(part: NDArray[Any], block: Sequence[int], stored_dtype: str) -> NDArray[Any]:
    if part.shape == tuple(block):
        # A single text that was taken out of its array has shrunk to its own length.
        return np.ascontiguousarray(part, numpy_dtype(stored_dtype))
    whole = np.full(block, fill_value(stored_dtype), part.dtype)
    whole[tuple(map(slice, part.shape))] = part
    return whole
