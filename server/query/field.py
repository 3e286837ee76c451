"""One recorded field, and how a selection of it is checked and planned."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from archive_schema.codecs import BlockDecoder
from archive_schema.dtypes import numpy_dtype
from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.layout import field_path, run_prefix, stored_keys, tile_extent
from archive_schema.ledger import ABSENT
from archive_schema.selection import ALL, take, take_steps
from archive_schema.wire import ranges_text, step_ranges
from server.query.plan import Grid
from server.query.shards import ShardedField
from server.query.slice import Slice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from archive_schema.ledger import FieldLedger
    from archive_schema.selection import Selector, Taken
    from server.query.run import RunView


class FieldView:
    """A field of a run as it is recorded now."""

    def __init__(self, run: RunView, ledger: FieldLedger) -> None:
        self.run = run
        self.ledger = ledger
        self.spec = ledger.spec
        self.path = field_path(*self.spec.address)
        # What was withdrawn may have been recorded again, with other values.
        stored = f"{run.zarr}~{run.records.withdrawn}"
        self.identity = (run.manifest.uid, stored, self.path)
        """Tells the stored values from those of any other field, also of a run before this."""
        shards = run.shards.get(self.path)
        self.shards = None if shards is None else ShardedField(self, shards)
        """What the field's values are read from where they do not lie as recorded."""
        self.dims = self.spec.dims
        self.stepped = self.spec.place.stepped
        """Whether there is a step axis; it is the first then."""
        self.dtype: np.dtype[Any] = numpy_dtype(self.spec.dtype)
        self.decoder = BlockDecoder(self.spec.codec, self.spec.stored_dtype)
        self._key = stored_keys(run.manifest, self.spec, run.zarr)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps with at least one recorded tile, rising; empty for inputs and outputs."""
        if not self.stepped:
            return ()
        known = set(self.run.steps)
        return tuple(step for step in self.ledger.steps if step in known)

    @cached_property
    def shape(self) -> tuple[int | None, ...]:
        """Length along each of *dims*; None where it changes from step to step."""
        lead = (len(self.steps),) if self.stepped else ()
        if not self.spec.ragged:
            return (*lead, *((self.run.samples,) if self.spec.sampled else ()), *self.spec.tail)
        shapes = {shape for step in self.ledger.steps if (shape := self.ledger.shape_at(step))}
        if not shapes:
            return (*lead, *((None,) * (len(self.dims) - len(lead))))
        lengths = [set(axis) for axis in zip(*shapes, strict=True)]
        return (*lead, *(axis.pop() if len(axis) == 1 else None for axis in lengths))

    def select(
        self,
        selectors: Mapping[str, Selector],
        *,
        missing: Literal["error", "mask"] = "error",
    ) -> Slice:
        """Plan a read; whatever can be refused is refused here, before anything is read.

        Parameters
        ----------
        selectors
            By name of a dimension; what is not named is taken whole. The step axis is
            selected by step number, and an integer drops its axis.
        missing : {"error", "mask"}
            What becomes of places that are not recorded: refused, or left out of
            `Slice.recorded`.

        Raises
        ------
        InvalidInputError
            ``unknown-parameter`` for a dimension the field has not, ``selection-out-of-bounds``,
            and ``invalid-selection`` for steps of a ragged field whose shapes differ.
        NotFoundError
            ``step-not-recorded`` and ``not-recorded``, naming what is.
        """
        for name in selectors:
            if name not in self.dims:
                message = f"{self._named} has no dimension {name!r}; expected {self._dims_text}"
                raise InvalidInputError(ErrorKind.UNKNOWN_PARAMETER, message)
        numbers, lead = self._select_steps(selectors.get("step", ALL))
        lengths, grid = self._ragged_extent(numbers) if self.spec.ragged else self._extent
        within = tuple(
            [
                take(selectors[name], name, length) if name in selectors else range(length)
                for name, length in zip(self.dims[len(lead) :], lengths, strict=True)
            ]
        )
        plan = grid.plan(within)
        table = self.ledger.table(numbers, plan.tiles)
        mask = None
        if np.count_nonzero(table[..., 0] < plan.reaches):
            mask = self._mask(numbers, within[0] if self.spec.sampled else 0)
            if missing == "error":
                raise self._not_recorded(numbers, mask, within)
        return Slice(
            self,
            numbers=numbers,
            taken=(*lead, *within),
            grid=grid,
            plan=plan,
            tiles=table[..., 1:],
            mask=mask,
        )

    def ends(self, step: int, tile: int) -> NDArray[np.int64] | None:
        """Return where the blocks of a tile end, or None if it is not recorded."""
        return self.ledger.ends(step, tile)

    def nbytes(self, step: int, tile: int) -> int:
        """Return the length of a tile's object; 0 if it is not recorded."""
        entry = self.ledger.tile(step, tile)
        return 0 if entry is None else entry.nbytes

    def tile_key(self, step: int, tile: int) -> str:
        """Return the key of the object that holds a recorded tile."""
        aside = self.ledger.aside(step, tile)
        return f"{run_prefix(self.run.manifest.id)}/{aside}" if aside else self._key(step, tile)

    def renewed(self) -> FieldView | None:
        """Return the field as it lies since the run was rewritten, or None if it was not.

        Raises
        ------
        NotFoundError
            ``run-not-found``: tiles of a run that was just removed are not lost, the run is.
        """
        run = self.run.archive.renewed(self.run)
        spec = self.spec
        return None if run is None else run.field(spec.name, layer=spec.layer, place=spec.place)

    def _select_steps(self, selector: Selector) -> tuple[tuple[int, ...], tuple[Taken, ...]]:
        if not self.stepped:
            return (0,), ()
        try:
            taken = take_steps(selector, self.steps)
        except NotFoundError as error:
            raise NotFoundError(error.kind, f"{self._named}: {error}") from error
        return (taken,) if isinstance(taken, int) else taken, (taken,)

    @cached_property
    def named_digest(self) -> blake2b:
        """What begins the digest of a slice: which field of which run, and how it is encoded."""
        spec = self.spec
        what = (self.run.manifest.uid, self.path, spec.dtype, spec.source_dtype)
        return blake2b(repr((what, spec.encoding.value)).encode(), digest_size=16)

    @cached_property
    def _extent(self) -> tuple[tuple[int, ...], Grid]:
        """Lengths along the axes after step, and how the tiles are cut into blocks."""
        return self._extent_of(self.spec.tail, self.spec.block)

    def _ragged_extent(self, numbers: tuple[int, ...]) -> tuple[tuple[int, ...], Grid]:
        """Return the same of a ragged field, which must be alike at all steps *numbers*."""
        found = {(e.shape, e.block) for n in numbers if (e := self.ledger.tile(n)) is not None}
        if not found:
            return self._extent_of((0,) * (len(self.dims) - int(self.stepped)), ())
        if len(found) > 1:
            shapes = sorted(shape for shape, _ in found)
            message = (
                f"{self._named} has another shape at each step, from {shapes[0]} to {shapes[-1]};"
                " select one step"
            )
            raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)
        return self._extent_of(*found.pop())

    def _extent_of(
        self, tail: tuple[int, ...], block: tuple[int, ...]
    ) -> tuple[tuple[int, ...], Grid]:
        sampled = self.spec.sampled
        whole = (self.spec.tile, *tail) if sampled else tail
        grid = Grid.of(whole, block or (1,) * len(whole), sampled=sampled)
        return (self.run.samples, *tail) if sampled else tail, grid

    def _mask(self, numbers: tuple[int, ...], samples: Taken) -> NDArray[np.bool_]:
        if not self.spec.sampled:
            present: NDArray[np.bool_] = self.ledger.table(numbers, [0])[..., 0] != ABSENT
            return present
        positions = np.atleast_1d(np.array(samples, np.intp))
        tiles, at = np.unique(positions // self.spec.tile, return_inverse=True)
        counts = self.ledger.table(numbers, tiles.tolist())[..., 0]
        mask: NDArray[np.bool_] = positions % self.spec.tile < counts[:, at]
        return mask

    def _not_recorded(
        self, numbers: tuple[int, ...], mask: NDArray[np.bool_], within: tuple[Taken, ...]
    ) -> NotFoundError:
        row = int(np.flatnonzero(~mask.all(axis=1))[0])
        at = f" at step {numbers[row]}" if self.stepped else ""
        if not self.spec.sampled:
            return NotFoundError(ErrorKind.NOT_RECORDED, f"{self._named} is not recorded{at}")
        asked = np.atleast_1d(np.array(within[0], np.intp))
        lacking = np.unique(asked[~mask[row]]).tolist()
        whole = self._mask((numbers[row],), range(self.run.samples))
        known = np.flatnonzero(whole[0]).tolist()
        there = f"samples {ranges_text(step_ranges(known))}" if known else "no sample"
        message = (
            f"{self._named}: samples {ranges_text(step_ranges(lacking))} are not recorded{at};"
            f" recorded there: {there}"
        )
        return NotFoundError(ErrorKind.NOT_RECORDED, message)

    def tile_name(self, step: int, tile: int) -> str:
        """Say in words which tile is meant."""
        at = f", step {step}" if self.stepped else ""
        if self.spec.sampled:
            start, stop = tile_extent(self.spec, tile, self.run.samples)
            at += f", samples {start}:{stop}"
        return f"{self._named}{at}"

    @property
    def _named(self) -> str:
        return f"field {self.path!r} of run {self.run.manifest.id!r}"

    @property
    def _dims_text(self) -> str:
        return ", ".join(self.dims) or "none, because it is a single value"
