"""Squares of attention maps, drawn over the whole of every matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.vizfold_study.traces import HEADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.vizfold_study.formats import Reader
    from benchmarks.vizfold_study.traces import FoldingTrace

SIZE: Final = 32


class Window(NamedTuple):
    """A square of one head of one layer's attention."""

    layer: int
    head: int
    row: int
    column: int

    @property
    def path(self) -> str:
        """Name of the array."""
        return f"attention/layer_{self.layer}"

    @property
    def place(self) -> tuple[int, slice, slice]:
        """Where it lies in the array."""
        return (
            self.head,
            slice(self.row, self.row + SIZE),
            slice(self.column, self.column + SIZE),
        )


def windows_of(trace: FoldingTrace, count: int) -> list[Window]:
    """Draw windows over the whole of every matrix; the same for every format."""
    random = np.random.default_rng([7, trace.residues])
    layers, heads = random.integers(trace.layers, size=count), random.integers(HEADS, size=count)
    corners = random.integers(trace.residues - SIZE + 1, size=(count, 2))
    return [
        Window(layer, head, row, column)
        for layer, head, (row, column) in zip(
            layers.tolist(), heads.tolist(), corners.tolist(), strict=True
        )
    ]


def read_windows(reader: Reader, windows: Sequence[Window]) -> None:
    """Read each window, its array looked up anew, as whoever browses does."""
    for window in windows:
        reader.open(window.path)(window.place)
