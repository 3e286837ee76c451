"""The list of runs, kept up with the store without reading it all.

A store can list names and nothing else, so what the list shows of a run is read from its
records and kept in a table. A *pass* brings the table up to date:

1. One listing of folder names tells which runs are new and which are gone, and one of
   annotations of which runs somebody said something since.
2. New runs, and runs that were not sealed when they were last looked at, are read for a
   bounded time. A sealed run is read again only for new annotations.

Passes run in one background thread, only while somebody asks or runs are still to be read, and
take a small part of the time: a small folder is looked at for nearly every request, a large
bucket every few seconds. Who asks waits a moment for the pass; in a store so large that it
takes longer, the page shows what the table holds and tells how many runs are pending.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from archive_schema.annotations import annotated_runs, read_annotations
from archive_schema.errors import ArchiveError, ErrorKind, NotFoundError, StorageError
from archive_schema.models import RunStatus
from server.catalogue.table import RunTable
from server.documents import run_summary

if TYPE_CHECKING:
    from concurrent.futures import Future

    from archive_schema.annotations import Annotations
    from archive_schema.wire import RunPage, RunSummary
    from server.catalogue.filter import RunFilter
    from server.query import Archive, RunView

LOG: Final = logging.getLogger("trace_archive.catalogue")
SHARE: Final = 0.04
"""The part of the time that passes may take, once all runs are read."""
LONGEST_PAUSE_S: Final = 5.0
"""Between one pass and the next."""
PATIENCE_S: Final = 0.025
"""How long a page waits for the pass before it."""
FIRST_PATIENCE_S: Final = 20.0
"""How long a page waits for the first listing of all."""
READING_S: Final = 0.2
"""How long new runs are read before the store is listed again."""
WATCHING_S: Final = 0.1
"""How long one pass looks at runs that may have changed."""
MOST_KEPT: Final = 512
"""Unsealed runs whose records stay in memory between looks."""


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
        self._listed = False
        self._failure: str | None = None
        """Why the store could not be listed the last time."""
        self._found: list[str] = []
        self._annotated: dict[str, float] = {}
        """Runs of which somebody said something, and when."""
        self._new: list[str] = []
        # Runs that are not sealed, with what was seen of them. Both are queues: who was looked
        # at goes to the end. Runs that are being recorded go before those left by their writers.
        self._growing: dict[str, object] = {}
        self._left: dict[str, object] = {}
        for run_id, status in self._statuses.items():
            if status is not RunStatus.SEALED:
                (self._growing if status is RunStatus.RECORDING else self._left)[run_id] = None
        self._passed_s = float("-inf")
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
        # Before the first listing there is nothing to show, and to show it would be wrong.
        try:
            self.nudge().result(timeout=patience_s if self._listed else FIRST_PATIENCE_S)
        except FutureTimeoutError:
            if self._failure is not None or not self._listed:
                message = self._failure or "the store has not been listed yet"
                raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from None
        return self._table.page(asked, pending=self.pending)

    def catch_up(self) -> None:
        """Return once every run that the store lists now is in the table."""
        self._list()
        self._read_new(float("inf"))
        self._watch(float("inf"))

    def nudge(self) -> Future[None]:
        """Begin a pass unless one is under way or the last was just now; return the latest."""
        with self._lock:
            now_s = time.monotonic()
            if self._pass is None or (
                self._pass.done() and now_s - self._passed_s >= self._pause_s
            ):
                self._pass = self._pool.submit(self._make_pass)
            return self._pass

    def _make_pass(self) -> None:
        while True:
            began_s = time.monotonic()
            self._list()
            self._watch(time.monotonic() + WATCHING_S)
            self._passed_s = time.monotonic()
            self._pause_s = min((self._passed_s - began_s) / SHARE, LONGEST_PAUSE_S)
            if not self._new or self._closed:
                return
            self._read_new(time.monotonic() + READING_S)

    def _list(self) -> None:
        try:
            found = self._archive.run_ids()
            annotated = annotated_runs(self._archive.store)
        except StorageError as error:
            self._failure = str(error)
            raise
        self._failure, self._listed = None, True
        news = {run_id for run_id, _ in annotated.items() ^ self._annotated.items()}
        self._annotated = annotated
        if found == self._found and not news:
            return
        self._found = found
        known = self._statuses.keys() | self._left.keys()
        gone = known - set(found)
        if gone:
            self._table.remove(gone)
        for run_id in gone:
            for kept in (self._statuses, self._growing, self._left):
                kept.pop(run_id, None)
        for run_id in news:
            for kept in (self._growing, self._left):
                if run_id in kept:
                    kept[run_id] = None  # so that its row is written anew
        news |= set(self._new)
        self._new = [name for name in found if name not in known or name in news]

    def _read_new(self, until_s: float) -> None:
        rows = []
        while self._new and not self._closed and time.monotonic() < until_s:
            rows += self._look(self._new[-1])
            self._new.pop()
        self._put(rows)

    def _watch(self, until_s: float) -> None:
        """Look at runs that are being recorded, then at others that were not sealed."""
        rows = []
        for run_id in [*self._growing, *islice(self._left, MOST_KEPT)]:
            if time.monotonic() > until_s or self._closed:
                break
            rows += self._look(run_id)
        self._put(rows)

    def _put(self, rows: list[RunSummary]) -> None:
        if rows:
            self._table.put(rows)
            self._statuses.update((row.id, row.status) for row in rows)

    def _annotations(self, view: RunView) -> Annotations | None:
        if view.manifest.id not in self._annotated:
            return None
        return read_annotations(self._archive.store, view.manifest)

    def _look(self, run_id: str) -> list[RunSummary]:
        """Return the row of a run, none if nothing is new, and queue it to look again."""
        first = run_id not in self._statuses
        seen = self._growing.pop(run_id, None) or self._left.pop(run_id, None)
        try:
            view = self._archive.run(run_id)
            status, found = view.status, (view.version, view.status)
            row = None if found == seen else run_summary(view, self._annotations(view))
        except ArchiveError as error:
            # A folder without a run is one that is being made, or removed.
            if seen != error.kind and not isinstance(error, NotFoundError):
                LOG.warning("run %s is left out of the list: %s (%s)", run_id, error, error.kind)
            self._left[run_id] = error.kind
            return []
        if status is not RunStatus.SEALED:
            (self._growing if status is RunStatus.RECORDING else self._left)[run_id] = found
        # What is read for its row alone would take memory from runs that somebody reads.
        if (status is RunStatus.SEALED and first) or len(self._left) > MOST_KEPT:
            self._archive.forget(run_id)
        return [] if row is None else [row]
