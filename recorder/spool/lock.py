"""Who owns a folder of a spool: whoever holds its lock, which ends with the process."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final, Self

from archive_schema.errors import ErrorKind, StorageError

if TYPE_CHECKING:
    from pathlib import Path

_POLL_S: Final = 0.05
_HELD: Final = (errno.EWOULDBLOCK, errno.EACCES)


class FileLock:
    """An exclusive lock on a file, from entering to leaving; the file stays.

    Parameters
    ----------
    patience_s : float, seconds
        How long to wait for another process that holds it.

    Raises
    ------
    StorageError
        ``deadline-passed`` when entered, if another process holds it for so long; another kind
        if the file system has no locks.
    """

    def __init__(self, path: Path, patience_s: float) -> None:
        self._path = path
        self._patience_s = patience_s
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self._patience_s
        while not self.taken():
            if time.monotonic() > deadline:
                message = f"{self._path} is locked by another process for {self._patience_s:g} s"
                raise StorageError(ErrorKind.DEADLINE_PASSED, message)
            time.sleep(_POLL_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def taken(self) -> bool:
        """Take the lock and return True, or return False if another process holds it.

        Raises
        ------
        StorageError
            ``store-unreachable`` if the file cannot be made or locked.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            if error.errno in _HELD:
                return False
            message = f"cannot lock {self._path}: {error.strerror}"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message) from error
        self._descriptor = descriptor
        _held.add(self)
        return True

    def release(self) -> None:
        """Let the next one have it; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


_held: set[FileLock] = set()


def _forget() -> None:
    """Leave the locks to the parent: they would else outlive it in a child that forked off."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget)
