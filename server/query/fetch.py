"""Reads byte ranges of tiles and decodes the blocks in them.

One range is read for blocks that lie side by side, and, where a range takes a round trip, for
blocks with little between them. Nothing is read from the shard index at the end of a tile: the
commit told where each block ends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from archive_schema.codecs import decode_block
from archive_schema.errors import ErrorKind, FormatError, NotFoundError, StorageError
from archive_schema.store.interface import is_remote
from server.query.ahead import ReadAhead
from server.query.cache import BlockCache
from server.query.plan import adjacent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.models import FieldSpec
    from archive_schema.store import Store

READS_IN_FLIGHT: Final = 64
"""Ranges asked for at once where each takes a round trip: with 20 ms for one, twice as many
halve the time, and on a network without delay they cost nothing (benchmarks.bench_s3_read)."""
GAP_NBYTES: Final = 32 << 10
"""What is read in vain to save a round trip: about what passes in the time that one costs."""
AHEAD_NBYTES: Final = 64 << 20
"""Of values on their way before they are wanted. A quarter of it, which one reader may have, is
some hundred megabytes a second where a round trip takes 20 ms."""


class Stored(Protocol):
    """What is known of a stored object that holds blocks back to back."""

    @property
    def nbytes(self) -> int:
        """Return its length."""

    @property
    def ends(self) -> Sequence[int]:
        """Return the offset at which each block ends."""

    @property
    def block(self) -> tuple[int, ...]:
        """Return the extent of a block."""


class BlockSource(Protocol):
    """A field whose blocks are read, as tiles or as shards; both are named by two numbers."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return what tells its blocks from those of any other field."""

    @property
    def spec(self) -> FieldSpec:
        """Return its declaration, with the codec that its blocks have."""

    def entry(self, step: int, tile: int) -> Stored | None:
        """Return what is stored there, or None if nothing is."""

    def tile_key(self, step: int, tile: int) -> str:
        """Return the key of the object."""

    def tile_name(self, step: int, tile: int) -> str:
        """Say in words what the object holds."""


class TileRead(NamedTuple):
    """Some blocks of one tile, by rising number."""

    step: int
    tile: int
    blocks: Sequence[int]


class _Range(NamedTuple):
    """Bytes ``[start, stop)`` of a tile, which hold *blocks* in their order."""

    step: int
    tile: int
    key: str
    entry: Stored
    start: int
    stop: int
    blocks: list[int]
    into: dict[int, NDArray[Any]]


