"""What of a run goes into a file: the steps and samples asked for, as far as they are recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.layout import step_position
from archive_schema.ledger import ABSENT
from archive_schema.selection import ALL, selector_text, take, take_steps
from archive_schema.wire import ranges_text, step_ranges
from server.query import matching_layers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from archive_schema.models import Place
    from archive_schema.selection import Selector
    from server.exporters.values import Positions
    from server.query.field import FieldView
    from server.query.run import RunView


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a run that a file holds. A step is in it with all samples asked for.

    As long as a run is not sealed, a step is left out while one of its fields is still
    on its way; in a sealed run a field may lack steps.
    """

    run: RunView
    steps: tuple[int, ...]
    samples: Positions
    whole: bool
    """Whether every step and sample that is recorded is in it."""
    notes: tuple[str, ...]
    """What a user should know of what was left out, a sentence each."""
    _steps_of: Mapping[str, frozenset[int]]

    @property
    def selection(self) -> tuple[str, str] | None:
        """Selectors of just these steps and samples, by which the cut is made again later.

        None where it takes more than a range of each.
        """
        steps, samples = step_ranges(self.steps) or ((0, 0, 1),), self.samples
        if len(steps) > 1 or not isinstance(samples, range) or samples.step != 1:
            return None
        return selector_text(slice(*steps[0])), f"{samples.start}:{samples.stop}"

    def has(self, field: FieldView, step: int) -> bool:
        """Return whether *field* is recorded at *step* for all samples of the cut."""
        return step in self._steps_of.get(field.path, frozenset())

    def steps_of(self, field: FieldView) -> tuple[int, ...]:
        """Return the steps of the cut that *field* is recorded at, for all its samples."""
        known = self._steps_of.get(field.path, frozenset())
        return tuple(step for step in self.steps if step in known)

    def fields(self, *places: Place) -> list[FieldView]:
        """Return the fields of *places* that are in the cut at all."""
        found = self.run.fields()
        return [f for f in found if f.spec.place in places and self._steps_of.get(f.path)]


def cut_run(
    run: RunView,
    steps: Selector | None = None,
    samples: Selector | None = None,
    fields: Collection[str] | None = None,
    layers: Collection[str] | None = None,
) -> Cut:
    """Decide what of *run* a file holds.

    Parameters
    ----------
    steps, samples : Selector, optional
        By step number and position; an integer takes one.
    fields : collection of str, optional
        Names of fields, in whatever place or layer they are.
    layers : collection of str, optional
        Globs: of the layers only those that match one of them.

    Raises
    ------
    NotFoundError
        ``field-not-found``; ``layer-not-found``; ``step-not-recorded``; ``not-recorded`` if no
        step, or not each of the steps named one by one, is recorded for all samples.
    InvalidInputError
        ``selection-out-of-bounds``.
    """
    chosen = _chosen(run, fields)
    if layers is not None:
        wanted = {None, *(name for glob in layers for name in matching_layers(run, glob))}
        chosen = [field for field in chosen if field.spec.layer in wanted]
    taken = take(ALL if samples is None else samples, "sample", run.samples)
    positions = range(taken, taken + 1) if isinstance(taken, int) else taken
    asked = take_steps(ALL if steps is None else steps, run.steps)
    numbers = (asked,) if isinstance(asked, int) else tuple(sorted(set(asked)))
    # At all steps, so that it does not depend on those asked for which of them are complete.
    steps_of = {field.path: _recorded(field, run.steps, positions) for field in chosen}
    stepped = [field for field in chosen if field.spec.place.stepped]
    kept = tuple(n for n in numbers if _complete(run, stepped, steps_of, n))
    lacking = sorted(set(numbers) - set(kept))
    notes = []
    if lacking:
        notes.append(_lacking(run, lacking, positions))
        if not kept or not isinstance(ALL if steps is None else steps, slice):
            raise NotFoundError(ErrorKind.NOT_RECORDED, f"{notes[0]}; {_hint(run, stepped)}")
    if not kept and not any(steps_of.values()):
        message = f"nothing of run {run.manifest.id!r} is recorded for all the samples asked for"
        raise NotFoundError(ErrorKind.NOT_RECORDED, message)
    partial = [f.path for f in chosen if not steps_of[f.path] and f.ledger.count]
    if partial:
        notes.append(f"not recorded for all samples asked for, left out: {', '.join(partial)}")
    whole = not lacking and numbers == run.steps and len(positions) == run.samples
    return Cut(run, kept, positions, whole, tuple(notes), steps_of)


def _chosen(run: RunView, names: Collection[str] | None) -> list[FieldView]:
    found = run.fields()
    if names is None:
        return found
    known = list(dict.fromkeys(field.spec.name for field in found))
    for name in names:
        if name not in known:
            message = (
                f"run {run.manifest.id!r} has no field {name!r};"
                f" expected some of {', '.join(known) or 'none'}"
            )
            raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
    return [field for field in found if field.spec.name in names]


def _recorded(field: FieldView, steps: tuple[int, ...], samples: Positions) -> frozenset[int]:
    """Return those of *steps* at which *field* is recorded for all *samples*.

    Inputs and outputs have no steps; the one that stands for them is 0.
    """
    at = steps if field.spec.place.stepped else (0,)
    there = (field.ledger.counts(at) != ABSENT).any(axis=1)
    if field.spec.sampled and len(samples):
        mask = field.ledger.recorded(field.run.samples, at)
        there = mask[:, np.array(samples, np.intp)].all(axis=1)
    return frozenset(step for step, is_there in zip(at, there.tolist(), strict=True) if is_there)


def _complete(
    run: RunView,
    fields: Sequence[FieldView],
    steps_of: Mapping[str, frozenset[int]],
    step: int,
) -> bool:
    there = [step in steps_of[field.path] for field in fields]
    if run.sealed or all(there):
        return any(there) or not fields
    on_its_way = (
        steps_of[field.path] and step_position(run.manifest, field.spec, step) is not None
        for field, is_there in zip(fields, there, strict=True)
        if not is_there
    )
    return any(there) and not any(on_its_way)


def _lacking(run: RunView, steps: Sequence[int], samples: Positions) -> str:
    count = len(samples)
    which = f"all {count} samples" if count == run.samples else f"the {count} samples asked for"
    return (
        f"steps {ranges_text(step_ranges(steps))} of run {run.manifest.id!r} are not recorded"
        f" for {which} and are left out"
    )


def _hint(run: RunView, fields: Sequence[FieldView]) -> str:
    """Say which samples a file could be had of."""
    masks = [
        field.ledger.recorded(run.samples, field.ledger.steps).any(axis=0)
        for field in fields
        if field.spec.sampled
    ]
    if not masks:
        return "nothing else is recorded"
    there = np.flatnonzero(np.logical_and.reduce(masks)).tolist()
    return f"samples with all fields: {ranges_text(step_ranges(there)) if there else 'none'}"
