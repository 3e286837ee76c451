"""A folder as a store, read and written by system calls.

The layers of an object-store library cost more than the I/O itself on a local disk.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, StorageError, StoreRefusedError
from archive_schema.store.interface import StoredObject, exists, not_found
from archive_schema.store.renaming import rename_exclusively

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from archive_schema.errors import ArchiveError


_MOST_REMOVALS: Final = 8
"""So often in a row somebody may remove a folder that was just made."""
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What `os.link` says on a file system without hard links."""
_KINDS: Final[dict[int, ErrorKind]] = {
    errno.ENOSPC: ErrorKind.STORE_FULL,
    errno.EDQUOT: ErrorKind.STORE_FULL,
    errno.EFBIG: ErrorKind.STORE_FULL,
    errno.EROFS: ErrorKind.STORE_READ_ONLY,
    errno.EACCES: ErrorKind.STORE_READ_ONLY,
    errno.EPERM: ErrorKind.STORE_READ_ONLY,
}


class LocalStore:
    """A folder. Writes go to a temporary name in the same folder and are renamed."""

    _TEMPORARY: Final = ".partial-"

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = self.root.as_uri()
        self._prefix = f"{self.root}/"
        self._made: set[str] = set()
        """Folders that this store has seen."""
        self._durable: set[str] = set()
        """Folders whose own entry, in the folder above, is known to survive a power cut."""

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
        # No context manager here: to enter and leave one costs a third of these three calls.
        try:
            descriptor = os.open(self._prefix + key, os.O_RDONLY)
            try:
                return os.pread(descriptor, stop - start, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._told(error, key, writing=False) from error

    def read_into(self, key: str, start: int, buffers: Sequence[Buffer]) -> int:
        """Fill *buffers*, one after another, from the offset *start*.

        Returns
        -------
        int, bytes
            How many were read: fewer than the buffers take where the object ends before that.
        """
        try:
            descriptor = os.open(self._prefix + key, os.O_RDONLY)
            try:
                return os.preadv(descriptor, buffers, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._told(error, key, writing=False) from error

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        with self._explained(key):
            return os.stat(self._prefix + key).st_size

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there."""
        with self._explained(key, writing=True):
            temporary = self._write_temporary(key, data)
            try:
                os.replace(temporary, self._prefix + key)
            except BaseException:
                _remove(temporary)
                raise

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object."""
        path = self._prefix + key
        with self._explained(key, writing=True):
            temporary = self._write_temporary(key, data)
            try:
                # Unlike a rename, a hard link fails if the name is taken.
                os.link(temporary, path)
            except FileExistsError:
                # A server of NFS whose answer was lost is asked again, and finds its own link.
                if os.stat(temporary).st_nlink == 1:
                    raise
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._rename_to_create(temporary, path)
            finally:
                _remove(temporary)

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
                self._made.discard(path)
                self._durable.discard(path)

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
        return self._files(prefix, leftover=False)

    def leftovers(self, prefix: str) -> Iterator[StoredObject]:
        """Return what processes that were killed left below *prefix* of unfinished writes.

        Also what others are writing just now: only `modified_s` tells them apart. None of it
        is an object; `delete` removes one.
        """
        return self._files(prefix, leftover=True)

    def sync(self, keys: Iterable[str]) -> None:
        """Flush the objects, their folders, and the folders above that lead to them."""
        paths = [self._prefix + key for key in keys]
        for path in paths:
            with self._explained(path):
                _flush(path)
        for folder in {os.path.dirname(path) for path in paths}:
            with self._explained(folder):
                _flush(folder, folder=True)
                self._make_durable(folder)

    def _make_durable(self, folder: str) -> None:
        """Flush the entry of *folder* in the one above, and so on up; once for each folder.

        Whoever made them: another process may have, and promised less.
        """
        while folder not in self._durable and (above := os.path.dirname(folder)) != folder:
            try:
                _flush(above, folder=True)
            except PermissionError:
                if len(above) >= len(self._prefix) - 1:
                    raise
                # Above the store nothing is ours: whoever forbids to read it has made it.
            self._durable.add(folder)
            folder = above

    def _rename_to_create(self, temporary: str, path: str) -> None:
        try:
            rename_exclusively(temporary, path)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            message = (
                f"{self.url}: this file system has neither hard links nor a rename that replaces"
                " nothing; a store needs one of them, so that of two writers one wins"
            )
            raise StoreRefusedError(ErrorKind.STORE_REFUSED, message) from error

    def _files(self, prefix: str, *, leftover: bool) -> Iterator[StoredObject]:
        with self._explained(prefix):
            for folder, _, names in os.walk(self._prefix + prefix, onerror=_unless_absent):
                for name in names:
                    if name.startswith(self._TEMPORARY) is not leftover:
                        continue
                    path = f"{folder}/{name}"
                    try:
                        status = os.stat(path)
                    except FileNotFoundError:  # removed since it was listed
                        continue
                    key = path[len(self._prefix) :]
                    yield StoredObject(key, status.st_size, status.st_mtime)

    def _write_temporary(self, key: str, data: bytes) -> str:
        folder = os.path.dirname(self._prefix + key)
        temporary = f"{folder}/{self._TEMPORARY}{secrets.token_hex(8)}"
        descriptor = self._open_new(folder, temporary)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        except BaseException:
            _remove(temporary)
            raise
        return temporary

    def _open_new(self, folder: str, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        if folder in self._made:
            try:
                return os.open(path, flags, 0o666)
            except FileNotFoundError:  # somebody removed the folder since it was made
                self._forget(folder)
        for _ in range(_MOST_REMOVALS):
            try:
                os.makedirs(folder, exist_ok=True)
            except FileExistsError as error:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
            # It may be removed again before it is used: it is empty.
            with suppress(FileNotFoundError):
                descriptor = os.open(path, flags, 0o666)
                self._made.add(folder)
                return descriptor
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)

    def _forget(self, folder: str) -> None:
        while len(folder) >= len(self._prefix):
            self._made.discard(folder)
            self._durable.discard(folder)
            folder = os.path.dirname(folder)

    @contextmanager
    def _explained(self, key: str, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._told(error, key, writing=writing) from error

    def _told(self, error: OSError, key: str, *, writing: bool) -> ArchiveError:
        """Return what an error of the operating system means here."""
        kind = _KINDS.get(error.errno or 0, ErrorKind.STORE_UNREACHABLE)
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            if not writing:
                return not_found(key, self.url)
            if not isinstance(error, FileNotFoundError):
                message = f"{self.url}: an object has the name of a folder ({key})"
                return StoreRefusedError(ErrorKind.STORE_REFUSED, message)
            # Folders, or what was being written, were removed under our hands.
            kind = ErrorKind.STORE_UNREACHABLE
        elif isinstance(error, FileExistsError):
            return exists(key, self.url)
        return StorageError(kind, f"{self.url}: {error.strerror or error} ({key})")


def _whole(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, max(os.fstat(descriptor).st_size, 1)):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _flush(path: str, *, folder: bool = False) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have nothing to flush in a folder, and say so like this.
        if not (folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def _remove(temporary: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary)


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
