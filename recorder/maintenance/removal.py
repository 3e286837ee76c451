"""Remove a run, so that no reader ever takes what is left for the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.annotations import annotations_key
from archive_schema.errors import ConflictError, ErrorKind, FormatError, NotFoundError
from archive_schema.layout import manifest_key, run_prefix, zarr_key
from archive_schema.models import check_run_id
from archive_schema.store import HttpStore
from recorder.maintenance.reading import mapped, patient
from recorder.maintenance.survey import Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive_schema.store import Store


def remove_run(
    store: Store,
    run_id: str,
    *,
    force: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Remove every object of a run, also of one that is damaged; return how many there were.

    The manifest goes first, and then its copy: without them there is no run, and what was cut
    short here is swept by removing the run once more. A server removes a run as a whole.

    Parameters
    ----------
    force : bool
        Also while a writer records.
    progress : callable of (objects done, objects in all), optional

    Raises
    ------
    NotFoundError
        ``run-not-found`` if the run has no object at all.
    ConflictError
        ``writer-active``.
    """
    if isinstance(store, HttpStore):
        return store.remove_run(check_run_id(run_id), force=force)
    store = patient(store)
    keys = [found.key for found in store.objects(run_prefix(check_run_id(run_id)))]
    if not keys:
        raise NotFoundError(ErrorKind.RUN_NOT_FOUND, f"{store.url} has no run {run_id!r}")
    if not force:
        _check_idle(store, run_id)
    for key in (manifest_key(run_id), zarr_key(run_id, "zarr.json")):
        store.delete(key)
    for done, _ in enumerate(mapped(store, store.delete, keys), 1):
        if progress is not None:
            progress(done, len(keys))
    store.delete(annotations_key(run_id))
    return len(keys)


def _check_idle(store: Store, run_id: str) -> None:
    try:
        survey = Survey(store, run_id)
    except FormatError:  # of another version: nobody of this one records it
        return
    if survey.sealed:
        return
    recording = sorted({one.writer for one in survey.open_epochs if survey.alive(one)})
    if recording:
        message = (
            f"run {run_id!r} is being recorded by {', '.join(recording)}: end it first, or say that"
            " it is to be removed all the same"
        )
        raise ConflictError(ErrorKind.WRITER_ACTIVE, message)
