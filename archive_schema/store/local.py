"""A folder as a store, read and written by system calls.

The layers of an object-store library cost more than the I/O itself on a local disk.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, StorageError
from archive_schema.store.interface import StoredObject, exists, not_found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


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
        """Remove an object, and the folders that held nothing else: a store has no folders."""
        path = self._prefix + key
        with self._explained(key):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
        with suppress(OSError):  # not empty, or somebody was quicker
            while (path := os.path.dirname(path)) != str(self.root):
                os.rmdir(path)

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
            raise not_found(key, self.url) from error
        except FileExistsError as error:
            raise exists(key, self.url) from error
        except OSError as error:
            kind = {
                errno.ENOSPC: ErrorKind.STORE_FULL,
                errno.EDQUOT: ErrorKind.STORE_FULL,
                errno.EFBIG: ErrorKind.STORE_FULL,
                errno.EROFS: ErrorKind.STORE_READ_ONLY,
                errno.EACCES: ErrorKind.STORE_READ_ONLY,
                errno.EPERM: ErrorKind.STORE_READ_ONLY,
            }.get(error.errno or 0, ErrorKind.STORE_UNREACHABLE)
            message = f"{self.url}: {error.strerror or error} ({key})"
            raise StorageError(kind, message) from error


def _whole(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, max(os.fstat(descriptor).st_size, 1)):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
