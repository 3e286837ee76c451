"""A run as one writer has it open: what is recorded of it, and all it takes to add to it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from archive_schema.errors import ConflictError, InvalidInputError, StorageError
from archive_schema.layout import field_path
from archive_schema.systems.registry import system
from recorder.axes import SampleAxis, StepAxis
from recorder.committer import Committer
from recorder.coordinates import Coordinates
from recorder.documents import ZarrDocuments
from recorder.encoder import TileEncoder
from recorder.fields import Fields
from recorder.opening import (
    check_not_sealed,
    claim,
    declared_fields,
    open_run,
    take_over,
    take_part,
)
from recorder.sealing import seal_run

if TYPE_CHECKING:
    from archive_schema.models import RunManifest
    from archive_schema.store import Store


class OpenedRun:
    """One opening of a run by one writer, which claims an epoch and ends those before it.

    Parameters
    ----------
    durable : bool
        Whether what is committed must survive a power cut.
    resume : bool
        Whether a run that exists may be opened.
    owned
        The samples ``[start, stop)`` that this writer owns, and nobody else may record.

    Raises
    ------
    ConflictError
        As `recorder.opening.open_run`.
    """

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        *,
        writer: str,
        durable: bool,
        resume: bool,
        owned: tuple[int, int] | None = None,
    ) -> None:
        self.records = open_run(store, manifest, resume=resume)
        self.lock = threading.Lock()
        """Held by whoever reads or changes `records` while tiles are stored."""
        self.manifest = self.records.manifest
        self.claim = claim(self.records, writer, owned)
        # Claimed before it looks for a sealing: who seals looks the other way round.
        if self.records.is_sealing():
            seal_run(self.records)
        self.records.refresh()
        check_not_sealed(self.records)
        take_over(self.records, self.claim)
        self.committer = Committer(self.records, self.claim, self.lock, durable=durable)
        self.committer.beat()
        try:
            take_part(self.records, self.claim)
            self._resume(store)
        except (ConflictError, InvalidInputError) as error:
            # Others need not wait for a writer that was refused.
            with suppress(StorageError):
                self.committer.end("refused", str(error))
                self.committer.beat("closed", str(error))
            raise

    def all_declared(self) -> bool:
        """Return whether the store has the declarations of all fields that are known here."""
        declared = self.records.ledger.fields
        return all(field.path in declared for field in self.fields)

    def _resume(self, store: Store) -> None:
        """Take note of what is recorded."""
        ledger = self.records.ledger
        self.steps = StepAxis(self.manifest.steps)
        self.samples = SampleAxis(self.manifest.samples, self.claim.samples)
        self.fields = Fields(system(self.manifest.system))
        known = declared_fields(self.records)
        for spec in known:
            self.fields.resume(spec)
            field = ledger.declare(field_path(*spec.address), spec)
            self.samples.resume(spec, field.samples)
        self.coordinates = Coordinates(ledger)
        documents = ZarrDocuments(
            store,
            self.manifest,
            known,
            steps=ledger.steps[-1] + 1 if ledger.steps else 0,
            samples=ledger.samples,
        )
        self.encoder = TileEncoder(self.records, documents, self.claim, self.lock)
