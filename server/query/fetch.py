"""Reads byte ranges of tiles and decodes the blocks in them.

One range is read for blocks that lie side by side, and, where a range takes a round trip, for
blocks with little between them. Nothing is read from the shard index at the end of a tile: the
commit told where each block ends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from archive_schema.errors import ErrorKind, FormatError, NotFoundError, StorageError
from archive_schema.store import LocalStore
from archive_schema.store.interface import is_remote
from server.query.ahead import ReadAhead
from server.query.cache import BlockCache
from server.query.plan import spans
from server.query.straight import StraightReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from archive_schema.codecs import BlockDecoder
    from archive_schema.store import Store
    from server.query.plan import Span

READS_IN_FLIGHT: Final = 64
"""Ranges asked for at once where each takes a round trip: with 20 ms for one, twice as many
halve the time, and on a network without delay they cost nothing (benchmarks.bench_s3_read)."""
GAP_NBYTES: Final = 32 << 10
"""What is read in vain to save a round trip: about what passes in the time that one costs."""
AHEAD_NBYTES: Final = 64 << 20
"""Of values on their way before they are wanted. A quarter of it, which one reader may have, is
some hundred megabytes a second where a round trip takes 20 ms."""


class BlockSource(Protocol):
    """A field whose blocks are read, as tiles or as shards; both are named by two numbers."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """Return what tells its blocks from those of any other field."""

    @property
    def decoder(self) -> BlockDecoder:
        """Return what decodes its blocks."""

    def ends(self, step: int, tile: int) -> NDArray[np.int64] | None:
        """Return the offset at which each block of an object ends, or None if there is none."""

    def nbytes(self, step: int, tile: int) -> int:
        """Return the length of an object, as it is promised."""

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
    """Bytes of a tile to read."""

    at: int
    """Position of the tile among those that are read."""
    step: int
    tile: int
    key: str
    span: Span


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
        self.straight = StraightReader(store) if isinstance(store, LocalStore) else None
        """For large results, where the store is a folder."""
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
        if self.straight is not None:
            self.straight.close()

    def blocks(
        self,
        field: BlockSource,
        block: tuple[int, ...],
        reads: Sequence[TileRead],
        *,
        keep: bool = True,
    ) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Yield the blocks of *reads*, in any order; one that is absent is left out.

        Each comes with the position of its tile in *reads* and its number in the tile.

        Parameters
        ----------
        block
            Extent of a block.
        keep
            Whether blocks that were decoded are kept for whoever reads next.

        Raises
        ------
        FormatError
            ``tile-lost`` or ``tile-damaged``, naming the object and what it holds.
        """
        ranges: list[_Range] = []
        for at, (step, tile, numbers) in enumerate(reads):
            missing = []
            for number in numbers:
                values = self.cache.get((field.identity, step, tile, number))
                if values is None:
                    missing.append(number)
                else:
                    yield at, number, values
            ends = field.ends(step, tile) if missing else None
            if ends is not None:
                key = field.tile_key(step, tile)
                for span in spans(missing, ends, self._gap_bytes):
                    ranges.append(_Range(at, step, tile, key, span))  # noqa: PERF401  faster so
        if self._ranges.threads == 1 or len(ranges) == 1:  # which needs no thread
            for one in ranges:
                yield from self._taken(field, block, one, self._fetch(field, one), keep=keep)
            return
        jobs = (
            (one.span.stop - one.span.start, partial(self._fetch, field, one)) for one in ranges
        )
        for one, data in zip(ranges, self._ranges.results(jobs), strict=True):
            yield from self._taken(field, block, one, data, keep=keep)

    def _taken(
        self, field: BlockSource, block: tuple[int, ...], one: _Range, data: bytes, *, keep: bool
    ) -> list[tuple[int, int, NDArray[Any]]]:
        """Return the blocks of a range; one that came over a network is read again if damaged.

        What lies sound in a store may be cut or changed on its way, and no client notices.
        """
        try:
            return self._decoded(field, block, one, data, keep=keep)
        except FormatError:
            if not self.remote:
                raise
            return self._decoded(field, block, one, self._fetch(field, one), keep=keep)

    def _fetch(self, field: BlockSource, one: _Range) -> bytes:
        key, (start, stop, _) = one.key, one.span
        try:
            return self.store.read_range(key, start, stop)
        except NotFoundError as error:
            raise self._lost(field, one) from error
        except StorageError:
            # Some stores refuse a range that begins behind the end of the object.
            try:
                length = self.store.size(key)
            except NotFoundError as error:
                raise self._lost(field, one) from error
            if length >= stop:
                raise
            raise self._cut_short(field, one, length) from None

    def _decoded(
        self, field: BlockSource, block: tuple[int, ...], one: _Range, data: bytes, *, keep: bool
    ) -> list[tuple[int, int, NDArray[Any]]]:
        at, step, tile, _, (start, stop, members) = one
        if start + len(data) < stop:
            raise self._cut_short(field, one, start + len(data))
        decode, cache, whole = field.decoder, self.cache, memoryview(data)
        found = []
        for number, begin, end in members:
            try:
                values = decode(whole[begin - start : end - start], block)
            except (FormatError, RuntimeError, ValueError) as error:
                raise self._damaged(field, one, f"block {number}: {error}") from error
            found.append((at, number, values))
            if keep and cache.takes(values.nbytes):
                # A view is copied: a block that is kept must not hold its neighbours' bytes.
                kept = values.copy() if decode.views and len(members) > 1 else values
                cache.put((field.identity, step, tile, number), kept)
        return found

    def _lost(self, field: BlockSource, one: _Range) -> FormatError:
        name = field.tile_name(one.step, one.tile)
        message = f"the object of {name} is lost: {self.store.url}/{one.key}"
        return FormatError(ErrorKind.TILE_LOST, message)

    def _cut_short(self, field: BlockSource, one: _Range, length: int) -> FormatError:
        return self._damaged(field, one, f"it is cut short at {length} bytes")

    def _damaged(self, field: BlockSource, one: _Range, reason: str) -> FormatError:
        message = (
            f"the object of {field.tile_name(one.step, one.tile)} is damaged: {reason};"
            f" expected {field.nbytes(one.step, one.tile)} bytes as committed:"
            f" {self.store.url}/{one.key}"
        )
        return FormatError(ErrorKind.TILE_DAMAGED, message)
