"""The files of one cell type, and which samples of the run they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recorder.importers.dna_diffusion.cross import CrossFile
    from recorder.importers.dna_diffusion.text import TextFile


@dataclass(slots=True)
class Cell:
    """What is there of one tag."""

    tag: str
    sequences: TextFile
    """The table of all steps; where there is none, the final sequences."""
    cross: CrossFile | None = None
    agreeing: list[str] = field(default_factory=list)
    """Files that say the same as those, in part."""
    start: int = 0
    """Its first sample in the run."""

    @property
    def stop(self) -> int:
        """Return the sample after its last one."""
        return self.start + len(self.sequences.lengths)

    @property
    def crossed(self) -> tuple[int, int]:
        """Return the samples ``[start, stop)`` that have cross maps: those of the last batch."""
        return self.stop - (self.cross.shape[1] if self.cross else 0), self.stop


def cells_of(
    sequences: Iterable[TextFile], crosses: Iterable[CrossFile], odd: list[str]
) -> list[Cell]:
    """Return the cell types that there are sequences of, by tag; say in *odd* what is left out."""
    found: dict[str, Cell] = {}
    for file in sequences:
        cell = found.setdefault(file.tag, Cell(file.tag, file))
        one, other = cell.sequences, file
        if one is other:
            continue
        if one.steps is None and other.steps is not None:
            one, other = other, one
        cell.sequences = one
        if other.steps is not None or one.final_sha256 != other.final_sha256:
            odd.append(f"{other.path}: expected the final sequences of {one.path}: left out")
        else:
            cell.agreeing.append(other.path)
    for about in crosses:
        known = found.get(about.tag)
        if known is None:
            odd.append(f"{about.path}: there are no sequences of {about.tag}: left out")
        elif known.cross is not None:
            odd.append(f"{about.path}: there is {known.cross.path} already: left out")
        else:
            known.cross = about
    cells = sorted(found.values(), key=lambda cell: cell.tag)
    for before, cell in pairwise(cells):
        cell.start = before.stop
    return cells


def steps_of(cells: list[Cell]) -> tuple[int, ...]:
    """Return the steps of the tables, or of the cross maps where there is no table.

    Raises
    ------
    ValueError
        If tables have not all the same.
    """
    tables = {cell.sequences.steps: cell for cell in cells if cell.sequences.steps is not None}
    if len(tables) > 1:
        said = (
            f"{cell.sequences.path} {len(steps)} from {steps[0]} to {steps[-1]}"
            for steps, cell in tables.items()
        )
        message = f"expected the same steps in all tables, found {'; '.join(said)}"
        raise ValueError(message)
    lengths = (range(cell.cross.shape[0]) for cell in cells if cell.cross is not None)
    return next(iter(tables), None) or tuple(next(lengths, ()))


def drop_unfit(cells: list[Cell], steps: tuple[int, ...], odd: list[str]) -> None:
    """Leave out cross maps that are not those of their cell type's last samples."""
    fitting = None
    for cell in cells:
        about = cell.cross
        if about is None:
            continue
        count, samples, channels, bases, _ = about.shape
        like = fitting or (about.dtype, about.shape[2:])
        fits = count == len(steps) and samples <= cell.stop - cell.start
        if not fits or (channels, bases) != (1, 4) or like != (about.dtype, about.shape[2:]):
            odd.append(
                f"{about.path}: expected {len(steps)} steps of at most {cell.stop - cell.start}"
                f" samples (1, 4, positions), as others; found {about.dtype} of {about.shape}:"
                " left out"
            )
            cell.cross = None
        else:
            fitting = like


def tile_of(spans: Iterable[tuple[int, int]], samples: int, most: int) -> int:
    """Return how large tiles may be so that each of *spans* is whole tiles.

    Examples
    --------
    >>> tile_of([(990, 1000), (1990, 2000)], 2000, 1024), tile_of([(0, 2000)], 2000, 1024)
    (10, 1024)
    """
    edges = [edge for span in spans for edge in span if edge != samples]
    common = math.gcd(*edges)
    if not common:
        return min(samples, most)
    return max(size for size in range(1, min(common, most) + 1) if common % size == 0)
