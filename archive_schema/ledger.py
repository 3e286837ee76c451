"""What of a run is recorded: the sum of its commits, in tables that reads can plan from.

Commits arrive in any order and only add. A tile or a coordinate value that two commits
hold is the same in both, or a conflict that is kept and reported; the first stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.dtypes import numpy_dtype
from archive_schema.layout import blocks_per_axis
from archive_schema.models import (
    Commit,
    Index,
    Place,
    SampleColumn,
    StepColumn,
    TileColumns,
    json_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from archive_schema.models import FieldSpec, Scalar

ABSENT: Final = -1


@dataclass(frozen=True, slots=True)
class TileEntry:
    """One recorded tile."""

    samples: int
    nbytes: int
    crc32c: int
    crc32: int
    ends: tuple[int, ...]
    """Offset in the object at which each block ends; an absent block ends where it begins."""
    shape: tuple[int, ...]
    """Values per axis, without step: ``(samples, *tail)``, or ``tail``."""
    block: tuple[int, ...]
    aside: str = ""
    """Key of the object below the run, if it does not lie at home."""


class FieldLedger:
    """The recorded tiles of one field, as tables with one row a step.

    One thread may `add` while others read: a tile's row is entered last, when everything
    that it leads to is in place, and the tables are replaced, never resized.
    """

    def __init__(self, spec: FieldSpec) -> None:
        self.spec = spec
        self._rows: dict[int, int] = {}
        self._shapes: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._ragged_ends: dict[int, NDArray[np.int64]] = {}
        self._aside: dict[tuple[int, int], str] = {}
        # What is asked at every read is kept, with what it was derived from.
        self._steps: tuple[int, ...] = ()
        self._samples: tuple[int, int] = (0, 0)
        self._additions = 0
        blocks = () if spec.ragged else blocks_per_axis(spec.tile_shape, spec.block)
        self._blocks = math.prod(blocks)
        # Columns of `_numbers`: samples, nbytes, crc32c, crc32.
        self._numbers: NDArray[np.int64] = np.full((0, 1, 4), ABSENT, np.int64)
        self._ends: NDArray[np.int64] = np.zeros((0, 1, self._blocks), np.int64)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps with at least one tile, rising."""
        steps = self._steps
        if len(steps) != len(self._rows):
            self._steps = steps = tuple(sorted(self._rows))
        return steps

    @property
    def tiles(self) -> int:
        """Length of the tile grid of the sample axis, as far as it is recorded."""
        return int(self._numbers.shape[1])

    @property
    def samples(self) -> int:
        """One more than the last sample recorded at any step; 0 without a sample axis."""
        additions, samples = self._samples
        if additions != self._additions:
            additions = self._additions
            counts = self._numbers[: len(self._rows), :, 0]
            last = np.flatnonzero((counts != ABSENT).any(axis=0))
            known = self.spec.tile > 0 and last.size > 0
            samples = (
                int(last[-1]) * self.spec.tile + int(counts[:, last[-1]].max()) if known else 0
            )
            self._samples = (additions, samples)
        return samples

    @property
    def count(self) -> int:
        """Recorded tiles."""
        return int((self._numbers[: len(self._rows), :, 0] != ABSENT).sum())

    @property
    def nbytes(self) -> int:
        """Stored bytes of all recorded tiles."""
        numbers = self._numbers[: len(self._rows)]
        return int(numbers[..., 1][numbers[..., 0] != ABSENT].sum())

    def has(self, step: int, tile: int = 0) -> bool:
        """Return whether the tile is recorded."""
        row = self._rows.get(step)
        return row is not None and tile < self.tiles and self._numbers[row, tile, 0] != ABSENT

    def tile(self, step: int, tile: int = 0) -> TileEntry | None:
        """Return the tile at *step*, or None if it is not recorded."""
        if not self.has(step, tile):
            return None
        row = self._rows[step]
        samples, nbytes, crc32c, crc32 = self._numbers[row, tile].tolist()
        aside = self.aside(step, tile)
        if self.spec.ragged:
            shape, block = self._shapes[step]
            ends = self._ragged_ends[step]
        else:
            lead = (samples,) if self.spec.tile else ()
            shape, block = (*lead, *self.spec.tail), self.spec.block
            ends = self._ends[row, tile]
        known = tuple(ends.tolist())
        return TileEntry(samples, nbytes, crc32c, crc32, known, shape, block, aside)

    def ends(self, step: int, tile: int = 0) -> NDArray[np.int64] | None:
        """Return where each block of a tile ends, or None if it is not recorded.

        The part of `tile` that every read asks for: not to be written to.
        """
        row, numbers = self._rows.get(step), self._numbers
        if row is None or tile >= numbers.shape[1] or numbers.item(row, tile, 0) == ABSENT:
            return None
        return self._ragged_ends[step] if self.spec.ragged else self._ends[row, tile]

    def aside(self, step: int, tile: int = 0) -> str:
        """Return the key, below the run, of a tile that does not lie at home; else ``""``."""
        return self._aside.get((step, tile), "") if self._aside else ""

    def asides(self) -> list[tuple[int, int, str]]:
        """Return step, tile and key of each tile that does not lie at home."""
        return [(step, tile, key) for (step, tile), key in sorted(self._aside.items())]

    def shape_at(self, step: int) -> tuple[int, ...] | None:
        """Return the shape of a ragged field at *step*, or None if it is not recorded."""
        known = self._shapes.get(step)
        return known and known[0]

    def counts(self, steps: Iterable[int]) -> NDArray[np.int64]:
        """Return the samples in each tile, shape (steps, tiles); `ABSENT` where none is."""
        return self._table(steps)[..., 0]

    def crc32s(self, steps: Iterable[int]) -> NDArray[np.int64]:
        """Return the CRC-32 of each tile's values, shape (steps, tiles); `ABSENT` where none."""
        return self._table(steps)[..., 3]

    def table(self, steps: Sequence[int], tiles: Sequence[int]) -> NDArray[np.int64]:
        """Return (samples, nbytes, crc32c, crc32) of tiles, shape (steps, tiles, 4).

        `ABSENT` stands for what is not recorded. Only the tiles asked for are touched.
        """
        rows = [self._rows.get(step, ABSENT) for step in steps]
        numbers = self._numbers
        if ABSENT not in rows and (not tiles or max(tiles) < numbers.shape[1]):
            if len(rows) == len(tiles) == 1:  # an index costs a tenth of a selection
                return np.array(numbers[rows[0], tiles[0]], ndmin=3)
            return np.asarray(numbers[np.array(rows, np.intp)[:, None], np.array(tiles, np.intp)])
        table = np.full((len(rows), len(tiles), 4), ABSENT, np.int64)
        known_rows = [at for at, row in enumerate(rows) if row != ABSENT]
        known_tiles = [at for at, tile in enumerate(tiles) if tile < numbers.shape[1]]
        if known_rows and known_tiles:
            table[np.ix_(known_rows, known_tiles)] = numbers[
                np.ix_([rows[at] for at in known_rows], [tiles[at] for at in known_tiles])
            ]
        return table

    def recorded(self, samples: int, steps: Iterable[int]) -> NDArray[np.bool_]:
        """Return which samples are recorded at *steps*, shape (steps, samples).

        A field without a sample axis is recorded for all samples or none.
        """
        present = self._table(steps)[..., 0]
        if not self.spec.tile:
            return np.repeat(present != ABSENT, samples, axis=1)
        mask = np.zeros((len(present), samples), bool)
        for tile in range(self.tiles):
            start = tile * self.spec.tile
            within = np.arange(start, min(start + self.spec.tile, samples)) - start
            mask[:, start : start + len(within)] = within < present[:, tile, None]
        return mask

    def add(self, columns: TileColumns) -> list[str]:
        """Add tiles; return a sentence for each that was there with other bytes."""
        conflicts: list[str] = []
        width = max(columns.tile, default=0) + 1
        self._grow(len(self._rows) + len(columns.step), width)
        for at, (step, tile) in enumerate(zip(columns.step, columns.tile, strict=True)):
            row = self._rows.get(step, len(self._rows))
            new = (
                columns.samples[at], columns.nbytes[at], columns.crc32c[at], columns.crc32[at],
            )  # fmt: skip
            numbers = self._numbers[row, tile]
            aside = "" if columns.aside is None else columns.aside[at]
            if numbers[0] != ABSENT:
                if tuple(numbers.tolist()) != new:
                    conflicts.append(two_contents(columns.field, step, tile))
                # Whoever came first holds the tile's home, and stays: so every reader decides
                # alike, in whatever order it reads.
                known = self.aside(step, tile)
                if not known or (aside and known <= aside):
                    continue
            if aside:
                self._aside[step, tile] = aside
            else:
                self._aside.pop((step, tile), None)
            ends = np.cumsum(columns.blocks[at], dtype=np.int64)
            if self.spec.ragged and columns.shape is not None and columns.block is not None:
                self._ragged_ends[step] = ends
                self._shapes[step] = (columns.shape[at], columns.block[at])
            else:
                self._ends[row, tile] = ends
            numbers[:] = new
            self._rows[step] = row
        self._additions += 1
        return conflicts

    def columns(self, path: str) -> TileColumns:
        """Return every tile as `add` takes them, all at home, where sealing brings them."""
        entries = [
            (step, tile, entry)
            for step in self.steps
            for tile in range(self.tiles)
            if (entry := self.tile(step, tile)) is not None
        ]
        ragged = self.spec.ragged
        return TileColumns(
            field=path,
            step=tuple(step for step, _, _ in entries),
            tile=tuple(tile for _, tile, _ in entries),
            samples=tuple(entry.samples for _, _, entry in entries),
            nbytes=tuple(entry.nbytes for _, _, entry in entries),
            crc32c=tuple(entry.crc32c for _, _, entry in entries),
            crc32=tuple(entry.crc32 for _, _, entry in entries),
            blocks=tuple(tuple(np.diff(entry.ends, prepend=0).tolist()) for _, _, entry in entries),
            shape=tuple(entry.shape for _, _, entry in entries) if ragged else None,
            block=tuple(entry.block for _, _, entry in entries) if ragged else None,
        )

    def _table(self, steps: Iterable[int]) -> NDArray[np.int64]:
        rows = np.array([self._rows.get(step, ABSENT) for step in steps], np.intp)
        if not len(self._numbers):
            return np.full((len(rows), 1, 4), ABSENT, np.int64)
        table = self._numbers[rows]
        table[rows == ABSENT] = ABSENT
        return table

    def _grow(self, rows: int, tiles: int) -> None:
        had_rows, had_tiles = self._numbers.shape[:2]
        if rows <= had_rows and tiles <= had_tiles:
            return
        # Doubling keeps the cost of a run's commits linear in their number.
        rows = had_rows if rows <= had_rows else max(rows, 2 * had_rows)
        tiles = max(tiles, had_tiles)
        numbers = np.full((rows, tiles, 4), ABSENT, np.int64)
        ends = np.zeros((rows, tiles, self._blocks), np.int64)
        numbers[:had_rows, :had_tiles] = self._numbers
        ends[:had_rows, :had_tiles] = self._ends
        # A reader looks for the numbers first, so they come last.
        self._ends = ends
        self._numbers = numbers


