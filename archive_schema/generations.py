"""A sealed run in another form: many steps in one stored object, one after another.

As recorded, one tile of one step is an object. In a later generation a *shard* holds one tile of
the sample axis at many consecutive positions of the step axis. Within a block the steps of a
value lie side by side (Zarr's `transpose` codec), and within a shard the blocks of a sample, so
that a sample through all steps is one read, and what changes little packs well.

What is recorded is told by the index of the seal, as before. A `Generation` tells only where the
same values lie. Shapes and blocks here are in *storage order*: sample (if any), tail, step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import numpy as np
from fastcrc.crc32 import iscsi as crc32c
from pydantic import AwareDatetime, Field

from archive_schema.codecs import CHECKSUM_NBYTES, decode_block, encode_block
from archive_schema.dtypes import fill_value, is_text, numpy_dtype
from archive_schema.layout import blocks_per_axis
from archive_schema.models import FORMAT_VERSION, Codec, Document, FieldSpec, NonNegative, Positive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

SHARD_NBYTES: Final = 32 << 20
"""A shard holds at most about this much before it is packed; it is packed in memory."""
BLOCK_NBYTES: Final = 16 << 10
"""A block holds about this much: larger ones pack better, and cost a reader of one step more."""
MOST_STEPS: Final = 8
"""Steps in a block: whoever reads one of them unpacks all. With 32 in 64 kB a run is a tenth
smaller, and eight samples of one step take two to three times as long (docs/compaction.md)."""
_ABSENT: Final = 2**64 - 1


class ShardColumns(Document):
    """The shards of one field, one entry a shard in every column."""

    field: str
    """Path of the field's declaration."""
    steps: Positive
    """Positions of the field's step axis in a shard."""
    block: tuple[Positive, ...]
    """Extent of a block along step, sample (if any) and the tail."""
    codec: Codec
    shard: tuple[NonNegative, ...]
    """Position on the shard grid of the step axis."""
    tile: tuple[NonNegative, ...]
    """Position on the tile grid of the sample axis; 0 without one."""
    nbytes: tuple[Positive, ...]
    """Length of the stored object."""
    crc32c: tuple[NonNegative, ...]
    """CRC32C of the stored object."""
    blocks: tuple[tuple[NonNegative, ...], ...]
    """Stored length of each block, back to back from offset 0, the step axis fastest; 0 for a
    block in which nothing is recorded."""


class Generation(Document):
    """Where the values of a sealed run lie since it was rewritten; the last one counts."""

    format_version: Literal[1] = FORMAT_VERSION
    number: Positive
    time: AwareDatetime
    zarr: Annotated[str, Field(pattern=r"^trace-[0-9]{6}-[0-9a-f]{8}\.zarr$")]
    """The folder of its Zarr hierarchy."""
    uid: str
    """Of the run: no generation of one that had its id before counts."""
    shards: tuple[ShardColumns, ...] = ()
    """Fields that are stored in shards; all others are as recorded, in the new folder."""
    nbytes: NonNegative
    """Stored bytes of all shards and tiles."""


class Cut(NamedTuple):
    """How a field is cut into shards, and a shard into blocks; extents in storage order."""

    shape: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def steps(self) -> int:
        """Return the positions of the step axis in a shard."""
        return self.shape[-1]

    @property
    def grid(self) -> tuple[int, ...]:
        """Return the blocks along each axis."""
        return blocks_per_axis(self.shape, self.block)

    @property
    def zarr_block(self) -> tuple[int, ...]:
        """Return the extent of a block in the order of the array's axes, step first."""
        return (self.block[-1], *self.block[:-1])

    def boxes(self) -> Iterator[tuple[slice, ...]]:
        """Yield where each block lies in a shard of shape (steps, sample, *tail), by number."""
        for at in product(*map(range, self.grid)):
            box = [slice(i * b, (i + 1) * b) for i, b in zip(at, self.block, strict=True)]
            yield (box[-1], *box[:-1])


@dataclass(frozen=True, slots=True)
class Shard:
    """One stored shard."""

    nbytes: int
    crc32c: int
    ends: tuple[int, ...]
    """Offset at which each block ends; an absent block ends where it begins."""
    block: tuple[int, ...]


class ShardTable:
    """The shards of one field, by their places."""

    def __init__(self, spec: FieldSpec, columns: ShardColumns) -> None:
        self.columns = columns
        self.codec = columns.codec
        block = (*columns.block[1:], columns.block[0])
        self.cut = Cut((*spec.tile_shape, columns.steps), block)
        places = zip(columns.shard, columns.tile, strict=True)
        self._rows = {place: row for row, place in enumerate(places)}
        blocks = np.array(columns.blocks, np.int64)
        self._ends: NDArray[np.int64] = np.cumsum(
            blocks.reshape(len(self._rows), math.prod(self.cut.grid)), axis=1
        )

    @property
    def places(self) -> Iterable[tuple[int, int]]:
        """Return the shard and tile position of every stored shard."""
        return self._rows.keys()

    def ends(self, shard: int, tile: int) -> NDArray[np.int64] | None:
        """Return where each block ends; the part of `at` that every read asks for."""
        row = self._rows.get((shard, tile))
        return None if row is None else self._ends[row]

    def at(self, shard: int, tile: int) -> Shard | None:
        """Return what is stored at a place, or None if nothing is."""
        row = self._rows.get((shard, tile))
        if row is None:
            return None
        ends = tuple(self._ends[row].tolist())
        return Shard(self.columns.nbytes[row], self.columns.crc32c[row], ends, self.cut.block)


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """One stored object and what its generation says of it."""

    data: bytes
    blocks: tuple[int, ...]
    crc32c: int


