"""A bucket, or memory, as a store, carried by obstore."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from archive_schema.errors import ErrorKind, StorageError
from archive_schema.store.interface import StoredObject, exists, not_found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from obstore.store import ObjectStore


class ObjectsStore:
    """Objects below the prefix of a bucket, or in memory."""

    def __init__(self, url: str, store: ObjectStore) -> None:
        self.url = url
        self._store: Any = store

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with self._explained(key):
            return bytes(obstore.get(self._store, key).bytes())

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        with self._explained(key):
            return bytes(obstore.get_range(self._store, key, start=start, end=stop))

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        with self._explained(key):
            return int(obstore.head(self._store, key)["size"])

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there."""
        with self._explained(key):
            obstore.put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object."""
        with self._explained(key):
            obstore.put(self._store, key, data, mode="create", use_multipart=False)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._explained(key):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                return

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""
        with self._explained(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*."""
        with self._explained(prefix):
            for page in obstore.list(self._store, prefix):
                for meta in page:
                    modified_s = meta["last_modified"].timestamp()
                    yield StoredObject(str(meta["path"]), int(meta["size"]), modified_s)

    def sync(self, keys: Iterable[str]) -> None:
        """Do nothing: an object store answers a put when it is durable."""

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise not_found(key, self.url) from error
        except AlreadyExistsError as error:
            raise exists(key, self.url) from error
        except (BaseError, OSError) as error:
            message = f"{self.url}: {error} ({key})"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error
