"""Objects and listings of a store, several of them on their way at once where each takes long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final

from archive_schema.documents import read_bytes
from archive_schema.errors import NotFoundError
from archive_schema.store.interface import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from archive_schema.store import Store

_IN_FLIGHT: Final = 64
"""Requests at once where each takes a round trip, of all runs together."""


class Asked:
    """A store that can be asked for something before it is needed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._remote = is_remote(store)
        self._objects: dict[str, Future[bytes | None]] = {}
        self._folders: dict[str, Future[list[str]]] = {}

    def begin(self, keys: Iterable[str], prefixes: Iterable[str] = ()) -> None:
        """Ask a remote store for all of these at once; a near one is asked when each is needed."""
        if self._remote:
            submit = _threads().submit
            self._objects = {key: submit(self._read, key) for key in keys}
            self._folders = {one: submit(self._store.folders, one) for one in prefixes}

    def forget(self) -> None:
        """Believe no answer any more that was begun and not needed."""
        self._objects, self._folders = {}, {}

    def object(self, key: str) -> bytes | None:
        """Return what lies at *key*, None if nothing does."""
        begun = self._objects.pop(key, None)
        return self._read(key) if begun is None else begun.result()

    def objects(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return what lies at *keys*, None where nothing does."""
        if len(keys) > 1 and self._remote:
            return list(_threads().map(self.object, keys))
        return [self.object(key) for key in keys]

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""
        begun = self._folders.pop(prefix, None)
        return self._store.folders(prefix) if begun is None else begun.result()

    def listings(self, prefixes: Sequence[str]) -> list[list[str]]:
        """Return the names of the folders directly below each of *prefixes*."""
        if len(prefixes) > 1 and self._remote:
            return list(_threads().map(self.folders, prefixes))
        return [self.folders(prefix) for prefix in prefixes]

    def _read(self, key: str) -> bytes | None:
        try:
            return read_bytes(self._store, key)
        except NotFoundError:
            return None


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads of this process that ask; they start at the first use."""
    return ThreadPoolExecutor(_IN_FLIGHT, "trace-records")
