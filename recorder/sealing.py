"""The end of a run: what makes it whole for readers of plain Zarr, and then one small object.

1. ``sealing.json``: from here no opening of the run succeeds.
2. Every epoch that is open is ended: from here nothing is committed.
3. Tiles that lie aside are copied home.
4. The index document: everything that was committed, in one.
5. The Zarr documents with final shapes, the coordinates, and the masks of what is recorded.
6. The root with all metadata in it.
7. ``seal.json``, created once: after it nothing changes.

Steps 3 to 6 only repeat what the commits say, so whoever is killed in between leaves nothing
wrong and the next to come finishes; of two who seal, one wins and the other reads.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.documents import document_bytes, read_document
from archive_schema.errors import ConflictError, NotFoundError
from archive_schema.hierarchy import (
    array_documents,
    consolidated,
    coordinate_documents,
    group_documents,
    root_attributes,
)
from archive_schema.layout import (
    declared_steps,
    field_path,
    field_steps,
    group_path,
    run_prefix,
    seal_key,
    stored_key,
    zarr_key,
)
from archive_schema.models import Place, Seal, Sealing
from archive_schema.records import begin_sealing
from recorder.declaration import MASK_ENDING
from recorder.documents import index_documents
from recorder.repair_lock import await_repairers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from archive_schema.generations import ShardTable
    from archive_schema.ledger import FieldLedger, Ledger
    from archive_schema.models import RunManifest
    from archive_schema.records import RunRecords

NO_SHARDS: Final[Mapping[str, ShardTable]] = MappingProxyType({})


def seal_run(records: RunRecords, *, repairing: bool = False) -> Seal:
    """Seal the run, or return the seal that it has.

    Whoever still records is stopped: `ConflictError` (``run-sealed``) is its next commit's answer.

    Parameters
    ----------
    records
        The run; refreshed here.
    repairing : bool
        Whether the caller is the one who repairs the run.
    """
    records.refresh()
    if records.seal is not None:
        return records.seal
    store, run_id = records.store, records.run_id
    sealing = Sealing(time=datetime.now(UTC), host=socket.gethostname(), process=os.getpid())
    begin_sealing(store, run_id, sealing)
    records.refresh()
    for writer, epoch in records.open_epochs:
        records.fence(writer, epoch, "sealed", f"by {sealing.host}, process {sealing.process}")
    # Only now: what was read meanwhile may have taken the place of all that was known.
    ledger = records.ledger
    if not repairing and any(field.asides() for field in ledger.fields.values()):
        await_repairers(store, run_id)
    _bring_home(records)
    index = document_bytes(ledger.index())
    checksum = crc32c(index)
    name = f"index-{checksum:08x}.json"
    # The name says the content: whoever put it before put the same.
    store.write(f"{run_prefix(run_id)}/{name}", index)
    for path, data in sealed_documents(records.manifest, ledger).items():
        store.write(zarr_key(run_id, path), data)
    seal = Seal(
        time=datetime.now(UTC),
        index=name,
        index_crc32c=checksum,
        samples=_samples(records.manifest, ledger),
        tiles=sum(field.count for field in ledger.fields.values()),
        nbytes=sum(field.nbytes for field in ledger.fields.values()),
    )
    try:
        store.create(seal_key(run_id), document_bytes(seal))
    except ConflictError:
        seal = read_document(store, seal_key(run_id), Seal)
    records.refresh()
    return seal


def _bring_home(records: RunRecords) -> None:
    """Copy the tiles that lie aside over what nobody committed.

    One that is lost or damaged stays so, and reading names it; one that was damaged on its way
    here is read again.
    """
    store, run_id, manifest = records.store, records.run_id, records.manifest
    for field in records.ledger.fields.values():
        for step, tile, name in field.asides():
            home, key = stored_key(manifest, field.spec, step, tile), f"{run_prefix(run_id)}/{name}"
            entry = field.tile(step, tile)
            with suppress(NotFoundError):
                data = store.read(key)
                if entry is None or crc32c(data) != entry.crc32c:
                    data = store.read(key)
                store.write(home, data)


def sealed_documents(
    manifest: RunManifest, ledger: Ledger, shards: Mapping[str, ShardTable] = NO_SHARDS
) -> dict[str, bytes]:
    """Return every object of a sealed run's Zarr hierarchy but its tiles, by path.

    Parameters
    ----------
    shards
        By field's path, where a later generation has them.
    """
    samples = _samples(manifest, ledger)
    documents: dict[str, bytes] = {}
    attributes: dict[str, Mapping[str, object]] = {**root_attributes(manifest)}
    groups = _groups(ledger)
    named = sorted({*ledger.step_coordinates, *ledger.sample_coordinates})
    if named and not any(_is_trace(fields) for fields in groups.values()):
        groups[Place.TRACE.value] = []
    for path, fields in groups.items():
        steps = _steps(manifest, ledger, fields)
        for field in fields:
            table = shards.get(field_path(*field.spec.address))
            documents |= array_documents(
                field.spec, steps=len(steps), samples=samples, shards=table
            )
        if fields and not fields[0].spec.place.stepped:
            continue
        documents |= index_documents(path, "step", steps)
        if samples:
            documents |= index_documents(path, "sample", range(samples))
        documents |= _mask_documents(path, fields, steps, samples)
        if _is_trace(fields) or not fields:
            documents |= _coordinate_documents(path, ledger, steps, samples)
            attributes[path] = {"coordinates": " ".join(named)} if named else {}
    for field in ledger.fields.values():
        if field.spec.ragged:
            documents |= ragged_documents(manifest, field)
    documents |= group_documents(groups, attributes)
    metadata = {p: data for p, data in documents.items() if p.rpartition("/")[2] == "zarr.json"}
    documents["zarr.json"] = consolidated(metadata)
    return documents


def _groups(ledger: Ledger) -> dict[str, list[FieldLedger]]:
    groups: defaultdict[str, list[FieldLedger]] = defaultdict(list)
    for field in ledger.fields.values():
        if not field.spec.ragged:
            groups[group_path(field.spec)].append(field)
    return dict(groups)


def _is_trace(fields: Sequence[FieldLedger]) -> bool:
    return bool(fields) and fields[0].spec.place is Place.TRACE


def _samples(manifest: RunManifest, ledger: Ledger) -> int:
    return ledger.samples if manifest.samples is None else manifest.samples


def _steps(manifest: RunManifest, ledger: Ledger, fields: Sequence[FieldLedger]) -> Sequence[int]:
    """Return the step numbers along the step axis of a group."""
    steps = declared_steps(manifest)
    if steps is None:
        steps = range(ledger.steps[-1] + 1 if ledger.steps else 0)
    return field_steps(fields[0].spec, steps) if fields else steps


def _masks(
    fields: Sequence[FieldLedger], steps: Sequence[int], samples: int
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Return where any field is recorded, and the masks of fields with another coverage."""
    length = max(samples, 1)
    masks = {field.spec.name: field.recorded(length, steps) for field in fields}
    together = np.zeros((len(steps), length), bool)
    for mask in masks.values():
        together |= mask
    return together, {
        name: mask for name, mask in masks.items() if not np.array_equal(mask, together)
    }


