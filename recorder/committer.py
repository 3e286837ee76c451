"""Makes stored tiles visible: a few commits a second, gapless, by one writer in one epoch."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from archive_schema.documents import document_bytes, parse_document, read_bytes, read_document
from archive_schema.errors import ConflictError, ErrorKind, NotFoundError
from archive_schema.layout import commit_key, run_prefix
from archive_schema.ledger import two_contents
from archive_schema.models import Claim, Commit, Heartbeat, TileColumns
from archive_schema.records import put_heartbeat

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from archive_schema.models import End, SampleColumn, StepColumn
    from archive_schema.records import RunRecords
    from recorder.encoder import StoredTile


class Committer:
    """Puts the commits and heartbeats of one epoch; to be used by one thread.

    Parameters
    ----------
    records
        What is committed; changed under *lock* only.
    durable : bool
        Whether tiles and commits must survive a power cut before they count as recorded.
    """

    def __init__(
        self, records: RunRecords, claim: Claim, lock: threading.Lock, *, durable: bool
    ) -> None:
        self._records = records
        self._store = records.store
        self._claim = claim
        self._lock = lock
        self._durable = durable
        self._sequence = 0

    def next(
        self,
        tiles: Sequence[StoredTile],
        steps: tuple[StepColumn, ...] = (),
        samples: tuple[SampleColumn, ...] = (),
    ) -> Commit:
        """Return the next commit, which `put` makes visible; it may be put again and again."""
        return self._commit(tiles=tile_columns(tiles), steps=steps, samples=samples)

    def put(self, commit: Commit, tiles: Sequence[StoredTile] = ()) -> None:
        """Make a commit visible, and return once it is.

        Parameters
        ----------
        tiles
            Whose objects must outlast a power cut first, if that was promised.

        Raises
        ------
        ConflictError
            ``writer-replaced`` if another process took over, ``run-sealed`` if the run was
            sealed without this commit.
        StorageError
            If the store did not take it; it is not visible then, and may be put again.
        """
        key = commit_key(self._records.run_id, commit.writer, commit.epoch, commit.sequence)
        if self._durable:
            self._store.sync([self._run_key(tile) for tile in tiles if tile.nbytes])
        self._create(key, document_bytes(commit))
        if self._durable:
            self._store.sync([key])
        self._sequence = commit.sequence + 1
        with self._lock:
            self._records.add(commit)

    def check_undisputed(self) -> None:
        """Look whether another writer recorded other values where this one did.

        Two that record one tile at the same time, and one of them slowly, may both commit it;
        whoever closes later is told.

        Raises
        ------
        ConflictError
            ``tile-differs``. What both recorded is kept.
        """
        with self._lock:
            self._records.refresh()
            disputed = set(self._records.ledger.conflicts)
        for sequence in range(self._sequence if disputed else 0):
            key = commit_key(self._records.run_id, self._claim.writer, self._claim.epoch, sequence)
            for tiles in read_document(self._store, key, Commit).tiles:
                for step, tile in zip(tiles.step, tiles.tile, strict=True):
                    if two_contents(tiles.field, step, tile) in disputed:
                        message = (
                            f"field {tiles.field}, step {step}, tile {tile}: another writer"
                            " recorded other values at the same time; `trace-archive verify"
                            f" {self._records.run_id}` names all such tiles"
                        )
                        raise ConflictError(ErrorKind.TILE_DIFFERS, message)

    def end(self, end: End, reason: str = "") -> None:
        """End the epoch, so that nobody needs to ask whether this writer may be alive."""
        try:
            self.put(self._commit(end=end, reason=reason))
        except ConflictError:
            # Somebody else ended it, after everything that this writer committed.
            return

    def beat(
        self, state: Literal["recording", "closed", "failed"] = "recording", error: str = ""
    ) -> None:
        """Tell readers that this writer is there, or why it has gone."""
        heartbeat = Heartbeat(
            writer=self._claim.writer,
            epoch=self._claim.epoch,
            time=datetime.now(UTC),
            state=state,
            error=error,
        )
        put_heartbeat(self._store, self._records.run_id, heartbeat)

    def _commit(self, **content: Any) -> Commit:
        return Commit(
            writer=self._claim.writer,
            epoch=self._claim.epoch,
            sequence=self._sequence,
            time=datetime.now(UTC),
            **content,
        )

    def _create(self, key: str, data: bytes) -> None:
        """Create the commit, which nobody else can: what is there is this one, or the end."""
        while True:
            try:
                self._store.create(key, data)
            except ConflictError:
                try:
                    known = read_bytes(self._store, key)
                except NotFoundError:  # a store may answer so although nothing was written
                    continue
                if known != data:
                    raise self._ended(parse_document(known, key, Commit)) from None
            return

    def _ended(self, last: Commit) -> ConflictError:
        """Return what it means that somebody else's end is there."""
        run_id, writer = self._records.run_id, self._claim.writer
        if last.end == "sealed":
            message = (
                f"run {run_id!r} was sealed while writer {writer!r} recorded ({last.reason}); what"
                " it put last is not in the run"
            )
            return ConflictError(ErrorKind.RUN_SEALED, message)
        message = (
            f"writer {writer!r} of run {run_id!r} was replaced ({last.reason}): this recorder"
            " stops; processes that record one run need a writer name each"
        )
        return ConflictError(ErrorKind.WRITER_REPLACED, message)

    def _run_key(self, tile: StoredTile) -> str:
        return f"{run_prefix(self._records.run_id)}/{tile.aside}" if tile.aside else tile.key


def tile_columns(tiles: Iterable[StoredTile]) -> tuple[TileColumns, ...]:
    """Return the columns of a commit that make *tiles* visible."""
    by_field: defaultdict[str, list[StoredTile]] = defaultdict(list)
    for tile in tiles:
        by_field[tile.path].append(tile)
    return tuple(
        TileColumns(
            field=path,
            step=tuple(tile.step for tile in group),
            tile=tuple(tile.tile for tile in group),
            samples=tuple(tile.samples for tile in group),
            nbytes=tuple(tile.nbytes for tile in group),
            aside=tuple(tile.aside for tile in group) if any(t.aside for t in group) else None,
            crc32c=tuple(tile.crc32c for tile in group),
            crc32=tuple(tile.crc32 for tile in group),
            blocks=tuple(tile.blocks for tile in group),
            shape=_optional([tile.shape for tile in group]),
            block=_optional([tile.block for tile in group]),
        )
        for path, group in by_field.items()
    )


def _optional(
    column: list[tuple[int, ...] | None],
) -> tuple[tuple[int, ...], ...] | None:
    """Return a column that only ragged fields have."""
    known = tuple(value for value in column if value is not None)
    return known or None
