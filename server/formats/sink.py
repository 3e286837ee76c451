"""A file that a library writes to, from which the answer takes what was written so far."""

from __future__ import annotations

from io import RawIOBase
from typing import Any


class Sink(RawIOBase):
    """Holds what was written until it is taken; it cannot seek."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Keep a copy of *data*."""
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
