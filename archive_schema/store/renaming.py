"""Renaming a file to a name that must be free, on Linux, where Python has no call for it."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_HERE: Final = -100  # AT_FDCWD: the paths are not relative to an open folder
_NOREPLACE: Final = 1


def rename_exclusively(source: str, target: str) -> None:
    """Rename *source* to *target*, atomically, unless *target* exists.

    Raises
    ------
    FileExistsError
        If *target* exists.
    OSError
        ``ENOTSUP`` if the system or the file system cannot do that.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), target)
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), _NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        number = errno.ENOTSUP
    raise OSError(number, os.strerror(number), target)
