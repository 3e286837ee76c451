"""What the threads behind a recorder share: what is under way, what is done, what ended it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive_schema.errors import ArchiveError, ErrorKind, StorageError

if TYPE_CHECKING:
    from archive_schema.models import SampleColumn, StepColumn
    from recorder.budget import ByteBudget
    from recorder.encoder import StoredTile
    from recorder.spool import Entry


@dataclass(frozen=True, slots=True)
class Placed:
    """What only waits for its commit: a tile whose object is in the store, or coordinates."""

    tile: StoredTile | None = None
    steps: tuple[StepColumn, ...] = ()
    samples: tuple[SampleColumn, ...] = ()
    data: bytes = b""
    """The tile's object, as long as the spool may have to keep it."""
    held: int = 0
    """Bytes of the budget that `data` holds."""
    entry: Entry | None = None
    """The file of the spool that holds it too, until it is committed."""


class Progress:
    """The state of one recorder's background; read and changed with `lock` held."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.lock = threading.Lock()
        self.to_commit = threading.Condition(self.lock)
        """Tells the committer that there is something to commit, or no time to lose."""
        self.to_drain = threading.Condition(self.lock)
        """Tells the drainer that something waits in the spool, or that there is room for more."""
        self.done = threading.Condition(self.lock)
        """Tells who flushes that something was stored, kept or committed."""
        self.under_way = 0
        """Tiles that were accepted, and are neither placed nor in the spool."""
        self.draining = 0
        """Files of the spool that are on their way to the store."""
        self.placed: list[Placed] = []
        self.committing = False
        self.uncommitted = False
        """Whether a commit was not taken yet."""
        self.uncommitted_kept = True
        """Whether all of it is in the spool as well."""
        self.count = 0
        """Rises with everything that gets done."""
        self.flushing = 0
        self.stopping = False
        """Whether nothing should be begun any more, but for a last commit."""
        self.closing = False
        self.failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """End the recording; only the first failure counts."""
        with self.lock:
            self.end(error)

    def end(self, error: BaseException) -> None:
        """Do as `fail`, with the lock held."""
        self.failure = self.failure or error
        self._budget.end()
        for waiting in (self.to_commit, self.to_drain, self.done):
            waiting.notify_all()

    def error(self, remark: str = "") -> ArchiveError | None:
        """Return what ended the recording, if anything did, as an error to be raised."""
        cause = self.failure
        if cause is None:
            return None
        message = f"recording stopped: {str(cause) or type(cause).__name__}{remark}"
        # A new object each time: one raised again and again would gather tracebacks.
        error: ArchiveError
        if isinstance(cause, ArchiveError):
            error = type(cause)(cause.kind, message)
        else:
            error = StorageError(ErrorKind.WRITER_FAILED, message)
        error.__cause__ = cause
        return error
