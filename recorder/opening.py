"""How a recorder comes to its run: it creates the run, or resumes what an equal one left."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from archive_schema.documents import document_bytes, parse_document, read_document
from archive_schema.errors import ConflictError, ErrorKind, NotFoundError
from archive_schema.layout import commits_prefix, field_path, run_prefix
from archive_schema.models import Claim, FieldSpec, RunManifest
from archive_schema.records import RunRecords, claim_epoch, create_run, read_manifest
from recorder.arguments import integer
from recorder.presence import other_writers, overlap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from archive_schema.store import Store

SOFTWARE: Final = f"trace-archive {version('trace-archive')}"

_DECLARED: Final = ("system", "steps", "samples", "writers", "metadata")
"""What must be equal for a run to be resumed."""


def manifest_of(
    run_id: str,
    *,
    system: str,
    metadata: Mapping[str, Any],
    tags: Iterable[str],
    steps: int | Iterable[int] | None,
    samples: int | None,
    writers: int | None = None,
) -> RunManifest:
    """Return the declaration of a new run.

    Raises
    ------
    InvalidInputError
        ``invalid-name`` or ``invalid-parameter``.
    """
    manifest = RunManifest(
        id=run_id,
        uid=secrets.token_hex(16),
        system=system,
        created=datetime.now(UTC),
        metadata=dict(metadata),
        tags=tuple(tags),
        steps=_steps(steps),
        samples=None if samples is None else integer("samples", samples),
        writers=None if writers is None else integer("writers", writers),
        software=SOFTWARE,
    )
    # As it will be read back: what JSON turns into something else must not look like a change.
    return parse_document(document_bytes(manifest), "the run's declaration", RunManifest)


def open_run(store: Store, manifest: RunManifest, *, resume: bool) -> RunRecords:
    """Create the run, or return what is recorded of it.

    Raises
    ------
    ConflictError
        ``run-exists`` if it is there and must not be resumed, ``run-sealed``, or
        ``run-differs`` if it was declared otherwise.
    """
    try:
        known = read_manifest(store, manifest.id)
    except NotFoundError:
        known = _created(store, manifest)
    if known.uid == manifest.uid:
        return RunRecords(store, manifest.id)
    if not resume:
        message = f"{store.url} already has a run {manifest.id!r}"
        raise ConflictError(ErrorKind.RUN_EXISTS, message)
    _check_same(known, manifest)
    records = RunRecords(store, manifest.id)
    check_not_sealed(records)
    return records


def check_not_sealed(records: RunRecords) -> None:
    """Refuse a run that is sealed.

    Raises
    ------
    ConflictError
        ``run-sealed``.
    """
    if records.seal is not None:
        message = (
            f"run {records.run_id!r} was sealed at {records.seal.time:%Y-%m-%d %H:%M:%S} UTC;"
            " nothing can be added to it"
        )
        raise ConflictError(ErrorKind.RUN_SEALED, message)


def claim(records: RunRecords, writer: str, owned: tuple[int, int] | None = None) -> Claim:
    """Claim a new epoch of the run for this process, and the samples *owned* if it says so."""
    wanted = Claim(
        writer=writer,
        epoch=0,
        nonce=secrets.token_hex(16),
        time=datetime.now(UTC),
        host=socket.gethostname(),
        process=os.getpid(),
        samples=owned,
    )
    return claim_epoch(records.store, records.run_id, wanted)


def take_over(records: RunRecords, claimed: Claim) -> None:
    """End the earlier openings by this writer: what they committed is known and final then."""
    where = f"{claimed.host}, process {claimed.process}"
    for writer, epoch in records.open_epochs:
        if writer == claimed.writer and epoch < claimed.epoch:
            records.fence(writer, epoch, "replaced", f"opened again by {where}")


def take_part(records: RunRecords, claimed: Claim) -> None:
    """See to it that no other writer records the samples that this one owns.

    A writer that is lost is ended, if it should wake up: its part is this one's now. Of two that
    open the run at the same instant, each sees the other's claim, and at least one is refused.

    Raises
    ------
    ConflictError
        ``part-taken`` while another writer records any of these samples.
    """
    if claimed.samples is None:
        return
    start, stop = claimed.samples
    overlapping = [
        one
        for one in other_writers(records, claimed).openings
        if one.claim.writer != claimed.writer and overlap(one.claim, start, stop)
    ]
    for one in overlapping:
        if one.state == "recording":
            message = (
                f"run {records.run_id!r}: writer {claimed.writer!r} cannot own samples"
                f" [{start}, {stop}) while {one} records; that writer may be started again by its"
                " own name, or replaced by another a minute after its last word"
            )
            raise ConflictError(ErrorKind.PART_TAKEN, message)
    for one in overlapping:
        if one.state in ("lost", "failed"):
            reason = f"its samples were taken over by {claimed.writer} on {claimed.host}"
            records.fence(one.claim.writer, one.claim.epoch, "replaced", reason)


def declared_fields(records: RunRecords) -> list[FieldSpec]:
    """Return every field of the run, also those of which nothing is committed yet."""
    known = {path: ledger.spec for path, ledger in records.ledger.fields.items()}
    for found in records.store.objects(f"{run_prefix(records.run_id)}/fields"):
        spec = read_document(records.store, found.key, FieldSpec)
        known.setdefault(field_path(*spec.address), spec)
    return list(known.values())


def _steps(steps: int | Iterable[int] | None) -> int | tuple[int, ...] | None:
    if steps is None:
        return None
    if isinstance(steps, Iterable):
        return tuple(integer("a step", step) for step in steps)
    return integer("steps", steps)


def _created(store: Store, manifest: RunManifest) -> RunManifest:
    """Create the run; return what is declared, which another process may have been first to do."""
    leftovers = store.folders(commits_prefix(manifest.id))
    try:
        if leftovers:
            # Claims come after the manifest: without one, these are what is left of a removal.
            return read_manifest(store, manifest.id)
        create_run(store, manifest)
    except NotFoundError:
        message = (
            f"{store.url} holds what is left of a run {manifest.id!r} that was not removed to its"
            f" end; run `trace-archive rm {manifest.id}` again"
        )
        raise ConflictError(ErrorKind.RUN_EXISTS, message) from None
    except ConflictError:
        return read_manifest(store, manifest.id)
    return manifest


def _check_same(known: RunManifest, wanted: RunManifest) -> None:
    differing = [
        f"{name} {getattr(known, name)!r:.200}, now {getattr(wanted, name)!r:.200}"
        for name in _DECLARED
        if getattr(known, name) != getattr(wanted, name)
    ]
    if differing:
        message = f"run {known.id!r} is declared otherwise: {'; '.join(differing)}"
        raise ConflictError(ErrorKind.RUN_DIFFERS, message)
