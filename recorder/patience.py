"""A store that is asked again when it does not answer, for so long and no longer.

Clients of object stores repeat what is idempotent by HTTP's rules, and a conditional put is
not. By ours it is: every key that is created says what it holds, so that the same bytes may be
sent again, and whoever finds its own bytes there has succeeded.

Whoever has somewhere else to go (`recorder.spool`) lets the store *fail fast*: after one call
that ran out of patience the store is *away*, and no other call waits until a `probe` got
through. So an outage costs the patience of one call, not of every tile.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    NotFoundError,
    StorageError,
)
from recorder.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from archive_schema.store import Store, StoredObject

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_FIRST_REST_S: Final = 0.25
_LONGEST_ASKED_FOR_S: Final = 60.0
_LEAST_RATE: Final = 1_000_000
"""Bytes a second below which a large object is taken for stuck."""
_GLANCE_S: Final = 0.1
"""How soon a call that waits notices that the store is away."""
_MOST_CALLS: Final = 64

_WORTH_ASKING_AGAIN: Final = frozenset(
    {ErrorKind.STORE_UNREACHABLE, ErrorKind.STORE_BUSY, ErrorKind.BODY_DAMAGED}
)
_PASSING: Final = _WORTH_ASKING_AGAIN | {ErrorKind.STORE_FULL}

_T = TypeVar("_T")


class PatientStore:
    """Asks *store* again while it cannot be reached, for at most *patience_s* seconds a call.

    A call that moves many bytes has a second more for each megabyte.

    Attributes
    ----------
    patience_s : float, seconds
        How long a call takes at most, and how long the store is left alone while it is away.
    fails_fast : bool
        Whether calls fail at once while the store is away.
    """

    def __init__(self, store: Store, patience_s: float) -> None:
        self.url = store.url
        self.patience_s = patience_s
        self.fails_fast = False
        self._store = store
        self._calls = Calls(_MOST_CALLS)
        self._unfinished: dict[str, Future[Any]] = {}
        """Writes that nobody waits for any more, and that may still land."""
        self._away: StorageError | None = None
        self._pause_s = 0.0
        self._ask_at = 0.0
        self._probing = threading.local()
        self._lock = threading.Lock()

    @property
    def away(self) -> bool:
        """Whether calls fail at once, since one ran out of patience."""
        return self._away is not None

    @property
    def pause_s(self) -> float:
        """Seconds until a `probe` is due; 0 if it is."""
        return max(self._ask_at - time.monotonic(), 0.0) if self._away else 0.0

    @contextmanager
    def probe(self) -> Iterator[None]:
        """Let the calls of this thread through although the store is away.

        The store is back when the block ends without a `StorageError`; otherwise the pause
        before the next probe grows.
        """
        self._probing.on = True
        try:
            yield
        finally:
            self._probing.on = False
        with self._lock:
            self._away = None

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        return self._patiently(lambda: self._store.read(key))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        return self._patiently(lambda: self._store.read_range(key, start, stop), stop - start)

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        return self._patiently(lambda: self._store.size(key))

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there."""
        self._patiently(lambda: self._store.write(key, data), len(data), replaces=key)

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object; these very bytes count as stored by this call.

        Only after a call that was not answered: otherwise somebody else's equal object would
        look like ours.
        """
        unanswered = False

        def attempt() -> None:
            nonlocal unanswered
            try:
                self._store.create(key, data)
            except StorageError:
                unanswered = True
                raise
            except ConflictError:
                if not (unanswered and self._holds(key, data)):
                    raise

        self._patiently(attempt, len(data))

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._patiently(lambda: self._store.delete(key), replaces=key)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""
        return self._patiently(lambda: self._store.folders(prefix))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*."""
        yield from self._patiently(lambda: list(self._store.objects(prefix)))

    def sync(self, keys: Iterable[str]) -> None:
        """Return once the objects survive a power cut."""
        kept = list(keys)
        self._patiently(lambda: self._store.sync(kept))

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self._store.read(key) == data
        except NotFoundError:
            return False

    def _patiently(
        self, call: Callable[[], _T], nbytes: int = 0, *, replaces: str | None = None
    ) -> _T:
        deadline = time.monotonic() + self.patience_s + nbytes / _LEAST_RATE
        pause_s = _FIRST_PAUSE_S
        while True:
            self._check_not_away()
            try:
                return self._in_time(call, deadline, replaces)
            except StorageError as error:
                if error.kind not in _WORTH_ASKING_AGAIN:
                    if may_pass(error):
                        self._begin_outage(error)
                    raise
                # Many ranks that wait for one store must not all come back at once.
                rest_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
                rest_s += _asked_for_s(error)
                if time.monotonic() + rest_s > deadline:
                    self._begin_outage(error)
                    raise
            time.sleep(rest_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _in_time(self, call: Callable[[], _T], deadline: float, replaces: str | None) -> _T:
        older = None if replaces is None else self._unfinished.get(replaces)
        if older is not None:
            # It may still land, and must not land on what replaces it.
            self._await(older, deadline)
        future = self._calls.start(call)
        try:
            self._await(future, deadline)
        except StorageError:
            if not future.cancel() and replaces is not None:
                self._unfinished[replaces] = future
                future.add_done_callback(lambda _: self._unfinished.pop(replaces, None))
            raise
        return future.result()

    def _await(self, future: Future[Any], deadline: float) -> None:
        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            try:
                # Waits, and does not raise what the call did.
                future.exception(min(_GLANCE_S, left_s))
            except TimeoutError:
                self._check_not_away()
            else:
                return
            if left_s <= _GLANCE_S:
                message = f"{self.url} did not answer within {self.patience_s:g} s"
                raise StorageError(ErrorKind.STORE_UNREACHABLE, message)

    def _check_not_away(self) -> None:
        cause = self._away
        if cause is not None and self.fails_fast and not self._is_probing:
            raise StorageError(cause.kind, f"the store is away: {cause}") from cause

    @property
    def _is_probing(self) -> bool:
        return getattr(self._probing, "on", False)

    def _begin_outage(self, error: StorageError) -> None:
        """Note that the store is away, or still is."""
        with self._lock:
            if not self.fails_fast or (self._away is not None and not self._is_probing):
                return
            longer_s = min(2 * self._pause_s, self.patience_s)
            self._pause_s = longer_s if self._away else min(_FIRST_REST_S, self.patience_s)
            self._away = error
            rest_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
            self._ask_at = time.monotonic() + rest_s + _asked_for_s(error)


def may_pass(error: ArchiveError) -> bool:
    """Return whether the same call may succeed in a while, with nobody changing its settings."""
    return error.kind in _PASSING


def _asked_for_s(error: StorageError) -> float:
    return min(error.retry_after_s or 0.0, _LONGEST_ASKED_FOR_S)
