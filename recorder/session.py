"""One opening of a run by one writer: from its claim to its last heartbeat.

`accept` is what the sampler's thread pays for: first everything of a call is checked, then
everything is copied and queued, so that a call which is refused records nothing.
"""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, invalid
from archive_schema.layout import declared_steps, field_path
from archive_schema.models import Place
from archive_schema.store import LocalStore
from archive_schema.systems.registry import system
from recorder.axes import SampleAxis, StepAxis
from recorder.budget import ByteBudget
from recorder.committer import Committer
from recorder.coordinates import Coordinates
from recorder.declaration import check_free
from recorder.documents import ZarrDocuments
from recorder.encoder import AcceptedTile, TileEncoder
from recorder.fields import Fields
from recorder.opening import check_not_sealed, claim, declared_fields, open_run
from recorder.plan import Plan, planned_fields
from recorder.presence import live_writers
from recorder.recorded import Recorded, coverage_of
from recorder.sealing import seal_run
from recorder.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from archive_schema.models import RunManifest, Scalar, Seal
    from archive_schema.store import Store
    from recorder.declaration import Address
    from recorder.fields import RecordedField
    from recorder.snapshot import Values

_REMOTE_WORKERS: Final = 16
"""Threads that spend their time waiting for a put."""
_MOST_LOCAL_WORKERS: Final = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How a recorder works, but for what the run declares."""

    writer: str
    tile: int | None
    max_bytes: int
    deadline_s: float
    durable: bool
    resume: bool
    commit_interval_s: float


@dataclass(frozen=True, slots=True)
class Offer:
    """Values of one field in one call, not yet checked or copied."""

    address: Address
    values: Values
    bounds: tuple[int, int] | None
    """Samples ``[start, stop)`` that the values hold; None for all samples of the run."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """Values that were checked, and the tiles that they make up."""

    field: RecordedField
    values: Values
    tiles: Sequence[tuple[int, int, int]]
    """``(tile, start, stop)``, by samples of the run."""
    first: int
    """Sample of the run that is the first of `values`."""


class Session:
    """An open run.

    Raises
    ------
    ConflictError
        As `recorder.opening.open_run`.
    """

    def __init__(self, store: Store, manifest: RunManifest, settings: Settings) -> None:
        self._records = open_run(store, manifest, resume=settings.resume)
        self._settings = settings
        self.manifest = self._records.manifest
        self.claim = claim(self._records, settings.writer)
        self.steps = StepAxis(self.manifest.steps)
        self.samples = SampleAxis(self.manifest.samples)
        self.fields = Fields(system(self.manifest.system))
        self.budget = ByteBudget(settings.max_bytes)
        ledger = self._records.ledger
        known = declared_fields(self._records)
        for spec in known:
            self.fields.resume(spec)
            field = ledger.declare(field_path(*spec.address), spec)
            self.samples.resume(spec, field.samples)
        self._tile = settings.tile or next((spec.tile for spec in known if spec.tile), None)
        self._coordinates = Coordinates(ledger)
        self._names = self._coordinates.names
        documents = ZarrDocuments(
            store,
            self.manifest,
            known,
            steps=ledger.steps[-1] + 1 if ledger.steps else 0,
            samples=ledger.samples,
        )
        self._records_lock = threading.Lock()
        """Held by whoever reads or changes `_records` while the writer runs."""
        self._call = threading.RLock()
        """Held during a call, should several threads make one."""
        self._accepted_nbytes = 0
        self._first_call_s: float | None = None
        committer = Committer(
            self._records, self.claim, self._records_lock, durable=settings.durable
        )
        # Heard of before it looks for a seal: who seals looks the other way round.
        committer.beat()
        self._records.refresh()
        check_not_sealed(self._records)
        self.writer = Writer(
            TileEncoder(self._records, documents, settings.writer, self._records_lock),
            committer,
            self._coordinates,
            self.budget,
            workers=_workers(store),
            commit_interval_s=settings.commit_interval_s,
            deadline_s=settings.deadline_s,
        )
        self.writer.start()

    def accept(
        self,
        offers: Sequence[Offer],
        coordinates: Sequence[tuple[str, str, Scalar]],
        step: int,
        at: int,
    ) -> None:
        """Take the values of one call.

        Parameters
        ----------
        offers
            Arrays, not yet copied.
        coordinates
            Name, dtype and value of step coordinates.
        step, at : int
            The step's number, and its position on the run's step axis.

        Raises
        ------
        InvalidInputError
            If anything of it breaks a rule; nothing is recorded then.
        ConflictError
            ``coordinate-differs``.
        ArchiveError
            What ended the writer.
        """
        with self._call:
            if self._first_call_s is None:
                self._first_call_s = time.monotonic()
            planned = [plan for offer in offers if (plan := self._planned(offer, at)) is not None]
            for plan in planned:
                if self.fields.get(plan.field.spec.address) is None:
                    self._check_name(plan.field)
                    self.fields.keep(plan.field)
            self._put_coordinates(step, coordinates)
            for plan in planned:
                for tile, start, stop in plan.tiles:
                    self._queue(plan, step, tile, start, stop)

    def put_samples(self, start: int, name: str, values: NDArray[Any]) -> None:
        """Take the values of a sample coordinate, for ``[start, start + len(values))``."""
        self.writer.check()
        self._check_coordinate_name(name)
        self._coordinates.put_samples(start, name, values)
        self.writer.announce()

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
            rate=self._rate(),
            max_bytes=self.budget.max_bytes,
            waiting=tuple(waiting),
        )

    def others(self) -> list[str]:
        """Return the names of other writers that record now."""
        return live_writers(self._records, self._settings.writer)

    def seal(self) -> Seal:
        """Seal the run; the writer must be closed."""
        return seal_run(self._records)

    def _rate(self) -> float | None:
        if self._first_call_s is None:
            return None
        elapsed_s = time.monotonic() - self._first_call_s - self.budget.waited_s
        return self._accepted_nbytes / elapsed_s if elapsed_s > 0 else None

    def _planned(self, offer: Offer, at: int) -> _Planned | None:
        """Check one array, and say which tiles it makes up; None where its field is not due."""
        address, values, bounds = offer.address, offer.values, offer.bounds
        field = self.fields.get(address)
        if field is None:
            options = self.fields.options(address)
            if address[0].stepped and (at < options.first or (at - options.first) % options.every):
                return None
            field = self._first_seen(offer)
        elif field.spec.place.stepped and not field.takes(at):
            return None
        shape = values.shape
        field.check(values.source, shape)
        if not field.spec.tile:
            return _Planned(field, values, ((0, 0, 0),), 0)
        start, stop = self._whole(field, shape[0]) if bounds is None else bounds
        if shape[0] != stop - start:
            message = (
                f"field {field.spec.name!r}: expected {stop - start} samples,"
                f" [{start}, {stop}), got shape {shape}"
            )
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        return _Planned(field, values, self.samples.tiles(field.spec, start, stop), start)

    def _first_seen(self, offer: Offer) -> RecordedField:
        shape = offer.values.shape
        start, stop = offer.bounds or (0, shape[0] if shape else 0)
        size = self._tile or stop - start
        if self.manifest.samples:
            size = min(size, self.manifest.samples)
        sampled = offer.address[0].stepped or offer.bounds is not None
        return self.fields.declare(
            offer.address, offer.values.source, shape, sampled=sampled, tile=max(size, 1)
        )

    def _whole(self, field: RecordedField, length: int) -> tuple[int, int]:
        """Return all samples of the run, which *length* values are taken for."""
        declared = self.manifest.samples
        if not length or length != (declared or length):
            expected = "at least one sample" if declared is None else f"all {declared} samples"
            message = (
                f"field {field.spec.name!r}: expected {expected}, got {length};"
                " say which they are by samples=slice(start, stop), or name the axes by"
                f" declare({field.spec.name!r}, dims=…) if the first is not the sample axis"
            )
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        return 0, length

    def _put_coordinates(self, step: int, coordinates: Sequence[tuple[str, str, Scalar]]) -> None:
        new = False
        for name, dtype, value in coordinates:
            if name not in self._names:
                self._check_coordinate_name(name)
                self._names.add(name)
            new |= self._coordinates.put_step(step, name, dtype, value)
        if new:
            self.writer.announce()

    def _queue(self, plan: _Planned, step: int, tile: int, start: int, stop: int) -> None:
        part = plan.values
        if len(plan.tiles) > 1:
            part = part.part(start - plan.first, stop - plan.first)
        stored_nbytes = math.prod(part.shape) * plan.field.stored_itemsize
        cost = part.nbytes + stored_nbytes
        self.writer.reserve(cost)
        try:
            snapshot = part.snapshot()
        except BaseException:
            self.writer.cancel(cost)
            raise
        self.writer.put(AcceptedTile(plan.field, step, tile, start, stop, snapshot, cost))
        self._accepted_nbytes += stored_nbytes

    def _check_name(self, field: RecordedField) -> None:
        """Refuse a field that would lie where a coordinate lies."""
        name = field.spec.name
        if field.spec.place is Place.TRACE and name in self._names:
            message = f"{name!r} is a coordinate already, got an array: a field needs another name"
            raise invalid(ErrorKind.INVALID_NAME, message)

    def _check_coordinate_name(self, name: str) -> None:
        check_free(name)
        if self.fields.get((Place.TRACE, None, name)) is not None:
            message = f"{name!r} is a field already, got a scalar: a coordinate needs another name"
            raise invalid(ErrorKind.INVALID_NAME, message)


def _workers(store: Store) -> int:
    """Return how many threads encode and put: as many as the store keeps busy."""
    if not isinstance(store, LocalStore):
        return _REMOTE_WORKERS
    return min(_MOST_LOCAL_WORKERS, max(2, (os.cpu_count() or 1) // 4))
