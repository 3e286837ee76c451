"""The CRC-32 of values, which a ZIP wants to know before they are read.

Of whole tiles it follows from those in the commits, combined. Anything else is decoded
once for it, a chunk at a time, and the result is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from isal.isal_zlib import crc32, crc32_combine

from server.exporters.virtual_file import VirtualFile

if TYPE_CHECKING:
    from server.exporters.values import Values


def values_crc32(values: Values) -> int:
    """Return the CRC-32 of the bytes of *values*."""
    if not values.nbytes:
        return 0
    tiles = values.whole_tiles()
    if tiles is not None:
        return _combined(values, tiles)
    known = _DECODED.get(values.digest)
    if known is None:
        known = 0
        file = VirtualFile([values])
        file.ahead = values.field.run.archive.reader.ahead
        for chunk in file.read():
            known = crc32(chunk, known)
        _DECODED.put(values.digest, known)
    return known


def _combined(values: Values, tiles: list[int]) -> int:
    """Combine what the commits say of *tiles*, in C order: step after step, tile after tile."""
    ledger, steps = values.field.ledger, values.step_numbers
    counts = ledger.counts(steps)[:, tiles]
    if not values.field.spec.sampled:
        counts = counts * 0 + 1
    entry_nbytes = values.nbytes // int(counts.sum())
    whole = 0
    known = zip(counts.ravel().tolist(), ledger.crc32s(steps)[:, tiles].ravel(), strict=True)
    for count, part in known:
        whole = crc32_combine(whole, int(part), count * entry_nbytes)
    return whole


class _Checksums:
    """CRC-32s of what was decoded for them, by digest; those used last, in any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str) -> int | None:
        """Return what is known, or None."""
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
            return self._known.get(digest)

    def put(self, digest: str, value: int) -> None:
        """Keep *value*, and drop what was used longest ago."""
        with self._lock:
            self._known[digest] = value
            if len(self._known) > self._most:
                self._known.popitem(last=False)


_DECODED: Final = _Checksums(4096)
