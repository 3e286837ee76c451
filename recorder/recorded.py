"""Which tiles of a run exist, for a sampler that resumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive_schema.layout import declared_steps, step_position

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from archive_schema.ledger import FieldLedger
    from archive_schema.models import FieldSpec, RunManifest


@dataclass(frozen=True, slots=True)
class FieldCoverage:
    """The committed tiles of one field."""

    spec: FieldSpec
    counts: Mapping[int, tuple[int, ...]]
    """For each recorded step the samples in each tile; -1 where a tile is not recorded."""

    def has(self, step: int, start: int, stop: int) -> bool:
        """Return whether samples ``[start, stop)`` are recorded; all, without a sample axis."""
        counts = self.counts.get(step)
        size = self.spec.tile
        if counts is None or not size:
            return counts is not None
        return stop <= len(counts) * size and all(
            counts[tile] >= min(size, stop - tile * size)
            for tile in range(start // size, -(-stop // size))
        )

    @property
    def tiles(self) -> frozenset[tuple[int, int, int]]:
        """Return ``(step, start, stop)`` of each tile; samples ``[0, 0)`` without their axis."""
        size = self.spec.tile
        return frozenset(
            (step, tile * size, tile * size + count)
            for step, row in self.counts.items()
            for tile, count in enumerate(row)
            if count >= 0
        )


@dataclass(frozen=True, slots=True)
class Recorded:
    """The committed tiles of a run, as they were when it was asked for."""

    manifest: RunManifest
    fields: Mapping[str, FieldCoverage]
    """By the field's path, such as ``trace/score_matrix``."""
    samples: int
    """Samples of the run: declared, or else recorded so far."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps at which a field is recorded, rising."""
        stepped = (field for field in self.fields.values() if field.spec.place.stepped)
        return tuple(sorted({step for field in stepped for step in field.counts}))

    def has(
        self,
        step: int,
        samples: slice | range | None = None,
        fields: Iterable[str] = (),
    ) -> bool:
        """Return whether every trace and layer field is recorded at *step*.

        Fields that are not due at the step do not count. Where none is known to be due, the
        answer is False.

        Parameters
        ----------
        samples
            ``[start, stop)``; None for all samples of the run.
        fields
            Fields that the run must have, by their paths. Whoever died in its first step may
            have declared some and not others, of which the run knows nothing then.
        """
        if any(path not in self.fields for path in fields):
            return False
        start, stop = (0, self.samples) if samples is None else (samples.start or 0, samples.stop)
        due = [
            field
            for field in self.fields.values()
            if field.spec.place.stepped
            and step_position(self.manifest, field.spec, step) is not None
        ]
        return bool(due) and all(field.has(step, start, stop) for field in due)

    def has_all(
        self, samples: slice | range | None = None, steps: Iterable[int] | None = None
    ) -> bool:
        """Return whether every field is recorded wherever it is due.

        Parameters
        ----------
        steps
            Steps to look at; None for those that the run declares, or has recorded so far.
        """
        if steps is None:
            steps = declared_steps(self.manifest)
        wanted = list(self.steps if steps is None else steps)
        due = [step for step in wanted if self._is_due(step)]
        return bool(due) and all(self.has(step, samples) for step in due)

    def _is_due(self, step: int) -> bool:
        return any(
            field.spec.place.stepped and step_position(self.manifest, field.spec, step) is not None
            for field in self.fields.values()
        )


def coverage_of(ledger: FieldLedger) -> FieldCoverage:
    """Return what is committed of one field."""
    steps = ledger.steps
    rows = ledger.counts(steps).tolist()
    return FieldCoverage(
        ledger.spec, {step: tuple(row) for step, row in zip(steps, rows, strict=True)}
    )
