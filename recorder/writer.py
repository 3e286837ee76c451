"""The background of a recorder: workers that store tiles, and one thread that commits them.

1. `reserve` waits for room in the byte budget, `put` queues a tile: all that the caller pays.
2. A worker encodes the tile and creates its object.
3. The commit thread takes all tiles whose objects are acknowledged, an interval after the first of
   them, and makes them visible with one commit. Only then do they count as recorded.
4. With a spool, a tile that the store does not take soon goes there instead, and another thread
   brings it back when the store is there again (`recorder.overflow`, `recorder.drainer`).

The first failure ends it: what is stored is still committed if that is possible, what is queued
goes to the spool if the failure is the store's and is dropped otherwise, and every later call
raises the failure.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ArchiveError, ErrorKind, StorageError
from recorder.commits import CommitThread
from recorder.drainer import Drainer
from recorder.encoder import AcceptedTile
from recorder.overflow import NOT_TAKEN
from recorder.patience import may_pass
from recorder.progress import Placed, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from recorder.budget import ByteBudget
    from recorder.committer import Committer
    from recorder.coordinates import Coordinates
    from recorder.encoder import StoredTile, TileEncoder
    from recorder.overflow import Overflow
    from recorder.spool import Entry

_FULL_S: Final = 0.2
"""How soon a worker that finds the spool full looks for room again."""


class Writer:
    """Stores and commits tiles on background threads, between `start` and `close`.

    Parameters
    ----------
    overflow : Overflow, optional
        Where tiles go that the store does not take; without it the first such tile is a failure.
    all_declared : callable
        Whether the store has the declarations of all fields that were accepted. Commits wait for
        that: whoever resumes must see that a step lacks a field.
    workers : int
        Threads that encode and put.
    commit_interval_s : float, seconds
        How long the first tile of a commit waits for others, but for a flush.
    deadline_s : float, seconds
        How long a call waits while nothing gets done.
    """

    def __init__(
        self,
        encoder: TileEncoder,
        committer: Committer,
        coordinates: Coordinates,
        budget: ByteBudget,
        overflow: Overflow | None = None,
        *,
        all_declared: Callable[[], bool],
        workers: int,
        commit_interval_s: float,
        deadline_s: float,
    ) -> None:
        self._encoder = encoder
        self._coordinates = coordinates
        self._budget = budget
        self._overflow = overflow
        self._deadline_s = deadline_s
        self._jobs: SimpleQueue[AcceptedTile | Entry | None] = SimpleQueue()
        self._progress = Progress(budget)
        self._commits = CommitThread(
            self._progress,
            encoder,
            committer,
            coordinates,
            budget=budget,
            overflow=overflow,
            all_declared=all_declared,
            commit_interval_s=commit_interval_s,
        )
        self._drainer: Drainer | None = None
        if overflow is not None:
            encoder.declares_late = True
            self._drainer = Drainer(
                self._progress, encoder, budget, overflow, hand_over=self._jobs.put, most=workers
            )
        # Daemons: `close` waits for them, and a store that hangs must not keep the
        # interpreter, and with it the machine, from ending.
        self._workers = [
            threading.Thread(target=self._store_loop, name=f"trace-store-{n}", daemon=True)
            for n in range(workers)
        ]

    @property
    def failure(self) -> ArchiveError | None:
        """What ended the writer, if anything did, as an error to be raised."""
        remark = "" if self._overflow is None else self._overflow.remark()
        return self._progress.error(remark)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._workers:
            thread.start()
        self._commits.start()
        if self._drainer is not None:
            self._drainer.start()

    def reserve(self, cost: int) -> None:
        """Wait until *cost* bytes of the budget are free, and take them.

        Raises
        ------
        ArchiveError
            What ended the writer; also ``deadline-passed``, which ends it.
        """
        self.check()
        try:
            self._budget.take(cost, self._deadline_s, self.announce)
        except StorageError as error:
            self._progress.fail(error)
        self.check()

    def cancel(self, cost: int) -> None:
        """Give back what was reserved for a tile that did not come."""
        self._budget.give(cost)

    def put(self, tile: AcceptedTile) -> None:
        """Queue a tile, for which its cost was reserved."""
        with self._progress.lock:
            self._progress.under_way += 1
        self._jobs.put(tile)

    def announce(self) -> None:
        """Have what is new committed, also if no tile follows."""
        with self._progress.lock:
            self._progress.to_commit.notify()

    def check(self) -> None:
        """Raise what ended the writer, if anything did."""
        if self._progress.failure is not None and (failure := self.failure) is not None:
            raise failure

    def flush(self) -> None:
        """Return once everything accepted is committed.

        Raises
        ------
        StorageError
            ``spooled`` if nothing got done for the deadline, and all that is not committed is in
            the spool: recording goes on. Without a spool ``deadline-passed``, which ends it.
        ArchiveError
            What ended the writer.
        """
        progress = self._progress
        with progress.lock:
            progress.flushing += 1
            progress.to_commit.notify()
            try:
                while not self._idle() and progress.failure is None:
                    if not self._gets_on():
                        if self._overflow is not None and self._all_kept():
                            raise self._overflow.spooled()
                        message = f"nothing was stored or committed for {self._deadline_s:g} s"
                        progress.end(StorageError(ErrorKind.DEADLINE_PASSED, message))
            finally:
                progress.flushing -= 1
        self.check()

    def close(self, error: str = "", *, sealing: bool = False) -> None:
        """Commit what was accepted and end the threads; idempotent. Raises like `flush`.

        Parameters
        ----------
        error
            Why the run is given up, for readers; empty if it is not.
        sealing : bool
            Whether the run is about to be sealed, so that its heartbeat goes on saying
            that it is recorded.
        """
        try:
            if self._commits.is_alive:
                with suppress(ArchiveError):  # told below, with what became of the rest
                    self.flush()
        finally:
            self._stop(error, sealing=sealing)
        self.check()
        if self._overflow is not None and not self._overflow.spool.empty:
            raise self._overflow.spooled()

    def _stop(self, error: str, *, sealing: bool) -> None:
        deadline = time.monotonic() + self._deadline_s
        with self._progress.lock:
            self._progress.stopping = True
            self._progress.to_drain.notify()
        if self._drainer is not None:
            self._drainer.join(max(deadline - time.monotonic(), 0.0))
        for _ in self._workers:
            self._jobs.put(None)
        for thread in self._workers:
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._commits.close(error, max(deadline - time.monotonic(), 0.0), sealing=sealing)

    def _gets_on(self) -> bool:
        """Wait until something gets done; return whether it did within the deadline."""
        progress = self._progress
        before = progress.count
        return progress.done.wait_for(
            lambda: progress.count != before or progress.failure is not None or self._idle(),
            self._deadline_s,
        )

    def _idle(self) -> bool:
        progress = self._progress
        return not (
            progress.under_way
            or progress.placed
            or progress.committing
            or progress.uncommitted
            or self._coordinates.fresh
        ) and (self._overflow is None or self._overflow.spool.empty)

    def _all_kept(self) -> bool:
        """Return whether all that is not committed is in the spool."""
        progress = self._progress
        return not (
            progress.under_way
            or any(part.entry is None for part in progress.placed)
            or self._coordinates.fresh
            or ((progress.committing or progress.uncommitted) and not progress.uncommitted_kept)
        )

    def _store_loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, AcceptedTile):
                self._store(job)
            elif self._drainer is not None:
                self._drainer.drain(job)
            # The values must not be held until the next tile comes.
            del job

    def _store(self, tile: AcceptedTile) -> None:
        progress = self._progress
        part: Placed | None = None
        try:
            if self._is_wanted:
                encoded = self._encoder.encode(tile)
                part = encoded and self._placed(*encoded, tile.cost)
            else:
                tile.snapshot.release()
        except BaseException as error:  # noqa: BLE001  kept for the caller, not handled here
            progress.fail(error)
        self._budget.give(tile.cost - (part.held if part is not None else 0))
        with progress.lock:
            progress.under_way -= 1
            progress.count += 1
            first = not progress.placed
            if part is not None:
                progress.placed.append(part)
            # Not for every tile: a wake-up costs more than a commit of many tiles saves.
            if first or (progress.flushing and not progress.under_way):
                progress.to_commit.notify()
            if progress.flushing:
                progress.done.notify_all()

    @property
    def _is_wanted(self) -> bool:
        """Whether a tile that was accepted still has somewhere to go."""
        failure = self._progress.failure
        return failure is None or (self._overflow is not None and isinstance(failure, NOT_TAKEN))

    def _placed(self, tile: StoredTile, data: bytes, cost: int) -> Placed | None:
        """Put a tile into the store and return it, or keep it in the spool and return None."""
        overflow = self._overflow
        while True:
            try:
                put = self._encoder.put(tile, data)
            except NOT_TAKEN as error:
                if overflow is None:
                    raise
                if not may_pass(error):
                    self._progress.fail(error)
            else:
                if put is None:
                    return None
                if overflow is None:
                    return Placed(put)
                # Held until the commit: it may have to wait in the spool after all.
                return Placed(put, data=data, held=min(len(data), cost))
            try:
                entry = overflow.keep(tile, data)
            except StorageError:
                if self._progress.failure is not None:
                    raise
                time.sleep(_FULL_S)
                continue
            overflow.spool.line(entry)
            with self._progress.lock:
                self._progress.to_drain.notify()
            return None
