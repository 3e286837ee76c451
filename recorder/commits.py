"""The thread that makes stored tiles visible: a few commits a second, and a heartbeat.

A commit that the store does not take is tried again, word for word, because it may have landed.
With a spool, what it says is kept there meanwhile, and so is all that follows it.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from archive_schema.errors import ArchiveError, ConflictError, ErrorKind, StorageError
from recorder.overflow import NOT_TAKEN
from recorder.patience import may_pass
from recorder.progress import Placed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from archive_schema.models import Commit
    from recorder.budget import ByteBudget
    from recorder.committer import Committer
    from recorder.coordinates import Coordinates
    from recorder.encoder import StoredTile, TileEncoder
    from recorder.overflow import Overflow
    from recorder.progress import Progress

HEARTBEAT_S: Final = 5.0
_DECLARING_S: Final = 0.05
"""How soon tiles that wait for the declaration of another field are looked at again."""


@dataclass(slots=True)
class _Attempt:
    """A commit that the store has not taken yet."""

    commit: Commit
    parts: list[Placed]

    @property
    def tiles(self) -> list[StoredTile]:
        return [part.tile for part in self.parts if part.tile is not None]


class CommitThread:
    """Commits what `Progress.placed` holds, at most once in an interval, until it is closed.

    Parameters
    ----------
    commit_interval_s : float, seconds
        How long the first tile of a commit waits for others, but for a flush.
    """

    def __init__(
        self,
        progress: Progress,
        encoder: TileEncoder,
        committer: Committer,
        coordinates: Coordinates,
        *,
        budget: ByteBudget,
        overflow: Overflow | None,
        all_declared: Callable[[], bool],
        commit_interval_s: float,
    ) -> None:
        self._progress = progress
        self._encoder = encoder
        self._committer = committer
        self._coordinates = coordinates
        self._budget = budget
        self._overflow = overflow
        self._all_declared = all_declared
        self._commit_interval_s = commit_interval_s
        self._attempt: _Attempt | None = None
        self._rest: list[Placed] = []
        """What follows the attempt."""
        self._given_up = False
        """Whether nothing can be committed any more."""
        self._told_failure = False
        self._end_error = ""
        self._sealing = False
        self._next_beat = time.monotonic() + HEARTBEAT_S
        self._due: float | None = None
        """When what waits is committed, by the monotonic clock; None while nothing waits."""
        # A daemon: `close` waits for it, and a store that hangs must not keep the
        # interpreter, and with it the machine, from ending.
        self._thread = threading.Thread(target=self._loop, name="trace-commit", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, error: str, timeout_s: float, *, sealing: bool) -> None:
        """Commit once more, tell readers how it ended, and end the thread.

        Parameters
        ----------
        sealing : bool
            Whether the run is about to be sealed: it does not look left by its writers meanwhile.
        """
        with self._progress.lock:
            self._end_error = error
            self._sealing = sealing
            self._progress.closing = True
            self._progress.to_commit.notify()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        progress = self._progress
        closing = False
        while not closing:
            with progress.lock:
                self._await_work()
                closing = progress.closing
                self._take_over()
                progress.committing = True
                progress.uncommitted_kept = self._is_kept
            try:
                self._commit()
            except BaseException as error:  # noqa: BLE001  kept for the caller, not handled here
                self._given_up = True
                progress.fail(error)
            with progress.lock:
                progress.committing = False
                progress.uncommitted = self._attempt is not None or bool(self._rest)
                progress.uncommitted_kept = self._is_kept
                progress.done.notify_all()
            self._tell()
        if not self._told_failure:
            self._tell_end()

    def _await_work(self) -> None:
        """Wait until there is something to do; the lock is held."""
        progress = self._progress
        limit = None if self._told_failure else self._next_beat
        if self._attempt is not None and self._overflow is not None and not self._given_up:
            retry = time.monotonic() + self._overflow.pause_s
            limit = retry if limit is None else min(limit, retry)
        undeclared = bool(progress.placed) and not self._wants_commit()
        if undeclared:
            soon = time.monotonic() + _DECLARING_S
            limit = soon if limit is None else min(limit, soon)
        progress.to_commit.wait_for(
            lambda: (
                self._wants_commit()
                or (bool(progress.placed) and not undeclared)  # look again, soon
                or progress.closing
                or (progress.failure is not None and not self._told_failure)
            ),
            None if limit is None else max(limit - time.monotonic(), 0.0),
        )
        if self._wants_commit():
            # What comes meanwhile shares the commit. A long wait is no reason to look dead.
            if self._due is None:
                self._due = time.monotonic() + self._commit_interval_s
            limit = self._due if self._told_failure else min(self._due, self._next_beat)
            progress.to_commit.wait_for(self._in_haste, max(limit - time.monotonic(), 0.0))

    def _wants_commit(self) -> bool:
        if self._given_up and self._overflow is None:
            return False
        if not (self._progress.placed or self._coordinates.fresh):
            return False
        return (self._overflow is not None and self._overflow.away) or self._all_declared()

    def _is_due(self) -> bool:
        return self._due is None or time.monotonic() >= self._due or self._in_haste()

    def _in_haste(self) -> bool:
        progress = self._progress
        return progress.closing or bool(
            (progress.flushing and not progress.under_way) or self._budget.wanted
        )

    def _take_over(self) -> None:
        """Take what is to be committed; the lock is held."""
        progress = self._progress
        wanted = self._wants_commit() and self._is_due()
        if not (wanted or self._given_up or progress.closing):
            return
        self._due = None
        if self._overflow is None and not self._all_declared():
            # A field could not be declared: a step that lacks it must not look recorded.
            progress.placed = []
        self._rest += progress.placed
        progress.placed = []
        steps, samples = self._coordinates.take()
        if steps or samples:
            self._rest.append(Placed(steps=steps, samples=samples))

    @property
    def _is_kept(self) -> bool:
        """Whether the spool has all that is not committed."""
        waiting = (*(self._attempt.parts if self._attempt else ()), *self._rest)
        return all(part.entry for part in waiting)

    def _commit(self) -> None:
        if self._given_up:
            self._spare()
            return
        if self._attempt is None and self._rest:
            rest, self._rest = self._rest, []
            self._attempt = _Attempt(
                self._committer.next(
                    [part.tile for part in rest if part.tile is not None],
                    # Each tile that comes from the spool brings what is known of its step.
                    tuple(dict.fromkeys(column for part in rest for column in part.steps)),
                    tuple(dict.fromkeys(column for part in rest for column in part.samples)),
                ),
                rest,
            )
        if self._attempt is not None and not (self._overflow and self._overflow.pause_s):
            self._try(self._attempt)
        if self._overflow is not None and self._overflow.away:
            self._spare()

    def _try(self, attempt: _Attempt) -> None:
        try:
            with self._probe():
                self._committer.put(attempt.commit, attempt.tiles)
        except NOT_TAKEN as error:
            if self._overflow is None:
                raise
            if not may_pass(error):
                self._given_up = True
                self._progress.fail(error)
            self._spare()
            return
        self._attempt = None
        self._encoder.committed(attempt.tiles)
        for part in attempt.parts:
            self._budget.give(part.held)
            if part.entry is not None and self._overflow is not None:
                self._overflow.committed(part.entry, part.tile)
        with self._progress.lock:
            self._progress.count += 1

    def _probe(self) -> AbstractContextManager[None]:
        return nullcontext() if self._overflow is None else self._overflow.probe()

    def _spare(self) -> None:
        """Have the spool keep what the store does not take, as far as there is room."""
        if self._overflow is None:
            self._rest.clear()
            return
        with suppress(StorageError):
            if self._attempt is not None:
                parts = self._attempt.parts
                for at, part in enumerate(parts):
                    parts[at] = self._kept(part)
            while self._rest:
                entry = self._kept(self._rest[0]).entry
                assert entry is not None, "what is kept has a file"  # noqa: S101
                del self._rest[0]
                # To be put again: its object is there already then.
                self._overflow.spool.line(entry)
                with self._progress.lock:
                    self._progress.to_drain.notify()

    def _kept(self, part: Placed) -> Placed:
        if part.entry is not None or self._overflow is None:
            return part
        if part.tile is None:
            entry = self._overflow.keep_coordinates(part.steps, part.samples)
        else:
            entry = self._overflow.keep(part.tile, part.data)
        self._budget.give(part.held)
        return replace(part, entry=entry, data=b"", held=0)

    def _tell(self) -> None:
        """Let readers know that this writer is there, or that it failed."""
        failure = self._progress.failure
        if failure is not None:
            if not self._told_failure:
                self._told_failure = True
                self._tell_failure(failure)
        elif time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_S
            try:
                self._committer.beat()
            except ArchiveError as error:
                # A store that is away is no failure of a recorder that has a spool.
                if self._overflow is None or not isinstance(error, NOT_TAKEN):
                    self._progress.fail(error)

    def _tell_failure(self, cause: BaseException) -> None:
        # A writer that was replaced has no word in the run any more.
        if not (isinstance(cause, ArchiveError) and cause.kind is ErrorKind.WRITER_REPLACED):
            reason = str(cause) or type(cause).__name__
            with suppress(ArchiveError):
                self._committer.beat("failed", "; ".join((reason, *self._left())))

    def _tell_end(self) -> None:
        reason = "; ".join((*filter(None, [self._end_error]), *self._left()))
        try:
            try:
                self._committer.check_undisputed()
            except ConflictError as error:
                reason = str(error)
                self._progress.fail(error)
            end: Literal["failed", "closed"] = "failed" if reason else "closed"
            self._committer.end(end, reason)
            if reason or not self._sealing:
                self._committer.beat(end, reason)
        except ArchiveError as error:
            if self._overflow is None or not isinstance(error, NOT_TAKEN):
                self._progress.fail(error)

    def _left(self) -> list[str]:
        """Return what is not in the archive, for readers."""
        if self._overflow is None or self._overflow.spool.empty:
            return []
        return [
            f"{self._overflow.spool.tiles} tiles are in the spool of host {socket.gethostname()}"
        ]