def choose_cut(
    spec: FieldSpec, positions: Sequence[int], *, shard_nbytes: int = SHARD_NBYTES
) -> Cut | None:
    """Return how a field is cut, or None where it stays as recorded.

    That is so without a step axis, where the shape differs from step to step, for texts, which
    not every Zarr reader takes, and where nothing is stored.

    Parameters
    ----------
    positions : rising
        Of the recorded steps on the field's step axis.
    """
    whole = spec.tile_shape
    if spec.ragged or not spec.place.stepped or is_text(spec.stored_dtype):
        return None
    if not positions or not math.prod(whole):
        return None
    lead = int(spec.sampled)
    itemsize = numpy_dtype(spec.stored_dtype).itemsize
    unit = itemsize * math.prod(spec.block[lead:])
    tile = itemsize * math.prod(whole)
    length = positions[-1] + 1
    # Where most positions hold nothing, a block of many would be mostly padding.
    dense = 2 * len(positions) >= length
    most = max(1, min(MOST_STEPS, BLOCK_NBYTES // unit, shard_nbytes // tile)) if dense else 1
    steps = _even_part(length, most)
    blocks = _even_part(_ceil(length, steps), max(1, shard_nbytes // (tile * steps)))
    sample = [_largest_divisor(spec.tile, max(1, BLOCK_NBYTES // (unit * steps)))] * lead
    return Cut((*whole, blocks * steps), (*sample, *spec.block[lead:], steps))


def encode_shard(
    values: NDArray[Any],
    recorded: NDArray[np.int64],
    spec: FieldSpec,
    cut: Cut,
    codec: Codec,
    *,
    mapped: Callable[..., Iterable[bytes]] = map,
) -> EncodedShard:
    """Encode one shard.

    Parameters
    ----------
    values : shape (steps, *tile), dtype spec.stored_dtype
        The fill value where nothing is recorded.
    recorded : shape (steps,)
        How many samples of the tile each step has, -1 for none; without a sample axis,
        anything else says that it is recorded.
    mapped : callable
        `map`, or that of an executor.
    """
    boxes = list(cut.boxes())
    stored = [_holds(recorded[box[0]], box[1] if spec.sampled else None) for box in boxes]
    pieces = list(
        mapped(
            lambda box: encode_block(storage_order(values[box]), codec),
            [box for box, there in zip(boxes, stored, strict=True) if there],
        )
    )
    lengths = iter(map(len, pieces))
    blocks = tuple(next(lengths) if there else 0 for there in stored)
    table = index_of_blocks(blocks, cut)
    data = b"".join((*pieces, table))
    return EncodedShard(data, blocks, crc32c(data))


def decode_shard(
    data: bytes, spec: FieldSpec, cut: Cut, codec: Codec, blocks: Sequence[int]
) -> NDArray[Any]:
    """Decode what `encode_shard` wrote.

    Parameters
    ----------
    blocks
        Stored length of each block.

    Returns
    -------
    NDArray, shape (steps, *tile), dtype spec.stored_dtype

    Raises
    ------
    FormatError
        ``tile-damaged`` if a block is.
    """
    dtype = numpy_dtype(spec.stored_dtype)
    values = np.full((cut.steps, *cut.shape[:-1]), fill_value(spec.stored_dtype), dtype)
    view, start = memoryview(data), 0
    for box, length in zip(cut.boxes(), blocks, strict=True):
        if length:
            piece = view[start : start + length]
            block = decode_block(piece, codec, spec.stored_dtype, cut.block)
            values[box] = np.moveaxis(block, -1, 0)
            start += length
    return values


def storage_order(values: NDArray[Any]) -> NDArray[Any]:
    """Return values of shape (step, sample, *tail) with the step axis fastest, contiguous."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1))


def index_of_blocks(blocks: Sequence[int], cut: Cut) -> bytes:
    """Return the index at the end of a shard, which a Zarr reader goes by."""
    lengths = np.array(blocks, np.uint64)
    offsets = np.cumsum(lengths, dtype=np.uint64) - lengths
    pairs = np.stack((offsets, lengths), axis=-1)
    pairs[lengths == 0] = _ABSENT
    # Numbers run with the step axis fastest; Zarr lists blocks with it slowest.
    ordered = np.moveaxis(pairs.reshape(*cut.grid, 2), -2, 0)
    table = np.ascontiguousarray(ordered, "<u8").tobytes()
    return table + crc32c(table).to_bytes(CHECKSUM_NBYTES, "little")


def _ceil(number: int, part: int) -> int:
    return -(number // -part)


def _even_part(number: int, most: int) -> int:
    """Return the extent of parts of at most *most* that are as alike as can be."""
    return _ceil(number, _ceil(number, most))


def _largest_divisor(number: int, limit: int) -> int:
    return max((d for d in range(1, min(number, limit) + 1) if not number % d), default=1)


def _holds(recorded: NDArray[np.int64], samples: slice | None) -> bool:
    least = -1 if samples is None else max(int(samples.start), 0)
    return bool((recorded > least).any())