def _mask_documents(
    group: str, fields: Sequence[FieldLedger], steps: Sequence[int], samples: int
) -> dict[str, bytes]:
    if not fields:
        return {}
    together, others = _masks(fields, steps, samples)
    named = {"recorded": together, **{name + MASK_ENDING: mask for name, mask in others.items()}}
    documents: dict[str, bytes] = {}
    for name, mask in named.items():
        # Without samples, what is recorded is a matter of steps alone.
        values, dims = (mask, ("step", "sample")) if samples else (mask[:, 0], ("step",))
        documents |= coordinate_documents(f"{group}/{name}", values, dims)
    return documents


def _coordinate_documents(
    group: str, ledger: Ledger, steps: Sequence[int], samples: int
) -> dict[str, bytes]:
    documents: dict[str, bytes] = {}
    for coordinate in ledger.step_coordinates.values():
        values = coordinate.array(steps)
        documents |= coordinate_documents(f"{group}/{coordinate.name}", values, ("step",))
    for coordinate in ledger.sample_coordinates.values():
        values = coordinate.array(range(samples))
        documents |= coordinate_documents(f"{group}/{coordinate.name}", values, ("sample",))
    return documents


def ragged_documents(manifest: RunManifest, field: FieldLedger) -> dict[str, bytes]:
    """Return the metadata of a ragged field's arrays, and of the groups above them."""
    documents: dict[str, bytes] = {}
    for step in field.steps:
        entry = field.tile(step)
        assert entry is not None, "a ragged field has a tile at each of its steps"  # noqa: S101
        ragged = (step, entry.shape, entry.block)
        documents |= array_documents(field.spec, steps=0, samples=0, ragged=ragged)
    groups = [path.removesuffix("/zarr.json").rpartition("/")[0] for path in documents]
    return documents | group_documents(groups, root_attributes(manifest))
