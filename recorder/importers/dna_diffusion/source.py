"""Files of several cell types as one run: samples are numbered over all of them."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.dna_diffusion import (
    CELL_TYPE,
    LENGTH,
    SYSTEM,
    TAG,
    TIMESTEP,
    cell_type_of,
)
from recorder.importers.dna_diffusion import cross, text
from recorder.importers.dna_diffusion.cells import Cell, drop_unfit, steps_of, tile_of
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from recorder.importers.dna_diffusion.cross import CrossFile
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Progress, Sink

_LARGEST_TILE: Final = 1024
_AT_ONCE: Final = 16 << 20
"""Tokens that are in memory at once: samples of a tile, at all steps."""
_LACKING: Final = (
    "x and eps: the files hold letters, no numbers",
    "class_id, guidance_scale, seed and beta: in none of the files",
)


class FolderSource:
    """The files of a folder as the import takes them over.

    Parameters
    ----------
    odd
        What was odd about the files so far.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if tables have not the same steps.
    """

    def __init__(self, tree: ForeignTree, cells: list[Cell], odd: list[str]) -> None:
        self._tree = tree
        self._cells = cells
        try:
            self.steps = steps_of(cells)
        except ValueError as error:
            raise tree.refuse(str(error)) from error
        drop_unfit(cells, self.steps, odd)
        self.samples = cells[-1].stop
        self._lengths = np.concatenate([cell.sequences.lengths for cell in cells])
        self._longest = int(self._lengths.max())
        row = self._longest * max(len(self.steps), 1)
        most = max(1, min(_LARGEST_TILE, _AT_ONCE // row))
        self.tile: int | None = tile_of(self._stepped(), self.samples, most)
        paths = [file.path for file in self._files]
        paths += [path for cell in cells for path in cell.agreeing]
        self.metadata: Mapping[str, JsonValue] = {
            "imported": {"format": "files", "files": [*paths]}
        }
        self.findings = Findings("files", list(self._missing()), odd, files=len(paths))
        self.findings.odd += self._differing()

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand everything over: sequences tile after tile, then cross maps step after step."""
        total = sum(file.nbytes for file in self._files)
        done = 0
        dims = ("sample", "position")
        sink.declare("tokens", dims=dims, tokens=True)
        sink.declare("final_sequence", place=Place.OUTPUTS, dims=dims, tokens=True)
        if self.steps == tuple(range(len(self.steps))):
            for step in self.steps:
                sink.record(step, None, None, **{TIMESTEP: len(self.steps) - 1 - step})
        for start, rows in self._tiles():
            self._feed_rows(sink, start, rows)
            done += sum(
                len(row) * int(n + 1) for row, n in zip(rows, self._lengths[start:], strict=False)
            )
            progress(min(done, total), total)
        size = tile_of((cell.crossed for cell in self._crossed), self.samples, _LARGEST_TILE)
        for cell in self._crossed:
            for nbytes in self._feed_cross(sink, cell, size):
                done += nbytes
                progress(min(done, total), total)

    def _feed_rows(self, sink: Sink, start: int, rows: list[NDArray[np.int64]]) -> None:
        """Hand over a tile; its rows have all steps, or only final sequences."""
        samples = slice(start, start + len(rows))
        tags = [self._cell_at(sample).tag for sample in range(samples.start, samples.stop)]
        columns: dict[str, Any] = {TAG: tags, CELL_TYPE: [cell_type_of(tag) for tag in tags]}
        if (self._lengths != self._longest).any():
            columns[LENGTH] = self._lengths[samples]
        sink.sample_coordinates(samples, **columns)
        sink.outputs(samples, final_sequence=np.stack([row[-1] for row in rows]))
        if self._cell_at(start).sequences.steps is not None:
            for at, step in enumerate(self.steps):
                sink.record(step, samples, None, tokens=np.stack([row[at] for row in rows]))

    def _feed_cross(self, sink: Sink, cell: Cell, size: int) -> Iterator[int]:
        """Hand over cross maps, and yield how many bytes were read."""
        about = cell.cross
        if about is None:
            return
        dims = SYSTEM.fields[Place.TRACE]["cross"].dims
        if about.shape[-1] != self._longest:
            dims = (*dims[:-1], "cross_position")
        sink.declare("cross", dims=dims, tile=size)
        first, _ = cell.crossed
        with self._tree.open(about.path) as file:
            for step, values in zip(self.steps, cross.steps(file, about), strict=True):
                for at in range(0, len(values), size):
                    part = values[at : at + size]
                    samples = slice(first + at, first + at + len(part))
                    sink.record(step, samples, None, cross=part)
                yield values.nbytes

    def _tiles(self) -> Iterator[tuple[int, list[NDArray[np.int64]]]]:
        """Yield the first sample of a tile, and its rows of tokens (column, position)."""
        size = self.tile or 1
        with ExitStack() as stack:
            rows = (row for cell in self._cells for row in self._rows(cell, stack))
            for start in range(0, self.samples, size):
                yield start, [row.astype(np.int64) for row in islice(rows, size)]

    def _rows(self, cell: Cell, stack: ExitStack) -> Iterator[NDArray[np.uint8]]:
        about = cell.sequences
        file = stack.enter_context(self._tree.open(about.path))
        yield from text.rows(file, about.steps, self._longest)

    def _cell_at(self, sample: int) -> Cell:
        return next(cell for cell in self._cells if sample < cell.stop)

    def _stepped(self) -> Iterator[tuple[int, int]]:
        """Yield spans of samples that have all steps; neighbours are one."""
        known = [cell for cell in self._cells if cell.sequences.steps is not None]
        starts = {cell.start for cell in known} - {cell.stop for cell in known}
        stops = {cell.stop for cell in known} - {cell.start for cell in known}
        return zip(sorted(starts), sorted(stops), strict=True)

    def _missing(self) -> Iterator[str]:
        yield from _LACKING
        for cell in self._cells:
            if cell.sequences.steps is None:
                yield f"{cell.tag}: states before the final one: no table of steps"
        for cell in self._crossed:
            first, stop = cell.crossed
            if first > cell.start:
                yield (
                    f"{cell.tag}: cross maps of samples {cell.start}:{first}: the file holds those"
                    f" of the last batch, {first}:{stop}"
                )

    def _differing(self) -> Iterator[str]:
        for cell in self._crossed:
            if cell.cross is not None and cell.cross.shape[-1] != self._longest:
                yield (
                    f"{cell.cross.path} has {cell.cross.shape[-1]} positions and the sequences have"
                    f" {self._longest} letters: upstream cuts what it writes as text at 200"
                )

    @property
    def _crossed(self) -> list[Cell]:
        return [cell for cell in self._cells if cell.cross is not None]

    @property
    def _files(self) -> Iterator[text.TextFile | CrossFile]:
        for cell in self._cells:
            yield cell.sequences
            if cell.cross is not None:
                yield cell.cross
