"""A store on which everything can be tried, and nothing happens.

What is written is kept in memory, what is deleted is hidden, and the store beneath is only read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from archive_schema.errors import NotFoundError
from archive_schema.store.interface import StoredObject, exists, not_found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from archive_schema.store import Store


class RehearsalStore:
    """What *store* would hold."""

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.beneath = store
        self._changed: dict[str, tuple[bytes | None, float]] = {}
        """Content, None for what was deleted, and when."""

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        if key not in self._changed:
            return self.beneath.read(key)
        data, _ = self._changed[key]
        if data is None:
            raise not_found(key, self.url)
        return data

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        if key not in self._changed:
            return self.beneath.read_range(key, start, stop)
        return self.read(key)[start:stop]

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        return len(self.read(key)) if key in self._changed else self.beneath.size(key)

    def write(self, key: str, data: bytes) -> None:
        """Keep *data* in memory."""
        self._changed[key] = (data, time.time())

    def create(self, key: str, data: bytes) -> None:
        """Keep *data* in memory if there is no such object."""
        if self._has(key):
            raise exists(key, self.url)
        self.write(key, data)

    def delete(self, key: str) -> None:
        """Hide an object."""
        self._changed[key] = (None, 0.0)

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""
        inside = (one.key.removeprefix(f"{prefix}/") for one in self.objects(prefix))
        return sorted({name.partition("/")[0] for name in inside if "/" in name})

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*."""
        for one in self.beneath.objects(prefix):
            if one.key not in self._changed:
                yield one
        for key, (data, modified_s) in list(self._changed.items()):
            if data is not None and key.startswith(f"{prefix}/"):
                yield StoredObject(key, len(data), modified_s)

    def sync(self, keys: Iterable[str]) -> None:
        """Do nothing."""

    def _has(self, key: str) -> bool:
        if key in self._changed:
            return self._changed[key][0] is not None
        try:
            self.beneath.size(key)
        except NotFoundError:
            return False
        return True
