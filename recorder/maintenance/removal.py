"""Remove a run, so that no reader ever takes what is left for the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.annotations import annotations_key
from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.layout import manifest_key, run_prefix
from archive_schema.models import check_run_id
from archive_schema.store import HttpStore

if TYPE_CHECKING:
    from archive_schema.store import Store


def remove_run(store: Store, run_id: str) -> int:
    """Remove every object of a run, also of one that is damaged; return how many there were.

    The manifest goes first: without it there is no run, and what was cut short here is swept
    by removing the run once more. A server removes a run as a whole.

    Raises
    ------
    NotFoundError
        ``run-not-found`` if the run has no object at all.
    """
    if isinstance(store, HttpStore):
        return store.remove_run(check_run_id(run_id))
    keys = [found.key for found in store.objects(run_prefix(check_run_id(run_id)))]
    if not keys:
        raise NotFoundError(ErrorKind.RUN_NOT_FOUND, f"{store.url} has no run {run_id!r}")
    store.delete(manifest_key(run_id))
    for key in keys:
        store.delete(key)
    store.delete(annotations_key(run_id))
    return len(keys)
