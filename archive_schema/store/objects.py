"""A bucket, or memory, as a store, carried by obstore."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    NotFoundError,
    StorageError,
    StoreRefusedError,
)
from archive_schema.store.interface import StoredObject, exists, not_found
from archive_schema.store.refusals import explained, names_no_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from obstore.store import ObjectStore

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0


class ObjectsStore:
    """Objects below the prefix of a bucket, or in memory.

    Parameters
    ----------
    store
        For everything but puts. It repeats what failed, which is safe for all of it.
    putting : callable, optional
        From a number of bytes to the store that puts so many: it has the time that they need,
        and repeats nothing. By default *store*.
    patience_s : float, seconds
        How long a put that failed is tried again.
    endpoint_url : str, optional
        Where it is, for messages.
    """

    def __init__(
        self,
        url: str,
        store: ObjectStore,
        *,
        putting: Callable[[int], ObjectStore] | None = None,
        patience_s: float = 10.0,
        endpoint_url: str | None = None,
    ) -> None:
        self.url = url
        self._where = url if endpoint_url is None else f"{url} at {endpoint_url}"
        self._store: Any = store
        self._putting: Callable[[int], Any] = putting or (lambda _: store)
        self._patience_s = patience_s

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
        for _ in self._attempts():
            try:
                return self._put(key, data, "overwrite")
            except StorageError as error:
                if error.kind is not ErrorKind.STORE_UNREACHABLE:
                    raise
                failure = error
        raise failure

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object.

        A conflict is believed only if the object is there: a store may also report one of two
        puts that met (status 409), of which neither was carried out. And after a put that was
        not answered, an object that is there and equal is that put's.
        """
        failure = StorageError(
            ErrorKind.STORE_UNREACHABLE,
            f"{self.url} refuses to create {key!r} as if it were there, and it is not",
        )
        unanswered = False
        for _ in self._attempts():
            try:
                return self._put(key, data, "create")
            except ConflictError:
                if unanswered:
                    found = self._found(key)
                    if found == data:
                        return None
                    if found is not None:
                        raise
                elif self._is_there(key):
                    raise
            except StorageError as error:
                if error.kind is not ErrorKind.STORE_UNREACHABLE:
                    raise
                failure, unanswered = error, True
        raise failure

    def delete(self, key: str) -> None:
        """Remove an object."""
        try:
            with self._explained(key):
                obstore.delete(self._store, key)
        except NotFoundError:
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

    def _put(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        try:
            with self._explained(key):
                obstore.put(self._putting(len(data)), key, data, mode=mode, use_multipart=False)
        except NotFoundError as error:
            # Nothing is looked for by a put but the place to put to.
            message = f"{self._where} ({key}): there is nothing to put into; is the bucket there?"
            raise StoreRefusedError(ErrorKind.STORE_REFUSED, message) from error

    def _is_there(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFoundError:
            return False
        return True

    def _found(self, key: str) -> bytes | None:
        try:
            return self.read(key)
        except NotFoundError:
            return None

    def _attempts(self) -> Iterator[None]:
        """Begin attempts, with pauses between them, as long as patience lasts."""
        deadline = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            yield
            # Many ranks that wait for one store must not all come back at once.
            wait_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
            if time.monotonic() + wait_s > deadline:
                return
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        where = f"{self._where} ({key})" if key else self._where
        try:
            yield
        except FileNotFoundError as error:
            if names_no_bucket(error):
                raise explained(error, where) from error
            raise not_found(key, self.url) from error
        except AlreadyExistsError as error:
            raise exists(key, self.url) from error
        except (BaseError, OSError) as error:
            raise explained(error, where) from error
