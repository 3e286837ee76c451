"""A virtual file as other libraries open one: by seeking and reading ranges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.exporters import VirtualFile


class RangedFile(io.RawIOBase):
    """Reads ranges of a virtual file and counts the bytes, as a client over HTTP would."""

    def __init__(self, file: VirtualFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0
        self.read_nbytes = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be sought in."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; return where the next read begins."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill *buffer* from one range."""
        data = b"".join(self._file.read(self._at, self._at + len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        self.read_nbytes += len(data)
        return len(data)


def whole(file: VirtualFile) -> bytes:
    """Return the whole file, after checking that it is as long as it says."""
    data = b"".join(file.read())
    assert len(data) == file.size
    return data