class BlockReader:
    """Gives decoded blocks, from memory where they were read lately.

    Parameters
    ----------
    reads_in_flight : int, optional
        Ranges read at once; by default 1 where a read is a system call, else `READS_IN_FLIGHT`.
    gap_bytes : int, optional
        The most that is read in vain between two blocks; by default 0 or `GAP_NBYTES` alike.
    ahead_bytes : int
        Of values that `ahead` begins to read before they are wanted, and of ranges.
    """

    def __init__(
        self,
        store: Store,
        cache_bytes: int,
        *,
        reads_in_flight: int | None = None,
        gap_bytes: int | None = None,
        ahead_bytes: int = AHEAD_NBYTES,
    ) -> None:
        self.store = store
        self.cache = BlockCache(cache_bytes)
        self.remote = is_remote(store)
        workers, gap = (READS_IN_FLIGHT, GAP_NBYTES) if self.remote else (1, 0)
        workers = workers if reads_in_flight is None else reads_in_flight
        self._gap_bytes = gap if gap_bytes is None else gap_bytes
        self.ahead = ReadAhead(workers, ahead_bytes)
        """For whoever reads a large thing in parts, one after another."""
        # Of their own, because the parts that `ahead` reads wait for their ranges.
        self._ranges = ReadAhead(workers, ahead_bytes)

    def close(self) -> None:
        """End the threads; reads that are under way are waited for."""
        self.ahead.close()
        self._ranges.close()

    def read(self, field: BlockSource, reads: Sequence[TileRead]) -> list[dict[int, NDArray[Any]]]:
        """Return the blocks of each read of *field* by number; an absent block is left out.

        Raises
        ------
        FormatError
            ``tile-lost`` or ``tile-damaged``, naming the object and what it holds.
        """
        results: list[dict[int, NDArray[Any]]] = []
        ranges: list[_Range] = []
        for step, tile, blocks in reads:
            found: dict[int, NDArray[Any]] = {}
            missing = []
            for block in blocks:
                values = self.cache.get((field.identity, step, tile, block))
                if values is None:
                    missing.append(block)
                else:
                    found[block] = values
            results.append(found)
            entry = field.entry(step, tile) if missing else None
            if entry is not None:
                key = field.tile_key(step, tile)
                ranges += [
                    _Range(step, tile, key, entry, *one, found)
                    for one in adjacent(missing, entry.ends, self._gap_bytes)
                ]
        if self._ranges.threads == 1 or len(ranges) == 1:  # which needs no thread
            for one in ranges:
                self._take(field, one, self._fetch(field, one))
            return results
        jobs = ((one.stop - one.start, partial(self._fetch, field, one)) for one in ranges)
        for one, data in zip(ranges, self._ranges.results(jobs), strict=True):
            self._take(field, one, data)
        return results

    def _take(self, field: BlockSource, one: _Range, data: bytes) -> None:
        """Decode a range; one that came over a network is read again before it is damaged.

        What lies sound in a store may be cut or changed on its way, and no client notices.
        """
        try:
            self._decode(field, one, data)
        except FormatError:
            if not self.remote:
                raise
            self._decode(field, one, self._fetch(field, one))

    def _fetch(self, field: BlockSource, one: _Range) -> bytes:
        try:
            return self.store.read_range(one.key, one.start, one.stop)
        except NotFoundError as error:
            raise self._lost(field, one) from error
        except StorageError:
            # Some stores refuse a range that begins behind the end of the object.
            try:
                length = self.store.size(one.key)
            except NotFoundError as error:
                raise self._lost(field, one) from error
            if length >= one.stop:
                raise
            raise self._cut_short(field, one, length) from None

    def _decode(self, field: BlockSource, one: _Range, data: bytes) -> None:
        if one.start + len(data) < one.stop:
            raise self._cut_short(field, one, one.start + len(data))
        spec, ends, shape = field.spec, one.entry.ends, one.entry.block
        whole = memoryview(data)
        for block in one.blocks:
            start = ends[block - 1] if block else 0
            part = whole[start - one.start : ends[block] - one.start]
            if spec.codec.name == "raw" and len(one.blocks) > 1:
                # Raw values are a view: a cached block must not hold its neighbours' bytes.
                part = memoryview(bytes(part))
            try:
                values = decode_block(part, spec.codec, spec.stored_dtype, shape)
            except (FormatError, RuntimeError, ValueError) as error:
                raise self._damaged(field, one, f"block {block}: {error}") from error
            one.into[block] = values
            self.cache.put((field.identity, one.step, one.tile, block), values)

    def _lost(self, field: BlockSource, one: _Range) -> FormatError:
        name = field.tile_name(one.step, one.tile)
        message = f"the object of {name} is lost: {self.store.url}/{one.key}"
        return FormatError(ErrorKind.TILE_LOST, message)

    def _cut_short(self, field: BlockSource, one: _Range, length: int) -> FormatError:
        return self._damaged(field, one, f"it is cut short at {length} bytes")

    def _damaged(self, field: BlockSource, one: _Range, reason: str) -> FormatError:
        message = (
            f"the object of {field.tile_name(one.step, one.tile)} is damaged: {reason};"
            f" expected {one.entry.nbytes} bytes as committed: {self.store.url}/{one.key}"
        )
        return FormatError(ErrorKind.TILE_DAMAGED, message)
