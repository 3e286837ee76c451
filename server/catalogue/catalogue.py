"""The list of runs, kept up with the store without reading it all.

A store can list names and nothing else, so what the list shows of a run is read from its
records and kept in a table. A *pass* brings the table up to date:

1. One listing of folder names tells which runs are new and which are gone.
2. New runs, and runs that were not sealed when they were last looked at, are read for a
   bounded time. A sealed run does not change and is never read again.

Passes run in one background thread, only while somebody asks or runs are still to be read.
Listing takes at most a twentieth of the time: a folder is listed for nearly every request, a
large bucket once a second. Who asks waits a moment for the pass; in a store so large that it
takes longer, the page shows what the table holds and tells how many runs are pending.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from archive_schema.errors import ArchiveError, NotFoundError
from archive_schema.models import RunStatus
from server.catalogue.table import RunTable
from server.documents import run_summary

if TYPE_CHECKING:
    from concurrent.futures import Future

    from archive_schema.wire import RunPage, RunSummary
    from server.catalogue.filter import RunFilter
    from server.query import Archive

LOG: Final = logging.getLogger("trace_archive.catalogue")
LONGEST_PAUSE_S: Final = 1.0
"""Between one listing and the next."""
LISTING_SHARE: Final = 0.05
"""The part of the time that listing may take."""
PATIENCE_S: Final = 0.025
"""How long a page waits for the pass before it."""
READING_S: Final = 0.2
"""How long one pass reads runs."""
LONGEST_INTERVAL_S: Final = 60.0
"""How rarely a run that was left by its writers, or cannot be read, is looked at."""
_SLOWER: Final = 0.1
"""A run in which nothing happened for so long is looked at again after this part of it."""


class Catalogue:
    """Pages of runs; a context manager, because it holds a thread and a database.

    Parameters
    ----------
    path
        Of the file that keeps the table between starts; None keeps it in memory.
    """

    def __init__(self, archive: Archive, path: str | None = None) -> None:
        self._archive = archive
        self._table = RunTable(path, archive.store.url)
        self._statuses = self._table.statuses()
        self._new: list[str] = []
        self._watched = {
            run_id: _Watch(0.0)
            for run_id, status in self._statuses.items()
            if status is not RunStatus.SEALED
        }
        self._listed_s = float("-inf")
        self._pause_s = 0.0
        self._pool = ThreadPoolExecutor(1, "trace-catalogue")
        self._lock = threading.Lock()
        self._pass: Future[None] | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the pass that is under way, and close the table."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._table.close()

    @property
    def pending(self) -> int:
        """Runs that are known by name and not read yet."""
        return len(self._new)

    def page(self, asked: RunFilter, *, patience_s: float = PATIENCE_S) -> RunPage:
        """Return a page of runs.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` for a cursor that is none.
        StorageError
            ``store-unreachable`` if the store could not be listed.
        """
        with suppress(FutureTimeoutError):
            self.nudge().result(timeout=patience_s)
        return self._table.page(asked, pending=self.pending)

    def catch_up(self) -> None:
        """Return once every run that the store lists now is in the table."""
        self._list()
        self._read(float("inf"))

    def nudge(self) -> Future[None]:
        """Begin a pass unless one is under way or the last was just now; return the latest."""
        with self._lock:
            now_s = time.monotonic()
            if self._pass is None or (
                self._pass.done() and now_s - self._listed_s >= self._pause_s
            ):
                self._pass = self._pool.submit(self._make_pass)
            return self._pass

    def _make_pass(self) -> None:
        self._list()
        self._read(time.monotonic() + READING_S)
        while self._new and not self._closed:
            if time.monotonic() - self._listed_s >= self._pause_s:
                self._list()
            self._read(time.monotonic() + READING_S)

    def _list(self) -> None:
        began_s = time.monotonic()
        found = self._archive.run_ids()
        self._listed_s = time.monotonic()
        self._pause_s = min((self._listed_s - began_s) / LISTING_SHARE, LONGEST_PAUSE_S)
        known = self._statuses
        gone = (known.keys() | self._watched.keys()) - set(found)
        if gone:
            self._table.remove(gone)
        for run_id in gone:
            known.pop(run_id, None)
            self._watched.pop(run_id, None)
        self._new = [name for name in found if name not in known and name not in self._watched]

    def _read(self, until_s: float) -> None:
        """Read new runs for half of the time, then those that may have changed."""
        now_s = time.monotonic()
        rows: list[RunSummary] = []
        while self._new and not self._closed and time.monotonic() < (now_s + until_s) / 2:
            rows += self._look(self._new[-1])
            self._new.pop()
        due = sorted((watch.due_s, run_id) for run_id, watch in self._watched.items())
        for due_s, run_id in due:
            if due_s > now_s or time.monotonic() > until_s or self._closed:
                break
            rows += self._look(run_id)
        if rows:
            self._table.put(rows)
            self._statuses.update((row.id, row.status) for row in rows)

    def _look(self, run_id: str) -> list[RunSummary]:
        """Return the row of a run, none if it cannot be read, and note when to look again."""
        watch = self._watched.pop(run_id, None)
        version, row = None, None
        try:
            view = self._archive.run(run_id)
            version, row = (view.version, view.status), run_summary(view)
        except ArchiveError as error:
            # A folder without a run is one that is being made, or removed.
            if watch is None and not isinstance(error, NotFoundError):
                LOG.warning("run %s is left out of the list: %s (%s)", run_id, error, error.kind)
        if row is not None and row.status is RunStatus.SEALED:
            if watch is None:
                # Read for its row alone: its records would only take memory.
                self._archive.forget(run_id)
            return [row]
        self._watched[run_id] = (watch or _Watch(0.0)).looked(version, self._pause_s)
        return [] if row is None else [row]


class _Watch:
    """When to look at a run that is not sealed: the longer nothing happens, the more rarely."""

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self._version: object = self
        self._changed_s = time.monotonic()

    def looked(self, version: object, pause_s: float) -> Self:
        """Note what was seen; look again in *pause_s* seconds at the earliest."""
        now_s = time.monotonic()
        if version != self._version:
            self._version, self._changed_s = version, now_s
        quiet_s = (now_s - self._changed_s) * _SLOWER
        self.due_s = now_s + min(max(quiet_s, pause_s), LONGEST_INTERVAL_S)
        return self
