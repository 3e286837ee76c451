"""An overview of a slice: some axes cut into equal parts, and the mean of each part.

Values are read piece by piece; only the means are held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from server.query.reduce import check_numbers, check_recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from server.query.reduce import Reducible


def part_edges(length: int, most: int) -> NDArray[np.int64]:
    """Return where each of at most *most* parts of an axis begins, and the axis ends.

    Parts are as equal as can be: their lengths differ by at most one.

    Examples
    --------
    >>> part_edges(10, 4).tolist(), part_edges(3, 4).tolist()
    ([0, 2, 5, 7, 10], [0, 1, 2, 3])
    """
    parts = min(length, most)
    edges: NDArray[np.int64] = np.arange(parts + 1) * length // max(parts, 1)
    return edges


def downsample(values: Reducible, most: Mapping[str, int]) -> NDArray[np.float64]:
    """Return *values* with the axes that *most* names cut into at most so many parts.

    Returns
    -------
    NDArray of float64
        The mean of each part; NaN where one of its values is. Along other axes it is as long as
        *values*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for text.
    NotFoundError
        ``not-recorded`` if part of the slice is not recorded.
    """
    check_numbers(values)
    check_recorded(values)
    edges = [
        part_edges(length, most.get(dim, length))
        for dim, length in zip(values.dims, values.shape, strict=True)
    ]
    result = np.zeros([len(one) - 1 for one in edges])
    with np.errstate(all="ignore"):
        for place, piece in values.boxes():
            sums = piece.astype(np.float64)
            at = []
            for axis, (taken, starts) in enumerate(zip(place, edges, strict=True)):
                first, last = np.searchsorted(starts, (taken.start, taken.stop - 1), "right") - 1
                at.append(slice(first, last + 1))
                if last - first + 1 < taken.stop - taken.start:
                    begins = np.maximum(starts[first : last + 1] - taken.start, 0)
                    sums = np.add.reduceat(sums, begins, axis=axis)
            result[tuple(at)] += sums
        for axis, one in enumerate(edges):
            lengths: NDArray[Any] = np.diff(one)
            result /= lengths.reshape(-1, *[1] * (result.ndim - axis - 1))
    return result
