"""The thread that brings back what the spool keeps: it asks whether the store is there again."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ArchiveError, FormatError, NotFoundError, StorageError
from recorder.overflow import NOT_TAKEN
from recorder.patience import may_pass
from recorder.progress import Placed

if TYPE_CHECKING:
    from collections.abc import Callable

    from recorder.budget import ByteBudget
    from recorder.encoder import StoredTile, TileEncoder
    from recorder.overflow import Overflow
    from recorder.progress import Progress
    from recorder.spool import Entry

_BUDGET_S: Final = 1.0
"""How long a file of the spool waits for memory before the store is looked at again."""


class Drainer:
    """Hands files of the spool to the workers, oldest first; while the store is away, tries one.

    Parameters
    ----------
    hand_over : callable
        Has a worker call `drain`.
    most : int
        Files that are with the workers at once.
    """

    def __init__(
        self,
        progress: Progress,
        encoder: TileEncoder,
        budget: ByteBudget,
        overflow: Overflow,
        *,
        hand_over: Callable[[Entry], None],
        most: int,
    ) -> None:
        self._progress = progress
        self._encoder = encoder
        self._budget = budget
        self._overflow = overflow
        self._hand_over = hand_over
        self._most = most
        self._thread = threading.Thread(target=self._loop, name="trace-drain", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, once the progress is stopping."""
        self._thread.join(timeout_s)

    def drain(self, entry: Entry) -> None:
        """Put one file's tile; for a worker, whom its bytes of the budget were given."""
        with suppress(*NOT_TAKEN):
            self._put(entry)
        self._budget.give(entry.nbytes)

    def _loop(self) -> None:
        progress, spool = self._progress, self._overflow.spool
        while True:
            with progress.lock:
                progress.to_drain.wait_for(
                    lambda: self._over or (spool.waiting and progress.draining < self._most)
                )
                pause_s = self._overflow.pause_s
                if pause_s:
                    progress.to_drain.wait_for(lambda: self._over, pause_s)
                if self._over:
                    return
            if not self._overflow.pause_s:
                self._bring_one()

    @property
    def _over(self) -> bool:
        return self._progress.stopping or self._progress.failure is not None

    def _bring_one(self) -> None:
        spool, away = self._overflow.spool, self._overflow.away
        entry = spool.take()
        if entry is None:
            return
        if not away:
            try:
                self._budget.take(entry.nbytes, _BUDGET_S)
            except StorageError:
                spool.give_back(entry)
                return
        with self._progress.lock:
            self._progress.draining += 1
        if not away:
            self._hand_over(entry)
            return
        # Without memory of the budget, which may be full for the very reason that nothing drains.
        with suppress(*NOT_TAKEN), self._overflow.probe():
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        """Put one file's tile, and have it committed; raise what a store says that is away."""
        part: Placed | None = None
        try:
            part = self._placed(entry)
        except NOT_TAKEN as error:
            self._overflow.spool.give_back(entry)
            if not may_pass(error):
                self._progress.fail(error)
            raise
        except BaseException as error:  # noqa: BLE001  kept for the caller, not handled here
            self._overflow.spool.give_back(entry)
            self._progress.fail(error)
        finally:
            with self._progress.lock:
                self._progress.draining -= 1
                self._progress.to_drain.notify()
                if part is not None:
                    self._progress.placed.append(part)
                    self._progress.to_commit.notify()
                self._progress.done.notify_all()

    def _placed(self, entry: Entry) -> Placed | None:
        overflow = self._overflow
        try:
            found = overflow.load(entry)
        except (FormatError, NotFoundError) as error:
            self._refuse(entry, None, error)
            return None
        except StorageError as error:  # of the local disk
            overflow.spool.give_back(entry)
            self._progress.fail(error)
            return None
        if found.tile is None:
            return Placed(steps=found.steps, samples=found.samples, entry=entry)
        try:
            tile = self._encoder.put(found.tile, found.data)
        except NOT_TAKEN:
            raise
        except ArchiveError as error:
            self._refuse(entry, found.tile, error)
            return None
        if tile is None:  # another writer has recorded an equal one
            overflow.forget(found.tile)
        return Placed(tile=tile, steps=found.steps, samples=found.samples, entry=entry)

    def _refuse(self, entry: Entry, tile: StoredTile | None, error: ArchiveError) -> None:
        self._overflow.refuse(entry, tile, error)
        # What an earlier process left is named at the end; it must not end this recording too.
        if not entry.adopted:
            self._progress.fail(error)
