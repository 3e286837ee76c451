"""One opening of a run by one writer: from its claim to its last heartbeat."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from archive_schema.layout import declared_steps
from archive_schema.models import check_name
from archive_schema.store import LocalStore
from recorder.arguments import check_at_least, check_one_of
from recorder.budget import ByteBudget
from recorder.intake import Intake
from recorder.opened import OpenedRun
from recorder.patience import PatientStore
from recorder.plan import Plan, planned_fields
from recorder.presence import OtherWriters, other_writers
from recorder.recorded import Recorded, coverage_of
from recorder.sealing import seal_run
from recorder.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive_schema.models import RunManifest, Seal
    from archive_schema.store import Store

_REMOTE_WORKERS: Final = 16
"""Threads that spend their time waiting for a put."""
_MOST_LOCAL_WORKERS: Final = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How a recorder works, but for what the run declares."""

    writer: str
    owned: tuple[int, int] | None
    """The samples ``[start, stop)`` that this writer owns."""
    tile: int | None
    max_bytes: int
    deadline_s: float
    durability: Literal["process", "disk"]
    resume: bool
    commit_interval_s: float

    def __post_init__(self) -> None:
        """Refuse what no recorder can work with."""
        check_name(self.writer)
        check_one_of("durability", self.durability, ("process", "disk"))
        check_at_least(1, tile=self.tile)
        check_at_least(0, max_bytes=self.max_bytes)
        check_at_least(0, deadline_s=self.deadline_s, commit_interval_s=self.commit_interval_s)


class Session:
    """An open run.

    Raises
    ------
    ConflictError
        As `recorder.opening.open_run`.
    """

    def __init__(self, store: Store, manifest: RunManifest, settings: Settings) -> None:
        workers = _workers(store)
        if not isinstance(store, LocalStore):  # a folder answers, if with an error
            store = PatientStore(store, settings.deadline_s)
        opened = OpenedRun(
            store,
            manifest,
            writer=settings.writer,
            durable=settings.durability == "disk",
            resume=settings.resume,
            owned=settings.owned,
        )
        self._records = opened.records
        self._records_lock = opened.lock
        self.manifest = opened.manifest
        self.claim = opened.claim
        self.steps = opened.steps
        self.samples = opened.samples
        self.fields = opened.fields
        self.budget = ByteBudget(settings.max_bytes)
        self.writer = Writer(
            opened.encoder,
            opened.committer,
            opened.coordinates,
            self.budget,
            workers=workers,
            commit_interval_s=settings.commit_interval_s,
            deadline_s=settings.deadline_s,
        )
        self.intake = Intake(
            self.manifest,
            self.fields,
            self.samples,
            opened.coordinates,
            self.writer,
            tile=settings.tile,
        )
        self.writer.start()

    def recorded(self) -> Recorded:
        """Return which tiles are committed, by all writers."""
        with self._records_lock:
            self._records.refresh()
            ledger = self._records.ledger
            samples = ledger.samples if self.manifest.samples is None else self.manifest.samples
            fields = {path: coverage_of(field) for path, field in ledger.fields.items()}
        return Recorded(self.manifest, fields, samples)

    def plan(self, waiting: Sequence[str]) -> Plan:
        """Return what the fields known so far amount to; *waiting* are layers yet to run."""
        samples = self.samples.known
        known = ((field.path, field.spec) for field in self.fields)
        declared = declared_steps(self.manifest)
        return Plan(
            fields=tuple(planned_fields(known, samples)),
            steps=None if declared is None else len(declared),
            rate=self.intake.rate(self.budget.waited_s),
            max_bytes=self.budget.max_bytes,
            waiting=tuple(waiting),
        )

    def others(self) -> OtherWriters:
        """Return how the other writers of the run are doing; this one must be closed."""
        return other_writers(self._records, self.claim)

    def seal(self) -> Seal:
        """Seal the run; the writer must be closed."""
        return seal_run(self._records)


def _workers(store: Store) -> int:
    """Return how many threads encode and put: as many as the store keeps busy."""
    if not isinstance(store, LocalStore):
        return _REMOTE_WORKERS
    return min(_MOST_LOCAL_WORKERS, max(2, (os.cpu_count() or 1) // 4))
