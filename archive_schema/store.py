"""The one place where the archive's bytes go in and come out.

A store is a flat map from key to bytes. `create` is atomic and exclusive, `write` is
atomic, and nothing else is promised; everything above is built on these two. A local
folder is read and written directly, because the layers of an object-store library cost
more than the I/O; every other scheme is carried by obstore.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import MemoryStore, from_url

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from obstore.store import ObjectStore


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing says of one object."""

    key: str
    nbytes: int
    modified_s: float
    """Seconds since the epoch, by the store's clock."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a store needs beside its URL; what is None comes from the usual environment."""

    endpoint_url: str | None = None
    region: str | None = None
    anonymous: bool = False


class Store(Protocol):
    """Keys are relative, with ``/`` between parts. Every method may raise `StorageError`."""

    url: str

    def read(self, key: str) -> bytes:
        """Return a whole object; `NotFoundError` (``object-not-found``) if there is none."""

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``; fewer where the object ends before *stop*."""

    def size(self, key: str) -> int:
        """Return the length of an object in bytes; `NotFoundError` if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there; a reader sees the old or the new."""

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object; else `ConflictError` (``object-exists``)."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*, in no particular order."""

    def sync(self, keys: Iterable[str]) -> None:
        """Return once the objects survive a power cut, not only the end of the process."""


def open_store(url: str | os.PathLike[str], options: StoreOptions | None = None) -> Store:
    """Open the store at *url*: a path, ``file://``, ``memory://``, ``s3://``, ``gs://``, ``az://``.

    Nothing is read or written yet.

    Raises
    ------
    InvalidInputError
        ``store-url-invalid`` for a scheme or a URL that is not understood.
    """
    text = os.fspath(url)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(text).path)))
    if scheme == "memory":
        return ObjectsStore(text, _memory(text))
    if scheme in ("s3", "gs", "az"):
        return ObjectsStore(text, _remote(text, options or StoreOptions()))
    message = f"expected a path, file://, memory://, s3://, gs:// or az://; got {text!r}"
    raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message)


class LocalStore:
    """A folder. Writes go to a temporary name in the same folder and are renamed."""

    _TEMPORARY: Final = ".partial-"

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = self.root.as_uri()
        self._prefix = f"{self.root}/"
        self._made: set[str] = set()

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with self._explained(key):
            descriptor = os.open(self._prefix + key, os.O_RDONLY)
            try:
                return _whole(descriptor)
            finally:
                os.close(descriptor)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``."""
        with self._explained(key):
            descriptor = os.open(self._prefix + key, os.O_RDONLY)
            try:
                return os.pread(descriptor, stop - start, start)
            finally:
                os.close(descriptor)

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        with self._explained(key):
            return os.stat(self._prefix + key).st_size

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there."""
        with self._explained(key):
            temporary = self._write_temporary(key, data)
            try:
                os.replace(temporary, self._prefix + key)
            except BaseException:
                os.unlink(temporary)
                raise

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object."""
        with self._explained(key):
            temporary = self._write_temporary(key, data)
            try:
                # Unlike a rename, a hard link fails if the name is taken.
                os.link(temporary, self._prefix + key)
            finally:
                os.unlink(temporary)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._explained(key):
            try:
                os.unlink(self._prefix + key)
            except FileNotFoundError:
                return

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""
        with self._explained(prefix):
            try:
                with os.scandir(self._prefix + prefix) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            except FileNotFoundError:
                return []

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*."""
        with self._explained(prefix):
            for folder, _, names in os.walk(self._prefix + prefix):
                for name in names:
                    if name.startswith(self._TEMPORARY):
                        continue
                    path = f"{folder}/{name}"
                    try:
                        status = os.stat(path)
                    except FileNotFoundError:  # removed since it was listed
                        continue
                    key = path[len(self._prefix) :]
                    yield StoredObject(key, status.st_size, status.st_mtime)

    def sync(self, keys: Iterable[str]) -> None:
        """Flush the objects and their folders to the device."""
        paths = [self._prefix + key for key in keys]
        for path in (*paths, *{os.path.dirname(path) for path in paths}):
            with self._explained(path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _write_temporary(self, key: str, data: bytes) -> str:
        folder = os.path.dirname(self._prefix + key)
        temporary = f"{folder}/{self._TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = self._open_new(folder, temporary)
        except FileNotFoundError:  # somebody removed the folder since it was made
            self._made.discard(folder)
            descriptor = self._open_new(folder, temporary)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        except BaseException:
            os.unlink(temporary)
            raise
        return temporary

    def _open_new(self, folder: str, path: str) -> int:
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise _not_found(key, self.url) from error
        except FileExistsError as error:
            raise _exists(key, self.url) from error
        except OSError as error:
            kind = {
                errno.ENOSPC: ErrorKind.STORE_FULL,
                errno.EDQUOT: ErrorKind.STORE_FULL,
                errno.EROFS: ErrorKind.STORE_READ_ONLY,
                errno.EACCES: ErrorKind.STORE_READ_ONLY,
                errno.EPERM: ErrorKind.STORE_READ_ONLY,
            }.get(error.errno or 0, ErrorKind.STORE_UNREACHABLE)
            message = f"{self.url}: {error.strerror or error} ({key})"
            raise StorageError(kind, message) from error


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
            raise _not_found(key, self.url) from error
        except AlreadyExistsError as error:
            raise _exists(key, self.url) from error
        except (BaseError, OSError) as error:
            message = f"{self.url}: {error} ({key})"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error


@cache
def _memory(url: str) -> MemoryStore:
    """Return the memory store named by *url*; one process has one of each name."""
    del url
    return MemoryStore()


def _remote(url: str, options: StoreOptions) -> ObjectStore:
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    if options.region is not None:
        config["region"] = options.region
    if options.endpoint_url is not None:
        config["endpoint"] = options.endpoint_url
        client["allow_http"] = options.endpoint_url.startswith("http://")
    if options.anonymous:
        config["skip_signature"] = True
    try:
        return from_url(url, config=config, client_options=client)
    except (BaseError, ValueError) as error:
        message = f"cannot open {url!r} as a store: {error}"
        raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message) from error


def _whole(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, max(os.fstat(descriptor).st_size, 1)):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _not_found(key: str, url: str) -> NotFoundError:
    return NotFoundError(ErrorKind.OBJECT_NOT_FOUND, f"{url} has no object {key!r}")


def _exists(key: str, url: str) -> ConflictError:
    return ConflictError(ErrorKind.OBJECT_EXISTS, f"{url} already has an object {key!r}")
