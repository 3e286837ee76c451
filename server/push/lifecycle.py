"""The beginning and the end of runs that are recorded over HTTP: declared, sealed, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.errors import ConflictError, ErrorKind, FormatError, NotFoundError
from archive_schema.models import RunManifest
from archive_schema.openings import openings
from archive_schema.records import RunRecords, read_manifest
from archive_schema.systems.registry import system
from recorder.maintenance import remove_run
from recorder.opening import manifest_of, open_run
from recorder.sealing import seal_run
from server.push.pushes import is_push_writer

if TYPE_CHECKING:
    from archive_schema.store import Store
    from archive_schema.wire import RunDeclaration


def declare(store: Store, declaration: RunDeclaration) -> bool:
    """Create the run, or find the equal one that is there; return whether it was created.

    Raises
    ------
    InvalidInputError
        ``invalid-name`` or ``invalid-parameter``.
    ConflictError
        ``run-differs``, or ``run-sealed``.
    """
    system(declaration.system)
    manifest = manifest_of(
        declaration.id,
        system=declaration.system,
        metadata=declaration.metadata,
        tags=declaration.tags,
        steps=declaration.steps,
        samples=declaration.samples,
        writers=declaration.writers,
    )
    given = {
        name: value
        for name in ("uid", "created", "software")
        if (value := getattr(declaration, name)) is not None
    }
    manifest = RunManifest(**{**dict(manifest), **given})
    try:
        known = read_manifest(store, manifest.id)
    except NotFoundError:
        known = None
    records = open_run(store, manifest, resume=True)
    return known is None and records.manifest.uid == manifest.uid


def seal(store: Store, run_id: str, *, force: bool) -> None:
    """Seal a run; nothing happens if it is sealed.

    Services that take values over HTTP do not count as recording: what they acknowledged is
    committed, and is in the run.

    Parameters
    ----------
    force
        Stop whoever still records: what they committed is in the run, and no more.

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    ConflictError
        ``writer-active``.
    """
    records = RunRecords(store, run_id)
    if records.seal is None and not force:
        _check_left(records, "force=true stops it", pushed=False)
    seal_run(records)


def remove(store: Store, run_id: str, *, force: bool) -> int:
    """Remove a run and everything in it; return how many objects there were.

    Parameters
    ----------
    force
        Also if somebody records it, or if it is too damaged to tell.

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    ConflictError
        ``writer-active``.
    FormatError
        If it is too damaged to tell whether somebody records it.
    """
    if not force:
        try:
            records = RunRecords(store, run_id)
            if records.seal is None:
                _check_left(records, "force=true removes it all the same", pushed=True)
        except NotFoundError:
            pass  # what is left of a removal that was cut short, or nothing, which is told below
        except FormatError as error:
            message = f"{error}; force=true removes the run all the same"
            raise FormatError(error.kind, message) from error
    return remove_run(store, run_id, force=True)


def _check_left(records: RunRecords, hint: str, *, pushed: bool) -> None:
    """Refuse a run that somebody records; also one that values are put into, if *pushed*."""
    heartbeats = records.heartbeats()
    records.refresh()
    found = openings(records, heartbeats, records.ages_s(heartbeats))
    recording = [
        str(one)
        for one in found
        if one.state == "recording" and (pushed or not is_push_writer(one.claim.writer))
    ]
    if recording:
        message = f"run {records.run_id!r} is recorded by {', '.join(recording)}; {hint}"
        raise ConflictError(ErrorKind.WRITER_ACTIVE, message)
