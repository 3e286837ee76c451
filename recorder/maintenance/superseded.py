"""Remove what lies as it did before a run was compacted, once nobody reads it any more.

Readers that began before may still be reading it, so it stays for a while. What compactions left
that died, or that another was quicker than, goes with it: it can never become current, because
the number of its generation is taken.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from archive_schema.hierarchy import ATTRIBUTE, group_documents, root_attributes
from archive_schema.layout import ZARR, generation_key, run_prefix, zarr_key
from archive_schema.records import RunRecords
from recorder.maintenance.findings import Action, Finding
from recorder.maintenance.reading import mapped, patient
from recorder.repair_lock import RepairLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store, StoredObject

_HIERARCHY: Final = re.compile(r"trace(-[0-9]{6}-[0-9a-f]{8})?\.zarr")
_DOCUMENT: Final = "zarr.json"


def is_hierarchy(folder: str) -> bool:
    """Return whether *folder*, below a run, is that of a Zarr hierarchy of any generation."""
    return _HIERARCHY.fullmatch(folder) is not None


def sweep_compacted_run(store: Store, run_id: str, *, grace_s: float) -> tuple[Action, ...]:
    """Remove what a compacted run was before; nothing happens before *grace_s* seconds are over.

    Raises
    ------
    ConflictError
        ``writer-active`` while another process repairs the run.
    """
    store = patient(store)
    with RepairLock(store, run_id) as lock:
        return tuple(sweep_superseded(store, run_id, lock, grace_s))


def sweep_superseded(store: Store, run_id: str, lock: RepairLock, grace_s: float) -> list[Action]:
    """Remove all hierarchies of a run but the current one, if that is older than *grace_s*.

    Where the run was recorded, a group without arrays stays, which names the current folder: a
    plain Zarr reader that goes there finds nothing, and no fill values.
    """
    records = RunRecords(store, run_id)
    generation, prefix = records.generation, run_prefix(run_id)
    if generation is None:
        return []
    key = generation_key(run_id, generation.number)
    ages = [one.modified_s for one in store.objects(f"{prefix}/generations") if one.key == key]
    if not ages or lock.stored_s - ages[0] < grace_s:
        return []
    root = zarr_key(run_id, _DOCUMENT)
    going: defaultdict[str, list[StoredObject]] = defaultdict(list)
    for one in store.objects(prefix):
        folder = one.key.removeprefix(f"{prefix}/").partition("/")[0]
        if is_hierarchy(folder) and folder != records.zarr and one.key != root:
            going[folder].append(one)
    if ZARR in going:
        lock.check()
        attributes = root_attributes(records.manifest)
        attributes[""][ATTRIBUTE]["moved"] = records.zarr
        store.write(root, group_documents([], attributes)[_DOCUMENT])
    return [
        Action(Finding.SUPERSEDED, f"{prefix}/{folder}", _removed(store, lock, going[folder]))
        for folder in sorted(going)
    ]


def _removed(store: Store, lock: RepairLock, objects: list[StoredObject]) -> str:
    def permitted() -> Iterator[str]:
        # Documents first: of an array without its tiles, Zarr shows fill values.
        for one in sorted(objects, key=lambda o: not o.key.endswith(_DOCUMENT)):
            lock.check()
            yield one.key

    for _ in mapped(store, store.delete, permitted()):
        pass
    return f"{len(objects)} objects of {sum(one.nbytes for one in objects)} bytes removed"
