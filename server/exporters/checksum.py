"""The CRC-32 of values, which a ZIP wants to know before they are read.

Of whole tiles it follows from those in the commits, combined. Anything else is decoded
once for it, a chunk at a time, and the result is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isal.isal_zlib import crc32, crc32_combine

from server.exporters.kept import Kept
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


_DECODED: Final = Kept[int](4096)
"""CRC-32s of what was decoded for them, by digest."""
