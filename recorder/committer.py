"""Makes stored tiles visible: a few commits a second, gapless, by one writer in one epoch."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from archive_schema.errors import ConflictError, ErrorKind, NotFoundError
from archive_schema.layout import claim_key, commit_key, seal_key
from archive_schema.models import Claim, Commit, Heartbeat, TileColumns
from archive_schema.records import document_bytes, put_heartbeat

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from archive_schema.models import SampleColumn, StepColumn
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

    def commit(
        self,
        tiles: Sequence[StoredTile],
        steps: tuple[StepColumn, ...],
        samples: tuple[SampleColumn, ...],
    ) -> None:
        """Make tiles and coordinates visible, and return once they are.

        Raises
        ------
        ConflictError
            ``writer-replaced`` if another process took over, ``run-sealed`` if the run was
            sealed without this commit.
        StorageError
            If the store did not take it; the tiles are not visible then.
        """
        run_id, writer, epoch = self._records.run_id, self._claim.writer, self._claim.epoch
        if self._durable:
            self._store.sync([tile.key for tile in tiles if tile.nbytes])
        self._check_not_replaced()
        commit = Commit(
            writer=writer,
            epoch=epoch,
            sequence=self._sequence,
            time=datetime.now(UTC),
            tiles=tile_columns(tiles),
            steps=steps,
            samples=samples,
        )
        key = commit_key(run_id, writer, epoch, self._sequence)
        self._put(key, document_bytes(commit))
        if self._durable:
            self._store.sync([key])
        self._check_not_sealed()
        self._sequence += 1
        with self._lock:
            self._records.add(commit)

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

    def _put(self, key: str, data: bytes) -> None:
        """Create the commit, which nobody else can: what is there already is this one."""
        while True:
            try:
                self._store.create(key, data)
            except ConflictError:
                try:
                    if self._store.read(key) == data:
                        return
                except NotFoundError:  # a store may answer so although nothing was written
                    continue
                raise
            else:
                return

    def _check_not_replaced(self) -> None:
        """Refuse to commit tiles that a later opening of this writer may have replaced."""
        claim = self._claim
        later = claim_key(self._records.run_id, claim.writer, claim.epoch + 1)
        if self._exists(later):
            message = (
                f"run {self._records.run_id!r} was opened again by writer {claim.writer!r}: this"
                " recorder stops; processes that record one run need a writer name each"
            )
            raise ConflictError(ErrorKind.WRITER_REPLACED, message)

    def _check_not_sealed(self) -> None:
        if self._exists(seal_key(self._records.run_id)):
            message = (
                f"run {self._records.run_id!r} was sealed by another writer while this one"
                " recorded; what it put last is not in the run"
            )
            raise ConflictError(ErrorKind.RUN_SEALED, message)

    def _exists(self, key: str) -> bool:
        try:
            self._store.size(key)
        except NotFoundError:
            return False
        return True


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
