"""Lets the clock of a process be wrong: with this folder in ``PYTHONPATH``, before all else.

The file that ``FAULT_CLOCK`` names holds by how many seconds, and may change at any moment.
Clocks that only count on, such as `time.monotonic`, are right, as on a real machine.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Self

_SHIFT = os.environ.get("FAULT_CLOCK")
_true_time = time.time


def _shifted_time() -> float:
    return _true_time() + (float(Path(_SHIFT).read_text()) if _SHIFT else 0.0)


class _Datetime(dt.datetime):
    """A point in time, whose now is wrong."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        """Return the wrong now."""
        return cls.fromtimestamp(_shifted_time(), tz)


if _SHIFT:
    time.time = _shifted_time
    vars(dt)["datetime"] = _Datetime
