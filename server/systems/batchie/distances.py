"""The matrix of distances between thetas, put together from its chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from archive_schema.errors import InvalidInputError, NotFoundError
from archive_schema.systems.batchie import DISTANCES
from server.systems.batchie.thetas import chains_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.systems.batchie.simulation import Simulation
    from server.systems.layer_file import LayerFile

_MOST_LISTED = 100


@dataclass(frozen=True, slots=True)
class Distances:
    """What the chunks of a step say."""

    step: int
    """Where the chunks lie: at the first plate of the iteration, as a rule."""
    size: int
    """Number of thetas."""
    chunks: tuple[str, ...]
    dense: NDArray[np.float64]
    """Shape (size, size), symmetric, zero on the diagonal, NaN where no chunk has the pair."""
    pairs: int
    """How many of the ``size * (size - 1) / 2`` pairs are there."""
    missing: tuple[tuple[int, int], ...]
    """The first pairs (row, column) that are not."""
    repeated: int
    """Pairs that come more than once with the same value."""
    differing: tuple[tuple[int, int], ...]
    """Pairs that come with other values, too; the first counts, as with BATCHIE."""
    notes: tuple[str, ...]
    thetas: tuple[tuple[int, int], ...]
    """Chain and draw of each theta; empty where the thetas are not there."""

    @property
    def complete(self) -> bool:
        """Whether every pair is there."""
        return self.pairs == self.size * (self.size - 1) // 2


def distances(simulation: Simulation, step: int) -> Distances:
    """Return the distances that hold at *step*.

    Raises
    ------
    NotFoundError
        ``not-recorded`` if there is no chunk.
    """
    files = simulation.nearest(step, DISTANCES)
    notes: list[str] = []
    parts = [part for file in files if (part := _pairs(file, notes)) is not None]
    sizes = [part[0] for part in parts]
    size = max(sizes, default=0)
    rows, columns = (
        np.concatenate([part[at] for part in parts] or [np.empty(0, np.int64)]) for at in (1, 2)
    )
    values = np.concatenate([part[3] for part in parts] or [np.empty(0)])
    if len(set(sizes)) > 1:
        notes.append(f"the chunks are of matrices of {sorted(set(sizes))} thetas")
    inside = (rows >= 0) & (columns >= 0) & (rows < size) & (columns < size)
    if not inside.all():
        notes.append(f"{int((~inside).sum())} pairs are beyond the {size} thetas: left out")
        rows, columns, values = rows[inside], columns[inside], values[inside]
    diagonal = rows == columns
    if diagonal.any():
        other = int((values[diagonal] != 0).sum())
        said = f", {other} of them not zero" if other else ""
        notes.append(f"{int(diagonal.sum())} distances of a theta to itself{said}: taken as zero")
        rows, columns, values = rows[~diagonal], columns[~diagonal], values[~diagonal]
    high, low = np.maximum(rows, columns), np.minimum(rows, columns)
    keys, first, inverse = np.unique(high * size + low, return_index=True, return_inverse=True)
    same = (values == values[first][inverse]) | (
        np.isnan(values) & np.isnan(values[first][inverse])
    )
    dense = np.full((size, size), np.nan)
    np.fill_diagonal(dense, 0.0)
    dense[high[first], low[first]] = dense[low[first], high[first]] = values[first]
    there = np.zeros((size, size), bool)
    there[high[first], low[first]] = True
    lacking = np.argwhere(np.tri(size, k=-1, dtype=bool) & ~there)[:_MOST_LISTED]
    differing = np.unique(inverse[~same])
    chains = chains_of(simulation, files[0].step)
    return Distances(
        step=files[0].step,
        size=size,
        chunks=tuple(file.layer for file in files),
        dense=dense,
        pairs=len(keys),
        missing=tuple((int(row), int(column)) for row, column in lacking),
        repeated=len(rows) - len(keys) - int((~same).sum()),
        differing=tuple(
            (int(high[first[at]]), int(low[first[at]])) for at in differing[:_MOST_LISTED]
        ),
        notes=tuple(notes),
        thetas=tuple((chain, draw) for chain, draws in chains for draw in range(draws)),
    )


def _pairs(
    file: LayerFile, notes: list[str]
) -> tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Return number of thetas, rows, columns and values of a chunk; None if they do not fit."""
    try:
        rows, columns, values = file.alike("row_indices", "col_indices", "values")
        (size,) = file.dataset("size").ravel().tolist()
    except (InvalidInputError, NotFoundError, ValueError) as error:
        notes.append(f"{file.layer} is left out: {error}")
        return None
    return int(size), rows, columns, values
