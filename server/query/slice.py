"""A planned read of one field: everything about the answer is known, nothing is read yet."""

from __future__ import annotations

import math
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.dtypes import given
from archive_schema.errors import FormatError
from server.query.fetch import TileRead
from server.query.plan import axis_parts, spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from archive_schema.selection import Taken
    from server.query.field import FieldView
    from server.query.plan import Grid, Plan

PIECE_NBYTES: Final = 1 << 20


class Slice:
    """What `FieldView.select` planned. All recorded, or asked for with ``missing="mask"``.

    Parameters
    ----------
    field
        What is read.
    numbers : tuple of int
        Steps to read; ``(0,)`` for a field without a step axis.
    taken
        What is taken along each of the field's dims, step included.
    grid
        How the tiles at those steps are cut into blocks.
    plan
        How what is taken along the axes after step is read.
    tiles : shape (steps, touched tiles, 3)
        Length, CRC32C and CRC-32 of every tile touched; -1 where none is recorded.
    mask : shape (steps, samples), or (steps, 1) without a sample axis, optional
        Which are recorded; None where everything is.
    """

    layers: Final[tuple[str, ...]] = ()
    """Several layers as one array are `LayerSlices`."""

    def __init__(
        self,
        field: FieldView,
        *,
        numbers: tuple[int, ...],
        taken: tuple[Taken, ...],
        grid: Grid,
        plan: Plan,
        tiles: NDArray[np.int64],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        self.field = field
        self.dtype = field.dtype
        self.steps = numbers if field.stepped else ()
        self._numbers = numbers
        self._taken = taken
        self._grid = grid
        self._plan = plan
        self._tiles = tiles
        self._mask = mask
        kept = [axis for axis, one in enumerate(taken) if not isinstance(one, int)]
        self.dims = tuple([field.dims[axis] for axis in kept])
        self.shape = tuple([len(one) for one in taken if not isinstance(one, int)])
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    @property
    def kept(self) -> tuple[Taken, ...]:
        """What is taken along each of *dims*."""
        return tuple(one for one in self._taken if not isinstance(one, int))

    @cached_property
    def read_nbytes(self) -> int:
        """Stored bytes that `array` reads, if none of them is cached."""
        total = 0
        for step in self._numbers:
            for part in self._plan.parts:
                ends = self.field.ends(step, part.tile)
                if ends is not None:
                    found = spans(part.blocks, ends)
                    total += sum(span.stop - span.start for span in found)
        return total

    @cached_property
    def digest(self) -> str:
        """A strong digest of the values, as hexadecimal text; no data is read for it.

        It covers what the values follow from: the run, the field and how it is encoded, the
        positions taken, and length and checksums of each stored tile that is touched.
        """
        # The CRC-32 of the values is what tells contents apart. Each block of a tile ends with
        # its own CRC32C, and the CRC32C of such a sequence follows from its length alone.
        said = self.field.named_digest.copy()
        said.update(repr((self._numbers, self._taken)).encode())
        said.update(self._tiles.tobytes())
        return said.hexdigest()

    def array(self, *, keep: bool = True) -> NDArray[Any]:
        """Read everything.

        Parameters
        ----------
        keep
            Whether what was decoded is kept in memory for whoever reads next. Who reads a whole
            run once would only drive out what others read. Blocks of several steps are kept in
            any case: the next step needs them.

        Returns
        -------
        NDArray, shape *shape*, dtype *dtype* (little-endian), C order
            Where nothing is recorded: NaN for floats, zero or empty text for others.

        Raises
        ------
        FormatError
            ``tile-lost`` or ``tile-damaged``.
        """
        return self._read(self._numbers, self._plan, self._mask, keep=keep).reshape(self.shape)

    def pieces(self, max_bytes: int = PIECE_NBYTES) -> Iterator[NDArray[Any]]:
        """Read everything, a piece of about *max_bytes* at a time.

        The bytes of the pieces, one after another, are those of `array`. A single value
        above *max_bytes* is a piece of its own.
        """
        for _, values in self.boxes(max_bytes):
            yield values

    def boxes(
        self, max_bytes: int = PIECE_NBYTES
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Yield each piece with its place in the array: one slice for each of *dims*.

        Of a remote store the next pieces are read while one is used.
        """
        lengths = self._lengths
        kept = [axis for axis, one in enumerate(self._taken) if not isinstance(one, int)]
        if 0 in lengths:
            return
        axis, count = _split(lengths, max_bytes // self.dtype.itemsize)
        cuts = [self._cuts(axis, count)] if axis < len(lengths) else []
        leading = [[(at, at + 1) for at in range(length)] for length in lengths[:axis]]
        trailing = [[(0, length)] for length in lengths[axis + 1 :]]
        jobs = (
            (self._box_nbytes(box), partial(self._read_box, box, kept))
            for box in product(*leading, *cuts, *trailing)
        )
        yield from self.field.run.archive.reader.ahead.results(jobs)

    def recorded(self) -> NDArray[np.bool_]:
        """Return which of the steps and samples that the slice keeps are recorded."""
        axes = [dim for dim in self.dims if dim in ("step", "sample")]
        shape = tuple(self.shape[self.dims.index(dim)] for dim in axes)
        if self._mask is None:
            return np.ones(shape, bool)
        return self._mask.reshape(shape)

    def coordinates(self) -> dict[str, NDArray[np.int64]]:
        """Return the step numbers, and the positions along the other dims that are kept."""
        taken = dict(zip(self.field.dims, self._taken, strict=True))
        return {dim: np.array(taken[dim], np.int64) for dim in self.dims}

    @property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(1 if isinstance(one, int) else len(one) for one in self._taken)

    def _cuts(self, axis: int, count: int) -> list[tuple[int, int]]:
        """Cut *axis* into ranges of at most *count*, at borders of blocks where it can be."""
        offset = 1 if self.field.stepped else 0
        length = self._lengths[axis]
        borders = list(range(1, length + 1))
        if axis >= offset:
            extent = self._grid.block[axis - offset]
            borders = [part.stop for part in axis_parts(self._taken[axis], extent)]
        cuts: list[tuple[int, int]] = []
        start = end = 0
        for border in borders:
            if border - start > count and end > start:
                cuts.append((start, end))
                start = end
            while border - start > count:
                cuts.append((start, start + count))
                start += count
            end = border
        return [*cuts, (start, end)] if end > start else cuts

    def _box_nbytes(self, box: Sequence[tuple[int, int]]) -> int:
        return self.dtype.itemsize * math.prod(stop - start for start, stop in box)

    def _read_box(
        self, box: Sequence[tuple[int, int]], kept: Sequence[int]
    ) -> tuple[tuple[slice, ...], NDArray[Any]]:
        """Return the place of a box along the axes *kept*, and its values."""
        taken = tuple(
            one if isinstance(one, int) else one[start:stop]
            for one, (start, stop) in zip(self._taken, box, strict=True)
        )
        spec, mask = self.field.spec, self._mask
        ranges = [slice(*one) for one in box]
        numbers = self._numbers
        if self.field.stepped:
            numbers = numbers[ranges.pop(0)]
            mask = mask if mask is None else mask[slice(*box[0])]
        if spec.sampled and mask is not None:
            mask = mask[:, ranges[0]]
        within = taken[1:] if self.field.stepped else taken
        values = self._read(numbers, self._grid.plan(within), mask, keep=True)
        place = tuple(slice(*box[one]) for one in kept)
        return place, values.reshape(tuple(one.stop - one.start for one in place))

    def _read(
        self, numbers: tuple[int, ...], plan: Plan, mask: NDArray[np.bool_] | None, *, keep: bool
    ) -> NDArray[Any]:
        """Return values of shape (steps, *axes after step), dropped axes with length 1."""
        values = np.empty((len(numbers), *plan.lengths), self.dtype)
        if not values.size:
            return values
        try:
            self._fill(values, numbers, plan, keep=keep)
        except FormatError:
            # What lay in one generation of the run when this was planned may lie in the next.
            newer = self.field.renewed()
            if newer is None:
                raise
            self.field = newer
            self._fill(values, numbers, plan, keep=keep)
        if mask is not None:
            absent = ~(mask if self.field.spec.sampled else mask[:, 0])
            values[absent] = np.nan if self.dtype.kind == "f" else self.dtype.type()
        return values

    def _fill(
        self, values: NDArray[Any], numbers: tuple[int, ...], plan: Plan, *, keep: bool
    ) -> None:
        """Read into *values*, of shape (steps, *axes after step), what is recorded."""
        field, parts = self.field, plan.parts
        if field.shards is not None:
            field.shards.read(numbers, plan.taken, values)
            return
        reader = field.run.archive.reader
        straight, block = reader.straight, self._grid.block
        if straight is not None and straight.fill(field, block, numbers, plan, values):
            return
        reads = [TileRead(number, part.tile, part.blocks) for number in numbers for part in parts]
        for at, number, found in reader.blocks(field, block, reads, keep=keep):
            row, part = divmod(at, len(parts))
            # The ellipsis keeps a row of a 1-D array an array, which can be written to.
            step = values[row, ...]
            for source, target in parts[part].cells[number]:
                step[target] = given(found[source], field.spec)


def _split(lengths: Sequence[int], room: int) -> tuple[int, int]:
    """Return the axis that pieces of at most *room* values cut, and how many entries they take.

    The axis is ``len(lengths)`` where there is no axis to cut.
    """
    for axis in range(len(lengths)):
        rest = math.prod(lengths[axis + 1 :])
        if rest <= room or axis == len(lengths) - 1:
            return axis, max(1, room // rest)
    return 0, 1
