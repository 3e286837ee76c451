"""What was computed lately, as much of it as a bounded weight allows; for any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_T = TypeVar("_T")


class Kept(Generic[_T]):
    """Values by key; those that were used longest ago are dropped first.

    Parameters
    ----------
    most : int
        Weight of all values together. What was put last is kept however much it weighs.
    weigh : callable
        Returns the weight of a value; by default 1.
    """

    def __init__(self, most: int, weigh: Callable[[_T], int] = lambda _: 1) -> None:
        self._most = most
        self._weigh = weigh
        self._weight = 0
        self._known: OrderedDict[Hashable, _T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _T | None:
        """Return what was put there, or None."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: Hashable, value: _T) -> None:
        """Keep *value*, and drop what there is no room for any more."""
        with self._lock:
            if key in self._known:
                self._weight -= self._weigh(self._known.pop(key))
            self._known[key] = value
            self._weight += self._weigh(value)
            while self._weight > self._most and len(self._known) > 1:
                self._weight -= self._weigh(self._known.popitem(last=False)[1])
