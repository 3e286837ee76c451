"""What the values of a slice are like: moments, extremes, zeros, and how they are spread.

Values are read twice, piece by piece: bins lie between the extremes, which the first pass finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from server.query.reduce import check_numbers, check_recorded, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query.reduce import Reducible

BINS: Final = 16


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of each group of values; every array has the shape of the axes that were kept.

    All but `zeros` and `nonfinite` are of the finite values; NaN where there is none.
    """

    count: NDArray[np.int64]
    """Values, also those that are not finite."""
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    """Divided by the count."""
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    l2: NDArray[np.float64]
    """Root of the sum of squares."""
    zeros: NDArray[np.int64]
    nonfinite: NDArray[np.int64]
    """NaN and infinite values."""
    histogram: NDArray[np.int64]
    """Finite values in each of `BINS` equal parts of [min, max], along a last axis."""


def statistics(values: Reducible, axes: tuple[int, ...]) -> Statistics:
    """Return what *values* are like, over *axes*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for text.
    NotFoundError
        ``not-recorded`` if part of the slice is not recorded.
    """
    check_numbers(values)
    check_recorded(values)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(values.shape))
    kept = [n for axis, n in enumerate(values.shape) if axis not in axes]
    seen = _Seen(axes, shape)
    # Sums of what float64 does not hold have a result, inf or NaN, which says enough.
    with np.errstate(all="ignore"):
        for place, piece in values.boxes():
            seen.add(place, piece.astype(np.float64))
        for place, piece in values.boxes():
            seen.spread(place, piece.astype(np.float64))
        nothing = seen.finite == 0
        found = {
            "mean": seen.mean,
            "std": np.sqrt(seen.squares / seen.finite),
            "min": seen.low,
            "max": seen.high,
            "l2": np.sqrt(seen.powers),
        }
    return Statistics(
        count=(seen.finite + seen.nonfinite).reshape(kept),
        zeros=seen.zeros.reshape(kept),
        nonfinite=seen.nonfinite.reshape(kept),
        histogram=seen.histogram.reshape(*kept, BINS),
        **{name: np.where(nothing, np.nan, one).reshape(kept) for name, one in found.items()},
    )


class _Seen:
    """Sums over the pieces so far, in arrays that keep the reduced axes with length 1."""

    def __init__(self, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self._axes = axes
        self._groups = np.arange(math.prod(shape)).reshape(shape)
        self.finite, self.nonfinite, self.zeros = np.zeros((3, *shape), np.int64)
        self.mean, self.squares, self.powers = np.zeros((3, *shape))
        self.low, self.high = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.histogram = np.zeros((math.prod(shape), BINS), np.int64)

    def add(self, place: tuple[slice, ...], wide: NDArray[np.float64]) -> None:
        """Take a piece into account: its deviations are merged with those before it."""
        at = within(place, self._axes)
        finite = np.isfinite(wide)
        count, total = self._sum(finite), self._sum(np.where(finite, wide, 0.0))
        middle = total / np.maximum(count, 1)
        inside = self._sum(np.where(finite, np.square(wide - middle), 0.0))
        together = np.maximum(self.finite[at] + count, 1)
        difference = middle - self.mean[at]
        self.squares[at] += inside + difference**2 * self.finite[at] * count / together
        self.mean[at] += difference * count / together
        self.powers[at] += self._sum(np.where(finite, np.square(wide), 0.0))
        self.finite[at] += count
        self.nonfinite[at] += self._sum(~finite)
        self.zeros[at] += self._sum(wide == 0)
        low = np.where(finite, wide, np.inf).min(axis=self._axes, keepdims=True)
        high = np.where(finite, wide, -np.inf).max(axis=self._axes, keepdims=True)
        self.low[at] = np.minimum(self.low[at], low)
        self.high[at] = np.maximum(self.high[at], high)

    def spread(self, place: tuple[slice, ...], wide: NDArray[np.float64]) -> None:
        """Count a piece into the bins; all pieces must have been added before."""
        at = within(place, self._axes)
        low, high, groups = self.low[at], self.high[at], self._groups[at]
        finite = np.isfinite(wide)
        share = (wide - low) / np.where(high > low, high - low, 1.0)
        bins = np.clip(np.where(finite, share * BINS, 0), 0, BINS - 1).astype(np.int64)
        first = int(groups.min())
        flat = ((groups - first) * BINS + bins)[finite]
        counts = np.bincount(flat).reshape(-1) if len(flat) else np.zeros(0, np.int64)
        self.histogram.reshape(-1)[first * BINS : first * BINS + len(counts)] += counts

    def _sum(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values.sum(axis=self._axes, keepdims=True))
