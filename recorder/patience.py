"""A store that is asked again when it does not answer.

Clients of object stores repeat what is idempotent by HTTP's rules, and a conditional put is
not. By ours it is: every key that is created says what it holds, so that the same bytes may be
sent again, and whoever finds its own bytes there has succeeded.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

from archive_schema.errors import ConflictError, ErrorKind, NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from archive_schema.store import Store, StoredObject

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0

_T = TypeVar("_T")


class PatientStore:
    """Asks *store* again while it cannot be reached, for at most *deadline_s* seconds a call."""

    def __init__(self, store: Store, deadline_s: float) -> None:
        self.url = store.url
        self._store = store
        self._deadline_s = deadline_s

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        return self._patiently(lambda: self._store.read(key))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        return self._patiently(lambda: self._store.read_range(key, start, stop))

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        return self._patiently(lambda: self._store.size(key))

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there."""
        self._patiently(lambda: self._store.write(key, data))

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

        self._patiently(attempt)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._patiently(lambda: self._store.delete(key))

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

    def _patiently(self, call: Callable[[], _T]) -> _T:
        deadline = time.monotonic() + self._deadline_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except StorageError as error:
                hopeless = error.kind is not ErrorKind.STORE_UNREACHABLE
                if hopeless or time.monotonic() + pause_s > deadline:
                    raise
            # Many ranks that wait for one store must not all come back at once.
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
