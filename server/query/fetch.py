"""Reads byte ranges of tiles and decodes the blocks in them.

One range is read for blocks that lie side by side. Nothing is read from the shard index
at the end of a tile: the commit told where each block ends.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from archive_schema.codecs import decode_block
from archive_schema.errors import ErrorKind, FormatError, NotFoundError, StorageError
from archive_schema.store import LocalStore
from server.query.cache import BlockCache
from server.query.plan import adjacent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.ledger import TileEntry
    from archive_schema.store import Store
    from server.query.field import FieldView

READS_IN_FLIGHT: Final = 32
"""Ranges asked for at once where each takes a round trip."""


@dataclass(frozen=True, slots=True)
class TileRead:
    """Some blocks of one tile."""

    step: int
    tile: int
    key: str
    entry: TileEntry
    blocks: tuple[int, ...]
    """Numbers of the blocks, rising."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes ``[start, stop)`` of a tile, which hold *blocks* back to back."""

    at: int
    """Position in the list of reads."""
    start: int
    stop: int
    blocks: list[int]


class BlockReader:
    """Gives decoded blocks, from memory where they were read lately.

    Parameters
    ----------
    reads_in_flight : int, optional
        Ranges read at once; by default 1 where a read is a system call, else 32.
    """

    def __init__(
        self, store: Store, cache_bytes: int, *, reads_in_flight: int | None = None
    ) -> None:
        self.store = store
        self.cache = BlockCache(cache_bytes)
        self.remote = not isinstance(store, LocalStore) and not store.url.startswith("memory:")
        wide = READS_IN_FLIGHT if self.remote else 1
        workers = wide if reads_in_flight is None else reads_in_flight
        # The pool starts its threads at the first use of it, not here.
        self._pool = ThreadPoolExecutor(workers, "trace-read") if workers > 1 else None

    def close(self) -> None:
        """End the threads; reads that are under way are waited for."""
        if self._pool is not None:
            self._pool.shutdown()

    def read(self, field: FieldView, reads: Sequence[TileRead]) -> list[dict[int, NDArray[Any]]]:
        """Return the blocks of each read of *field* by number; an absent block is left out.

        Raises
        ------
        FormatError
            ``tile-lost`` or ``tile-damaged``, naming the object and what it holds.
        """
        uid = field.run.manifest.uid
        results: list[dict[int, NDArray[Any]]] = []
        ranges: list[_Range] = []
        for at, read in enumerate(reads):
            held = {
                block: values
                for block in read.blocks
                if (values := self.cache.get((uid, read.key, block))) is not None
            }
            results.append(held)
            if len(held) < len(read.blocks):
                missing = (block for block in read.blocks if block not in held)
                ranges += [_Range(at, *found) for found in adjacent(missing, read.entry.ends)]
        if self._pool is None or len(ranges) < 2:  # noqa: PLR2004  one range needs no thread
            for one in ranges:
                data = self._fetch(field, one, reads[one.at])
                results[one.at] |= self._decode(field, one, reads[one.at], data)
            return results
        fetched = self._pool.map(lambda one: self._fetch(field, one, reads[one.at]), ranges)
        for one, data in zip(ranges, fetched, strict=True):
            results[one.at] |= self._decode(field, one, reads[one.at], data)
        return results

    def _fetch(self, field: FieldView, one: _Range, read: TileRead) -> bytes:
        try:
            data = self.store.read_range(read.key, one.start, one.stop)
        except NotFoundError as error:
            name = field.tile_name(read.step, read.tile)
            message = f"the object of {name} is lost: {self.store.url}/{read.key}"
            raise FormatError(ErrorKind.TILE_LOST, message) from error
        except StorageError as error:
            # Some stores refuse a range that begins behind the end of the object.
            size = self.store.size(read.key)
            if size >= one.stop:
                raise
            raise self._damaged(field, read, f"it is cut short at {size} bytes") from error
        if len(data) != one.stop - one.start:
            reason = f"it is cut short at {one.start + len(data)} bytes"
            raise self._damaged(field, read, reason)
        return data

    def _decode(
        self, field: FieldView, one: _Range, read: TileRead, data: bytes
    ) -> dict[int, NDArray[Any]]:
        decoded: dict[int, NDArray[Any]] = {}
        ends, spec, uid = read.entry.ends, field.spec, field.run.manifest.uid
        whole = memoryview(data)
        for block in one.blocks:
            start = ends[block - 1] if block else 0
            part = whole[start - one.start : ends[block] - one.start]
            if spec.codec.name == "raw" and len(one.blocks) > 1:
                # Raw values are a view: a cached block must not hold its neighbours' bytes.
                part = memoryview(bytes(part))
            try:
                values = decode_block(part, spec.codec, spec.stored_dtype, read.entry.block)
            except (FormatError, RuntimeError, ValueError) as error:
                raise self._damaged(field, read, f"block {block}: {error}") from error
            decoded[block] = values
            self.cache.put((uid, read.key, block), values)
        return decoded

    def _damaged(self, field: FieldView, read: TileRead, reason: str) -> FormatError:
        message = (
            f"the object of {field.tile_name(read.step, read.tile)} is damaged: {reason};"
            f" expected {read.entry.nbytes} bytes as committed: {self.store.url}/{read.key}"
        )
        return FormatError(ErrorKind.TILE_DAMAGED, message)
