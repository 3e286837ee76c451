"""What was measured at one size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.vizfold_study.timing import Timing
    from benchmarks.vizfold_study.traces import FoldingTrace


@dataclass(slots=True)
class Results:
    """What was measured at one size, by format."""

    trace: FoldingTrace
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes and files."""
    timings: dict[str, dict[str, Timing]] = field(default_factory=dict)
    """By experiment: `write`, `full`, `layer`, `head`, `window`, `window kept`,
    `layer cold`, `windows cold`, `threads 8`, `processes 8`, …"""
    uncached: dict[str, float] = field(default_factory=dict)
    """Of the bytes of a layer that was read cold, the part that came from the disk."""

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(self.trace.nbytes(path) for path in self.trace.paths)
