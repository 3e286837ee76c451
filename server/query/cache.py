"""Decoded blocks that were read lately, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

BlockKey: TypeAlias = tuple[tuple[str, str, str], int, int, int]
"""`FieldView.identity`, step, tile, and number of the block in the tile."""

_LARGEST_PART: Final = 16


class BlockCache:
    """The blocks used last, in any number of threads.

    Parameters
    ----------
    max_bytes : int
        Of values held. A block above a sixteenth of it is not kept, so that one
        large read does not drive out everything else.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._blocks: OrderedDict[BlockKey, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: BlockKey) -> NDArray[Any] | None:
        """Return a block that is held, or None."""
        # Most are asked for once: only what is held needs the lock.
        if key not in self._blocks:
            return None
        with self._lock:
            values = self._blocks.get(key)
            if values is not None:
                self._blocks.move_to_end(key)
            return values

    def takes(self, nbytes: int) -> bool:
        """Return whether a block of *nbytes* would be kept."""
        return nbytes * _LARGEST_PART <= self.max_bytes

    def put(self, key: BlockKey, values: NDArray[Any]) -> None:
        """Keep a block, and drop those that were used longest ago."""
        if not self.takes(values.nbytes):
            return
        with self._lock:
            if key in self._blocks:
                return
            self._blocks[key] = values
            self.nbytes += values.nbytes
            while self.nbytes > self.max_bytes:
                _, dropped = self._blocks.popitem(last=False)
                self.nbytes -= dropped.nbytes
