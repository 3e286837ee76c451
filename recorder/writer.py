"""The background of a recorder: workers that store tiles, and one thread that commits them.

1. `reserve` waits for room in the byte budget, `put` queues a tile: all that the caller pays.
2. A worker encodes the tile and creates its object.
3. The committer takes all tiles whose objects are acknowledged, at most once in an interval,
   and makes them visible with one commit. Only then do they count as recorded.

The first failure ends it: what is queued is dropped, what is stored is still committed if
that is possible, and every later call raises the failure.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Literal

from archive_schema.errors import ArchiveError, ErrorKind, StorageError

if TYPE_CHECKING:
    from recorder.budget import ByteBudget
    from recorder.committer import Committer
    from recorder.coordinates import Coordinates
    from recorder.encoder import AcceptedTile, StoredTile, TileEncoder

HEARTBEAT_S: Final = 5.0


class Writer:
    """Stores and commits tiles on background threads, between `start` and `close`.

    Parameters
    ----------
    workers : int
        Threads that encode and put.
    commit_interval_s : float, seconds
        Least time between two commits, but for a flush.
    deadline_s : float, seconds
        How long a call waits while nothing gets done.
    """

    def __init__(
        self,
        encoder: TileEncoder,
        committer: Committer,
        coordinates: Coordinates,
        budget: ByteBudget,
        *,
        workers: int,
        commit_interval_s: float,
        deadline_s: float,
    ) -> None:
        self._encoder = encoder
        self._committer = committer
        self._coordinates = coordinates
        self._budget = budget
        self._commit_interval_s = commit_interval_s
        self._deadline_s = deadline_s
        self._jobs: SimpleQueue[AcceptedTile | None] = SimpleQueue()
        # Everything below is read and changed with this lock held.
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        """Tells the committer that there is something to commit, or no time to lose."""
        self._progressed = threading.Condition(self._lock)
        """Tells who flushes that something was stored or committed."""
        self._under_way = 0
        self._stored: list[StoredTile] = []
        self._committing = False
        self._progress = 0
        self._flushing = 0
        self._closing = False
        self._end_error = ""
        self._failure: BaseException | None = None
        self._cannot_commit = False
        # Daemons: `close` waits for them, and a store that hangs must not keep the
        # interpreter, and with it the machine, from ending.
        self._workers = [
            threading.Thread(target=self._store_loop, name=f"trace-store-{n}", daemon=True)
            for n in range(workers)
        ]
        self._commit_thread = threading.Thread(
            target=self._commit_loop, name="trace-commit", daemon=True
        )

    @property
    def failure(self) -> ArchiveError | None:
        """What ended the writer, if anything did, as an error to be raised."""
        cause = self._failure
        if cause is None:
            return None
        message = f"recording stopped: {str(cause) or type(cause).__name__}"
        # A new object each time: one raised again and again would gather tracebacks.
        error: ArchiveError
        if isinstance(cause, ArchiveError):
            error = type(cause)(cause.kind, message)
        else:
            error = StorageError(ErrorKind.WRITER_FAILED, message)
        error.__cause__ = cause
        return error

    def start(self) -> None:
        """Start the threads."""
        for thread in (*self._workers, self._commit_thread):
            thread.start()

    def reserve(self, cost: int) -> None:
        """Wait until *cost* bytes of the budget are free, and take them.

        Raises
        ------
        ArchiveError
            What ended the writer; also ``deadline-passed``, which ends it.
        """
        self.check()
        try:
            self._budget.take(cost, self._deadline_s)
        except StorageError as error:
            self._fail(error)
            raise
        self.check()

    def cancel(self, cost: int) -> None:
        """Give back what was reserved for a tile that did not come."""
        self._budget.give(cost)

    def put(self, tile: AcceptedTile) -> None:
        """Queue a tile, for which its cost was reserved."""
        with self._lock:
            self._under_way += 1
        self._jobs.put(tile)

    def announce(self) -> None:
        """Have new coordinates committed, also if no tile follows."""
        with self._lock:
            self._wake.notify()

    def check(self) -> None:
        """Raise what ended the writer, if anything did."""
        failure = self.failure
        if failure is not None:
            raise failure

    def flush(self) -> None:
        """Return once everything accepted is committed.

        Raises
        ------
        ArchiveError
            What ended the writer; also ``deadline-passed``, which ends it, if nothing got done
            for so long.
        """
        with self._lock:
            self._flushing += 1
            self._wake.notify()
            while not self._idle() and self._failure is None:
                before = self._progress
                if not self._progressed.wait(self._deadline_s) and self._progress == before:
                    message = f"nothing was stored or committed for {self._deadline_s:g} s"
                    self._set_failure(StorageError(ErrorKind.DEADLINE_PASSED, message))
            self._flushing -= 1
        self.check()

    def close(self, error: str = "") -> None:
        """Commit what was accepted and end the threads; idempotent. Raises like `flush`.

        Parameters
        ----------
        error
            Why the run is given up, for readers; empty if it is not.
        """
        try:
            if self._commit_thread.is_alive():
                self.flush()
        finally:
            deadline = time.monotonic() + self._deadline_s
            for _ in self._workers:
                self._jobs.put(None)
            for thread in self._workers:
                thread.join(max(deadline - time.monotonic(), 0.0))
            with self._lock:
                self._closing = True
                self._end_error = error
                self._wake.notify()
            self._commit_thread.join(max(deadline - time.monotonic(), 0.0))
        self.check()

    def _idle(self) -> bool:
        return not (self._under_way or self._stored or self._committing or self._coordinates.fresh)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._set_failure(error)

    def _set_failure(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._budget.end()
        self._wake.notify()
        self._progressed.notify_all()

    def _store_loop(self) -> None:
        while (tile := self._jobs.get()) is not None:
            stored: StoredTile | None = None
            try:
                if self._failure is None:
                    stored = self._encoder.store(tile)
                else:
                    tile.snapshot.release()
            except BaseException as error:  # noqa: BLE001  kept for the caller, not handled here
                self._fail(error)
            self._budget.give(tile.cost)
            with self._lock:
                self._under_way -= 1
                self._progress += 1
                first = not self._stored
                if stored is not None:
                    self._stored.append(stored)
                # Not for every tile: a wake-up costs more than a commit of many tiles saves.
                if first or not self._under_way:
                    self._wake.notify()
                if self._flushing:
                    self._progressed.notify_all()

    def _commit_loop(self) -> None:
        next_beat = time.monotonic() + HEARTBEAT_S
        next_commit = 0.0
        told_failure = False
        while True:
            with self._lock:
                if told_failure:
                    self._wake.wait_for(lambda: self._wants_commit() or self._closing)
                else:
                    self._wake.wait_for(
                        lambda: self._wants_commit() or self._closing or self._failure,
                        max(next_beat - time.monotonic(), 0.0),
                    )
                if self._wants_commit():
                    self._wake.wait_for(self._in_haste, max(next_commit - time.monotonic(), 0.0))
                closing = self._closing
                tiles, self._stored = self._stored, []
                self._committing = True
            if not self._cannot_commit:
                self._commit(tiles)
                next_commit = time.monotonic() + self._commit_interval_s
            with self._lock:
                self._committing = False
                self._progress += 1
                self._progressed.notify_all()
            if self._failure is not None and not told_failure:
                told_failure = True
                self._tell_failure()
            elif closing:
                break
            elif self._failure is None and time.monotonic() >= next_beat:
                next_beat = time.monotonic() + HEARTBEAT_S
                self._beat()
        if not told_failure:
            self._tell_end()

    def _wants_commit(self) -> bool:
        return not self._cannot_commit and bool(self._stored or self._coordinates.fresh)

    def _in_haste(self) -> bool:
        return self._closing or bool(self._flushing and not self._under_way)

    def _commit(self, tiles: list[StoredTile]) -> None:
        try:
            steps, samples = self._coordinates.take()
            if tiles or steps or samples:
                self._committer.put(self._committer.next(tiles, steps, samples), tiles)
                self._encoder.committed(tiles)
        except BaseException as error:  # noqa: BLE001  kept for the caller, not handled here
            self._cannot_commit = True
            self._fail(error)

    def _beat(self) -> None:
        try:
            self._committer.beat()
        except ArchiveError as error:
            self._fail(error)

    def _tell_failure(self) -> None:
        cause = self._failure
        # A writer that was replaced has no word in the run any more.
        if not (isinstance(cause, ArchiveError) and cause.kind is ErrorKind.WRITER_REPLACED):
            with suppress(ArchiveError):
                self._committer.beat("failed", str(cause) or type(cause).__name__)

    def _tell_end(self) -> None:
        end: Literal["failed", "closed"] = "failed" if self._end_error else "closed"
        try:
            self._committer.end(end, self._end_error)
            self._committer.beat(end, self._end_error)
        except ArchiveError as error:
            self._fail(error)