@dataclass(slots=True)
class Coordinate:
    """The values of one named coordinate, by step number or by sample."""

    name: str
    dtype: str
    values: dict[int, Scalar] = field(default_factory=dict)

    def array(self, positions: Iterable[int]) -> NDArray[Any]:
        """Return the values at *positions*; NaN, or the dtype's zero, where there is none.

        A number coordinate with a gap is float64, so that the gap is no value.
        """
        found = [self.values.get(position) for position in positions]
        if self.dtype == "str":
            return np.array(["" if value is None else value for value in found], dtype=np.str_)
        if None in found and self.dtype != "bool":
            return np.array([np.nan if value is None else value for value in found], np.float64)
        return np.array([value or 0 for value in found], numpy_dtype(self.dtype))

    def put(self, dtype: str, position: int, value: Scalar) -> bool:
        """Add one value; return False, keeping the first, if another value is there."""
        if dtype != self.dtype:
            if "str" in (dtype, self.dtype):
                return False
            self.dtype = np.result_type(dtype, self.dtype).name
        kept = self.values.setdefault(position, value)
        return kept == value or (kept != kept and value != value)  # noqa: PLR0124  NaN is NaN


class Ledger:
    """Everything that the commits of a run say."""

    def __init__(self) -> None:
        self.fields: dict[str, FieldLedger] = {}
        self.step_coordinates: dict[str, Coordinate] = {}
        self.sample_coordinates: dict[str, Coordinate] = {}
        self.conflicts: list[str] = []
        self.version = 0
        """Rises with everything added; tells whether a derived value is still current."""
        self._by_address: dict[tuple[Place, str | None, str], FieldLedger] = {}
        self._steps: tuple[int, tuple[int, ...]] = (0, ())

    def declare(self, path: str, spec: FieldSpec) -> FieldLedger:
        """Return the ledger of the field declared at *path*, made at the first call."""
        if path not in self.fields:
            self.fields[path] = self._by_address[spec.address] = FieldLedger(spec)
        return self.fields[path]

    def add(self, document: Commit | Index) -> None:
        """Add what a commit, or the index of a sealed run, makes visible.

        The fields it names must have been declared (`declare`).
        """
        for tiles in document.tiles:
            self.conflicts += self.fields[tiles.field].add(tiles)
        for column in document.steps:
            self._put(self.step_coordinates, column, column.step)
        for samples in document.samples:
            positions = range(samples.start, samples.start + len(samples.value))
            self._put(self.sample_coordinates, samples, positions)
        self.version += 1

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps at which anything is recorded, rising."""
        version, steps = self._steps
        if version != self.version:
            version = self.version
            # Copies, because another thread may be adding.
            fields = [f.steps for f in list(self.fields.values()) if f.spec.place.stepped]
            coordinates = [tuple(c.values) for c in list(self.step_coordinates.values())]
            steps = tuple(sorted({n for known in (*fields, *coordinates) for n in known}))
            self._steps = (version, steps)
        return steps

    @property
    def samples(self) -> int:
        """One more than the last sample recorded in any field or coordinate."""
        coordinates = (
            max(tuple(c.values), default=-1) + 1 for c in list(self.sample_coordinates.values())
        )
        return max((*coordinates, *(f.samples for f in list(self.fields.values()))), default=0)

    def at(self, place: Place, layer: str | None, name: str) -> FieldLedger | None:
        """Return the ledger of the field with this address, or None."""
        return self._by_address.get((place, layer, name))

    def index(self) -> Index:
        """Return everything in one document; `add` of it gives an equal ledger."""
        return Index(
            fields=tuple(f.spec for f in self.fields.values()),
            tiles=tuple(f.columns(path) for path, f in self.fields.items()),
            steps=tuple(
                StepColumn(
                    name=c.name,
                    dtype=c.dtype,
                    step=tuple(sorted(c.values)),
                    value=tuple(json_value(c.values[step]) for step in sorted(c.values)),
                )
                for c in self.step_coordinates.values()
            ),
            samples=tuple(
                part for c in self.sample_coordinates.values() for part in sample_columns(c)
            ),
        )

    def _put(
        self,
        known: dict[str, Coordinate],
        column: StepColumn | SampleColumn,
        positions: Iterable[int],
    ) -> None:
        coordinate = known.setdefault(column.name, Coordinate(column.name, column.dtype))
        for position, value in zip(positions, column.value, strict=True):
            if not coordinate.put(column.dtype, position, _scalar(value, column.dtype)):
                self.conflicts.append(
                    f"coordinate {column.name!r} at {position}:"
                    f" {coordinate.values[position]!r} and {value!r}",
                )


def two_contents(field: str, step: int, tile: int) -> str:
    """Return how a tile is named that two commits hold with other numbers."""
    return f"{field}, step {step}, tile {tile}: two contents"


def sample_columns(coordinate: Coordinate) -> list[SampleColumn]:
    """Return the values of a sample coordinate as columns of consecutive samples."""
    columns: list[SampleColumn] = []
    run: list[int] = []
    for position in (*sorted(coordinate.values), None):
        if run and position != run[-1] + 1:
            values = tuple(json_value(coordinate.values[at]) for at in run)
            columns.append(
                SampleColumn(
                    name=coordinate.name, dtype=coordinate.dtype, start=run[0], value=values
                ),
            )
            run = []
        if position is not None:
            run.append(position)
    return columns


def _scalar(value: Any, dtype: str) -> Scalar:
    """Return a coordinate's value as read from JSON: non-finite floats come as text."""
    scalar: Scalar = float(value) if dtype.startswith("float") else value
    return scalar
