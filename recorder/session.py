"""One opening of a run by one writer: from its claim to its last heartbeat."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from archive_schema.errors import ArchiveError, ErrorKind, StorageError
from archive_schema.layout import declared_steps
from archive_schema.models import check_name
from archive_schema.store import LocalStore
from recorder.adoption import adopt
from recorder.arguments import check_at_least, check_one_of
from recorder.budget import ByteBudget
from recorder.intake import Intake
from recorder.opened import OpenedRun
from recorder.overflow import Overflow
from recorder.patience import PatientStore
from recorder.plan import Plan, planned_fields
from recorder.presence import OtherWriters, other_writers
from recorder.recorded import Recorded, coverage_of
from recorder.sealing import seal_run
from recorder.spool import Spool, SpoolSession, without_secrets
from recorder.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archive_schema.models import RunManifest, Seal
    from archive_schema.store import Store
    from recorder.spool import SpoolSettings

_REMOTE_WORKERS: Final = 16
"""Threads that spend their time waiting for a put."""
_MOST_LOCAL_WORKERS: Final = 8
_SHARE_OF_DEADLINE: Final = 0.25
_LONGEST_PATIENCE_S: Final = 5.0
"""How long the store may keep a tile waiting that can go to the spool."""


class NoSpoolWarning(UserWarning):
    """There is no spool where it lies if nobody says, and so no help while the store is away."""


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
    spool: SpoolSettings | None = None
    """Where tiles wait while the store is away; None for nowhere."""

    def __post_init__(self) -> None:
        """Refuse what no recorder can work with."""
        check_name(self.writer)
        check_one_of("durability", self.durability, ("process", "disk"))
        check_at_least(1, tile=self.tile)
        check_at_least(0, max_bytes=self.max_bytes)
        check_at_least(0, deadline_s=self.deadline_s, commit_interval_s=self.commit_interval_s)


class Session:
    """An open run.

    Parameters
    ----------
    spool : Spool, optional
        One that has taken over what a dead recorder left, and that the caller closes; otherwise
        it is made as *settings* say.

    Raises
    ------
    ConflictError
        As `recorder.opening.open_run`.
    """

    def __init__(
        self, store: Store, manifest: RunManifest, settings: Settings, spool: Spool | None = None
    ) -> None:
        workers = _workers(store)
        self._settings = settings
        self.spool = spool or _spool(store, manifest.id, settings)
        self._closes_spool = spool is None
        patient = None
        if self.spool is not None or not isinstance(store, LocalStore):
            # Without a spool a folder answers, if with an error.
            store = patient = PatientStore(store, settings.deadline_s)
        self._store = patient
        try:
            opened = OpenedRun(
                store,
                manifest,
                writer=settings.writer,
                durable=settings.durability == "disk",
                resume=settings.resume,
                owned=settings.owned,
            )
            self._overflow = self._begun(opened, patient, settings)
        except BaseException:
            self._close_spool(seal=False)
            raise
        self._records = opened.records
        self._committer = opened.committer
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
            self._overflow,
            all_declared=opened.all_declared,
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
        """Return which tiles are committed, by all writers, or kept in this one's spool."""
        with self._records_lock:
            try:
                self._records.refresh()
            except StorageError:
                # What is known of an archive that is away is true, if perhaps not all.
                if self._overflow is None or not self._overflow.away:
                    raise
            ledger = self._records.ledger
            samples = ledger.samples if self.manifest.samples is None else self.manifest.samples
            fields = {path: coverage_of(field) for path, field in ledger.fields.items()}
        if self._overflow is not None:
            fields = self._overflow.added_to(fields)
            samples = max(samples, self.samples.known)
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

    def close(self, error: str = "", *, seal: bool = False) -> None:
        """Commit what was accepted and stop; errors as `Writer.close`.

        Parameters
        ----------
        error
            Why the run is given up, for readers; empty if it is not.
        seal : bool
            Whether the run is to be sealed, now or once what is left in the spool is drained.
            `tell_closed` is due if it is not sealed after all.
        """
        all_kept = False
        try:
            self.writer.close(error, sealing=seal)
        except StorageError as left:
            all_kept = left.kind is ErrorKind.SPOOLED
            raise
        finally:
            if self._store is not None:
                self._store.fails_fast = False
                self._store.patience_s = self._settings.deadline_s
            # Nothing is sealed of which a part was lost.
            self._close_spool(seal=seal and all_kept)

    def _close_spool(self, *, seal: bool) -> None:
        if self.spool is not None and self._closes_spool:
            self.spool.close(seal=seal)

    def tell_closed(self) -> None:
        """Tell readers that this writer has closed, and the run is not sealed."""
        with suppress(ArchiveError):  # it will be taken for gone, a little later
            self._committer.beat("closed")

    def seal(self) -> Seal:
        """Seal the run; the writer must be closed."""
        return seal_run(self._records)

    def _begun(
        self, opened: OpenedRun, store: PatientStore | None, settings: Settings
    ) -> Overflow | None:
        """Take over what is left in the spool, and spare the sampler the store's outages."""
        if self.spool is None or store is None or settings.spool is None:
            return None
        session = SpoolSession(
            store=without_secrets(store.url),
            options=settings.spool.options,
            manifest=opened.manifest,
            writer=settings.writer,
            samples=settings.owned,
            host=opened.claim.host,
            process=opened.claim.process,
            time=opened.claim.time,
            seal=settings.spool.seal,
        )
        try:
            self.spool.begin(session)
        except StorageError as error:
            if settings.spool.required or self.spool.dead:
                raise
            _warn_of_no_spool(error, settings)
            self.spool = None
            return None
        overflow = Overflow(self.spool, store, opened.manifest, opened.coordinates)
        adopt(overflow, opened)
        store.patience_s = min(_LONGEST_PATIENCE_S, settings.deadline_s * _SHARE_OF_DEADLINE)
        store.fails_fast = True
        return overflow


def _spool(store: Store, run: str, settings: Settings) -> Spool | None:
    """Return the spool that is wanted, or None, with a warning if only the default cannot be."""
    chosen = settings.spool
    if chosen is None:
        return None
    try:
        return Spool(
            chosen.place,
            store=store.url,
            run=run,
            writer=settings.writer,
            max_bytes=chosen.max_bytes,
            durable=settings.durability == "disk",
        )
    except StorageError as error:
        if chosen.required:
            raise
        _warn_of_no_spool(error, settings)
        return None


def _warn_of_no_spool(error: StorageError, settings: Settings) -> None:
    message = (
        f"{error}; should the store be away for longer than {settings.deadline_s:g} s, recording"
        " stops. Name another place by spool=…, or none by spool=False"
    )
    warnings.warn(message, NoSpoolWarning, stacklevel=6)


def _workers(store: Store) -> int:
    """Return how many threads encode and put: as many as the store keeps busy."""
    if not isinstance(store, LocalStore):
        return _REMOTE_WORKERS
    return min(_MOST_LOCAL_WORKERS, max(2, (os.cpu_count() or 1) // 4))
