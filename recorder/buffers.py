"""Memory for the copies of a sampler's values, used again and again.

Memory that is fresh from the system costs several times a copy: each of its pages is mapped and
cleared when it is first touched. So copies lie one after another in slabs of large pages, and a
slab starts anew once all copies in it are released.
"""

from __future__ import annotations

import mmap
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_SLAB_NBYTES: Final = 16 * 2**20
_SHARE_OF_BUDGET: Final = 16
"""A slab is held until the last of its copies is released, so it must be little of the budget."""
_SHARE_OF_SLAB: Final = 4
"""What is larger than this part of a slab has memory of its own: the end of a slab is wasted."""
_MOST_IDLE: Final = 1
"""Slabs that are kept although no copy lies in them, besides the current one."""
_ALIGNMENT: Final = 64


class _Slab:
    def __init__(self, nbytes: int) -> None:
        self.memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # a system without large pages
            self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.used = 0
        """Bytes from the start that belong to a copy, or did."""
        self.copies = 0
        """Copies that are not released yet."""


@dataclass(slots=True)
class Copy:
    """A copy of an array in the memory of a slab, or of its own."""

    array: NDArray[np.generic]
    slab: _Slab | None


class Slabs:
    """The memory of one recorder's copies; any number of threads may copy and release.

    Parameters
    ----------
    max_bytes : int, bytes
        What the recorder may hold at once. With 0 every copy has memory of its own.
    """

    def __init__(self, max_bytes: int) -> None:
        self._slab_nbytes = min(_LARGEST_SLAB_NBYTES, max_bytes // _SHARE_OF_BUDGET)
        self._current: _Slab | None = None
        self._idle: list[_Slab] = []
        self._lock = threading.Lock()

    def copy(self, array: NDArray[np.generic]) -> Copy:
        """Return a copy of *array* in C order, which holds until it is released."""
        if not 0 < array.nbytes <= self._slab_nbytes // _SHARE_OF_SLAB:
            return Copy(np.array(array, order="C", copy=True, subok=False), None)
        slab, start = self._place(array.nbytes)
        copy = np.ndarray(array.shape, array.dtype, slab.memory, start)
        np.copyto(copy, array)
        return Copy(copy, slab)

    def release(self, copy: Copy) -> None:
        """Give the memory of a copy to others; once at most."""
        slab = copy.slab
        if slab is None:
            return
        with self._lock:
            slab.copies -= 1
            if slab.copies:
                return
            slab.used = 0
            if slab is not self._current and len(self._idle) < _MOST_IDLE:
                self._idle.append(slab)

    def _place(self, nbytes: int) -> tuple[_Slab, int]:
        """Return where there is room for a copy, and count it."""
        with self._lock:
            slab = self._current
            if slab is None or slab.used + nbytes > self._slab_nbytes:
                slab = self._current = self._idle.pop() if self._idle else _Slab(self._slab_nbytes)
            start = slab.used
            slab.used += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
            slab.copies += 1
        return slab, start
