"""The runs of a store, kept in memory as far as they are known and looked after as they grow."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Self

from archive_schema.errors import ErrorKind, FormatError, NotFoundError
from archive_schema.layout import generation_key
from archive_schema.models import check_run_id
from archive_schema.openings import latest_openings, openings
from archive_schema.records import RunRecords, read_manifest, run_ids
from server.query.fetch import AHEAD_NBYTES, BlockReader
from server.query.run import RunView

if TYPE_CHECKING:
    from archive_schema.models import RunStatus
    from archive_schema.openings import Opening
    from archive_schema.store import Store

CACHE_NBYTES: Final = 256 << 20
MOST_RUNS: Final = 256
"""Runs whose records are kept in memory."""
CONFIRM_S: Final = 1.0
"""How long a sealed run is believed to be there still, and to be the same."""
REFRESH_S: Final = 0.25
"""How long a growing run's records are believed, where looking costs a round trip."""
STATUS_S: Final = 1.0
"""How long a heartbeat is believed."""


class Archive:
    """Read-side questions over one store, from any number of threads.

    Parameters
    ----------
    cache_bytes : int
        Of decoded blocks kept in memory.
    reads_in_flight, gap_bytes, ahead_bytes : int, optional
        How a remote store is read, as of `BlockReader`; by default as the store needs it.
    refresh_s : float, optional
        How long the records of a growing run are believed; by default 0 where looking costs
        some system calls, and `REFRESH_S` where it costs round trips.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache_bytes: int = CACHE_NBYTES,
        reads_in_flight: int | None = None,
        gap_bytes: int | None = None,
        ahead_bytes: int = AHEAD_NBYTES,
        refresh_s: float | None = None,
    ) -> None:
        self.store = store
        self.reader = BlockReader(
            store,
            cache_bytes,
            reads_in_flight=reads_in_flight,
            gap_bytes=gap_bytes,
            ahead_bytes=ahead_bytes,
        )
        default_s = REFRESH_S if self.reader.remote else 0.0
        self.refresh_s = default_s if refresh_s is None else refresh_s
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads that read from a remote store."""
        self.reader.close()

    def run_ids(self) -> list[str]:
        """Return the ids of all runs, sorted. This lists the store."""
        return run_ids(self.store)

    def run(self, run_id: str) -> RunView:
        """Return a run with everything that was committed before this call.

        What was committed within the last ``refresh_s`` may be missing.

        Raises
        ------
        NotFoundError
            ``run-not-found``.
        FormatError
            If what is stored of the run is no record of this version.
        """
        with self._lock:
            run = self._runs.get(run_id)
            if run is None:
                run = self._runs[run_id] = _Run(self, check_run_id(run_id))
            self._runs.move_to_end(run_id)
            if len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
        try:
            return run.view()
        except NotFoundError:
            self.forget(run_id)
            raise

    def known(self, run_id: str) -> RunView | None:
        """Return a run as `run` would, if that needs nothing of the store; else None."""
        run = self._runs.get(run_id)
        return None if run is None else run.known()

    def forget(self, run_id: str) -> None:
        """Read everything about a run anew when it is next asked for."""
        with self._lock:
            self._runs.pop(run_id, None)

    def confirm(self, view: RunView) -> None:
        """Check that the run of *view* is still there.

        Raises
        ------
        NotFoundError
            ``run-not-found`` if it was removed, also if another took its place.
        """
        run_id = view.manifest.id
        try:
            uid = read_manifest(self.store, run_id).uid
        except NotFoundError:
            self.forget(run_id)
            raise
        if uid != view.manifest.uid:
            self.forget(run_id)
            message = f"run {run_id!r} was removed, and another has its id now"
            raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message)

    def renewed(self, view: RunView) -> RunView | None:
        """Return the run of *view* if it was rewritten since, else None; errors as `confirm`."""
        self.confirm(view)
        run_id = view.manifest.id
        if not view.sealed or not self._exists(generation_key(run_id, view.generation + 1)):
            return None
        self.forget(run_id)
        return self.run(run_id)

    def _exists(self, key: str) -> bool:
        try:
            self.store.size(key)
        except NotFoundError:
            return False
        return True


class _Run:
    """What is known of one run, and when it was last looked at. Times by `time.monotonic`."""

    def __init__(self, archive: Archive, run_id: str) -> None:
        self._archive = archive
        self._run_id = run_id
        self._lock = threading.RLock()
        self._records: RunRecords | None = None
        self._view: RunView | None = None
        self._looked_s = 0.0
        self._status: RunStatus | None = None
        self._status_s = 0.0
        self._writers: list[Opening] | None = None
        self._writers_s = 0.0

    def view(self) -> RunView:
        """Return the run as it is now; the same object as long as nothing was committed."""
        view = self._view
        # Whoever reads a sealed run need not wait while another confirms that it is there.
        if not self._lock.acquire(blocking=view is None or not view.sealed) and view is not None:
            return view
        try:
            if self._look() or self._view is None:
                self._view = RunView(
                    self._archive, self._load(), self.status, self.writers, self._lock
                )
            return self._view
        finally:
            self._lock.release()

    def known(self) -> RunView | None:
        """Return the run as it was seen lately; None if it is time to look again."""
        view = self._view
        return view if view is not None and self._is_fresh(view.sealed) else None

    def status(self) -> RunStatus:
        """Return what the writers' last words say."""
        with self._lock:
            now_s = time.monotonic()
            if self._status is None or now_s - self._status_s > STATUS_S:
                self._status = self._load().status()
                self._status_s = now_s
            return self._status

    def writers(self) -> list[Opening]:
        """Return the latest opening of each writer."""
        with self._lock:
            now_s = time.monotonic()
            if self._writers is None or now_s - self._writers_s > STATUS_S:
                self._writers = _writers(self._load())
                self._writers_s = now_s
            return self._writers

    def _look(self) -> bool:
        """Bring the records up to date; return whether there is anything new."""
        records, now_s = self._load(), time.monotonic()
        if self._view is None or self._is_fresh(records.seal is not None):
            return False
        records.begin_refresh()
        if read_manifest(self._archive.store, self._run_id).uid != records.manifest.uid:
            self._records = None
            self._load()
            changed = True
        else:
            changed = records.refresh()
        self._looked_s = now_s
        return changed

    def _is_fresh(self, sealed: bool) -> bool:  # noqa: FBT001  of two kinds of runs
        patience_s = CONFIRM_S if sealed else self._archive.refresh_s
        return time.monotonic() - self._looked_s < patience_s

    def _load(self) -> RunRecords:
        if self._records is None:
            self._looked_s = time.monotonic()
            self._records = RunRecords(self._archive.store, self._run_id)
        return self._records


def _writers(records: RunRecords) -> list[Opening]:
    try:
        heartbeats = records.heartbeats()
        return latest_openings(openings(records, heartbeats, records.ages_s(heartbeats)))
    except FormatError:  # verify tells of it; what is recorded can be read all the same
        return []
