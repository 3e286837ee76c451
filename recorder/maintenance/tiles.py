"""One tile: whether its object is what was committed, and what can be made of it if it is not.

A commit holds the length and CRC32C of the object, the lengths of its blocks, and the CRC-32 of
the values, which alone tells one tile from another. The object holds its blocks, each with a
checksum of its own, and an index of them. So an index, or what was appended, can be put right;
and of an object that no commit names, everything that a commit says can be found out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
from fastcrc.crc32 import iscsi as crc32c
from isal.isal_zlib import crc32

from archive_schema.codecs import decode_block, index_nbytes
from archive_schema.dtypes import fill_value, numpy_dtype, to_given
from archive_schema.errors import ArchiveError
from archive_schema.layout import blocks_per_axis
from archive_schema.ledger import TileEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.models import FieldSpec

_ABSENT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Where the blocks of a tile lie in its object."""

    whole: tuple[int, ...]
    """Extent of a whole tile."""
    block: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    """``[start, stop)`` of each block in C order; empty where it is not stored."""


def check_tile(data: bytes, spec: FieldSpec, entry: TileEntry) -> None:
    """Raise an error that says what is wrong with a tile's object, if anything is.

    Raises
    ------
    ValueError, FormatError
    """
    if len(data) != entry.nbytes:
        message = f"expected {entry.nbytes} bytes, got {len(data)}"
        raise ValueError(message)
    if crc32c(data) != entry.crc32c:
        raise ValueError("its CRC32C is not the committed one")
    if entry.block:
        own = _own_ranges(data, len(entry.ends))
        if own != tuple(pairwise((0, *entry.ends))):
            raise ValueError("its index has its blocks elsewhere than the commit")
    values = _decode(data, spec, _committed_blocks(spec, entry))
    if _crc32(values[: entry.samples] if spec.tile else values, spec) != entry.crc32:
        raise ValueError("it holds other values than were committed")


def restored(data: bytes, spec: FieldSpec, entry: TileEntry) -> bytes | None:
    """Return the committed object, if what was damaged of it is only what is known anyway."""
    whole = data[: entry.nbytes]
    candidates = [whole]
    if entry.block:
        body = data[: entry.ends[-1]]
        table = np.array(
            [
                (start, stop - start) if stop > start else (_ABSENT, _ABSENT)
                for start, stop in pairwise((0, *entry.ends))
            ],
            "<u8",
        ).tobytes()
        candidates.append(body + table + crc32c(table).to_bytes(4, "little"))
    return next((one for one in candidates if is_tile(one, spec, entry)), None)


def is_tile(data: bytes, spec: FieldSpec, entry: TileEntry) -> bool:
    """Return whether *data* is the object that was committed."""
    try:
        check_tile(data, spec, entry)
    except (ArchiveError, ValueError, RuntimeError):
        return False
    return True


def entry_of(
    data: bytes, spec: FieldSpec, samples: int, shape: Sequence[int], block: Sequence[int]
) -> TileEntry:
    """Return what a commit says of an object that no commit names.

    Parameters
    ----------
    samples
        Of the tile; 0 without a sample axis.
    shape, block
        Extents of a whole tile and of a block along sample, if there is one, and the tail.

    Raises
    ------
    ValueError, RuntimeError, FormatError
        Unless every checksum in it fits, and its blocks lie back to back.
    """
    grid = math.prod(blocks_per_axis(shape, block))
    ranges = _own_ranges(data, grid) if block else ((0, len(data)),)
    blocks = _Blocks(tuple(shape), tuple(block), ranges)
    values = _decode(data, spec, blocks)
    shown = values[:samples] if spec.tile else values
    beyond = [
        start == stop
        for at, (start, stop) in zip(_grid(blocks), ranges, strict=True)
        if not spec.tile or at[0] * block[0] < samples
    ]
    if any(beyond):
        raise ValueError("a block of its samples is not in it")
    end = max(stop for _, stop in ranges)
    if len(data) != end + (index_nbytes(grid) if block else 0):
        raise ValueError("it holds more than its blocks")
    lengths = [stop - start for start, stop in ranges]
    return TileEntry(
        samples=samples,
        nbytes=len(data),
        crc32c=crc32c(data),
        crc32=_crc32(shown, spec),
        ends=tuple(np.cumsum(lengths).tolist()),
        shape=tuple(shown.shape),
        block=tuple(block),
    )


def samples_in(data: bytes, spec: FieldSpec, known: int) -> int:
    """Return how many samples a tile's object holds: what is beyond them is padding.

    Parameters
    ----------
    known
        How many the tile has by what else is recorded; asked where values at the end may as
        well be padding.

    Raises
    ------
    ValueError, RuntimeError, FormatError
        If nothing tells.
    """
    ranges = _own_ranges(data, math.prod(blocks_per_axis(spec.tile_shape, spec.block)))
    blocks = _Blocks(spec.tile_shape, spec.block, ranges)
    stored = [
        at[0] for at, (start, stop) in zip(_grid(blocks), ranges, strict=True) if start < stop
    ]
    most = (max(stored, default=-1) + 1) * spec.block[0]
    values = _decode(data, spec, blocks)[:most]
    padding = np.full_like(values, fill_value(spec.stored_dtype))
    differs = values.reshape(most, -1).view(np.uint8) != padding.reshape(most, -1).view(np.uint8)
    least = max((int(row) + 1 for row in np.flatnonzero(differs.any(axis=1))), default=1)
    if least == most or spec.block[0] == 1:
        return most
    if not least <= known <= most:
        raise ValueError("it does not tell how many samples it holds")
    return known


def _committed_blocks(spec: FieldSpec, entry: TileEntry) -> _Blocks:
    whole = (spec.tile, *spec.tail) if spec.tile else entry.shape
    return _Blocks(whole, entry.block, tuple(pairwise((0, *entry.ends))))


def _own_ranges(data: bytes, count: int) -> tuple[tuple[int, int], ...]:
    """Return where the tile's own index says that its blocks are, as any Zarr reader takes it."""
    table, checksum = data[len(data) - index_nbytes(count) : -4], data[-4:]
    if len(table) != index_nbytes(count) - 4 or crc32c(table) != int.from_bytes(checksum, "little"):
        raise ValueError("the checksum of its index does not fit")
    ranges = []
    end = 0
    for offset, size in np.frombuffer(table, "<u8").reshape(-1, 2).tolist():
        if offset == size == _ABSENT:
            ranges.append((end, end))
            continue
        if offset != end:
            message = f"its index has a block at {offset}, expected {end}"
            raise ValueError(message)
        end = offset + size
        ranges.append((offset, end))
    return tuple(ranges)


def _grid(blocks: _Blocks) -> list[tuple[int, ...]]:
    return list(product(*map(range, blocks_per_axis(blocks.whole, blocks.block))))


def _decode(data: bytes, spec: FieldSpec, blocks: _Blocks) -> NDArray[Any]:
    """Return the values of a whole tile; anything where a block is not stored."""
    values = np.zeros(blocks.whole, numpy_dtype(spec.stored_dtype))
    view = memoryview(data)
    for at, (start, stop) in zip(_grid(blocks), blocks.ranges, strict=True):
        if start < stop:
            box = tuple(slice(i * b, (i + 1) * b) for i, b in zip(at, blocks.block, strict=True))
            values[box] = decode_block(
                view[start:stop], spec.codec, spec.stored_dtype, blocks.block
            )
    return values


def _crc32(stored: NDArray[Any], spec: FieldSpec) -> int:
    given = np.ascontiguousarray(to_given(stored, spec))
    return int(crc32(given.reshape(-1).view(np.uint8).data))
