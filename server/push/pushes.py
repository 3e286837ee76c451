"""Every run that this process has open for values over HTTP: opened at the first, closed when idle.

A process has one writer name of its own. When a session is over, since the store did not answer
or somebody else took over, the next request opens the run again under that name, which fences
the session before it and reads what is really there. What a process that died had open is
fenced when the run is sealed; whatever it acknowledged was committed.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ArchiveError, ErrorKind, NotFoundError, StorageError
from archive_schema.layout import manifest_key
from archive_schema.records import read_manifest
from archive_schema.store import LocalStore
from recorder.patience import PatientStore
from server.push.commits import SessionOverError
from server.push.session import PushSession

if TYPE_CHECKING:
    from archive_schema.store import Store
    from server.push.additions import Addition

LOG: Final = logging.getLogger("trace_archive.server")
_WRITER: Final = "http-"
_ATTEMPTS: Final = 3
_ROUND_S: Final = 0.5
_CLOSE_S: Final = 5.0


def is_push_writer(name: str) -> bool:
    """Return whether the writer *name* is a service that takes values over HTTP.

    It does not keep a run from being sealed: it has committed whatever it has acknowledged.
    """
    return name.startswith(_WRITER)


@dataclass(slots=True)
class _Place:
    """Where the session of one run is, if there is one."""

    opening: threading.Lock = field(default_factory=threading.Lock)
    """Held while a session is opened or closed, so that there is one at a time."""
    session: PushSession | None = None


class Pushes:
    """The open sessions.

    Parameters
    ----------
    durable : bool
        Whether what is acknowledged must survive a power cut.
    patience_s : float, seconds
        How long a request waits for a store that does not answer.
    idle_s : float, seconds
        A session without a request for so long is closed.
    """

    def __init__(self, store: Store, *, durable: bool, patience_s: float, idle_s: float) -> None:
        self._store, self._patient = store, None
        if not isinstance(store, LocalStore):  # a folder answers, if with an error
            self._store = self._patient = PatientStore(store, patience_s)
            # An outage costs the patience of one request: the others are told at once.
            self._patient.fails_fast = True
        self._durable = durable
        self._idle_s = idle_s
        self.writer = _writer_name()
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        """Held while a place is looked up."""
        self._ending = threading.Event()
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Begin to close what is idle, until `stop`."""
        self._ending.clear()
        self._keeper = threading.Thread(target=self._keep, name="trace-push", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """Close all sessions, or leave them to be fenced if the store does not answer."""
        self._ending.set()
        # A store that hangs must not keep the service from ending: what is acknowledged is safe.
        closing = [
            threading.Thread(target=self._close_quietly, args=(run_id,), daemon=True)
            for run_id in list(self._places)
        ]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + _CLOSE_S
        for thread in closing:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def has_open(self, run_id: str) -> bool:
        """Return whether the run is open for values, without asking the store."""
        place = self._places.get(run_id)
        session = None if place is None else place.session
        return session is not None and not session.over

    def open(self, run_id: str) -> None:
        """Open a run for values, if it is not.

        Raises
        ------
        NotFoundError
            ``run-not-found``.
        ConflictError
            ``run-sealed``.
        StorageError
            If the store did not answer.
        """
        self._session(run_id)

    def put(self, run_id: str, call: Addition) -> bool:
        """Record what a request brought, and return once it is committed; any thread may call it.

        Returns
        -------
        bool
            Whether anything of it is new.

        Raises
        ------
        NotFoundError
            ``run-not-found``.
        InvalidInputError, ConflictError
            As `TraceRecorder.record`; ``run-sealed``.
        StorageError
            If the store did not answer: it may be recorded or not, and can be sent again.
        """
        for _ in range(_ATTEMPTS):
            with suppress(SessionOverError):
                return self._session(run_id).put(call)
        message = f"run {run_id!r} is taken over again and again; send the request again later"
        raise StorageError(ErrorKind.STORE_BUSY, message)

    def close(self, run_id: str) -> None:
        """End this process's session of a run, if there is one: before it is sealed or removed."""
        place = self._places.get(run_id)
        if place is None:
            return
        with place.opening:
            session, place.session = place.session, None
            if session is not None:
                session.close(_CLOSE_S)

    def _session(self, run_id: str) -> PushSession:
        with self._lock:
            place = self._places.setdefault(run_id, _Place())
        with place.opening:
            if place.session is None or place.session.over:
                place.session = None
                manifest = read_manifest(self._store, run_id)
                place.session = PushSession(
                    self._store, manifest, self.writer, durable=self._durable
                )
            return place.session

    def _keep(self) -> None:
        """Tell which runs are recorded, close those that are idle, ask for a store that is away."""
        while not self._ending.wait(min(_ROUND_S, self._idle_s)):
            if self._patient is not None and self._patient.away and not self._patient.pause_s:
                _probe(self._patient)
            for run_id, place in list(self._places.items()):
                session = place.session
                if session is None or session.over:
                    continue
                try:
                    if session.idle_s >= self._idle_s:
                        self.close(run_id)
                    else:
                        session.beat()
                except ArchiveError as error:
                    LOG.warning("run %s: %s (%s)", run_id, error, error.kind)

    def _close_quietly(self, run_id: str) -> None:
        try:
            self.close(run_id)
        except ArchiveError as error:
            LOG.warning("run %s: %s (%s)", run_id, error, error.kind)


def _probe(store: PatientStore) -> None:
    """Find out whether the store answers again: also that there is no such run is an answer."""
    with suppress(StorageError), store.probe(), suppress(NotFoundError):
        store.size(manifest_key("probe"))


def _writer_name() -> str:
    host = re.sub("[^A-Za-z0-9]+", "-", socket.gethostname())[:40].strip("-")
    return f"{_WRITER}{host or 'host'}-{secrets.token_hex(4)}"
