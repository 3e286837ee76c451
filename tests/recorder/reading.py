"""Reads runs back as strangers do: zarr-python over the stored objects, and the commits."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from fastcrc.crc32 import iscsi as crc32c
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from archive_schema.layout import run_prefix, step_position, stored_key
from archive_schema.models import Place
from archive_schema.records import RunRecords

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.store import Store


def objects(store: Store, run_id: str) -> dict[str, bytes]:
    """Return every object of a run, by key below the run."""
    prefix = f"{run_prefix(run_id)}/"
    keys = [found.key for found in store.objects(run_prefix(run_id))]
    return {key.removeprefix(prefix): store.read(key) for key in sorted(keys)}


def zarr_root(store: Store, run_id: str, *, as_committed: bool = False) -> zarr.Group:
    """Open the run's hierarchy by zarr-python, whatever kind of store it lies in.

    *as_committed* shows the tiles that lie aside at home, where sealing will bring them.
    """
    prototype = default_buffer_prototype()
    stored = objects(store, run_id)
    if as_committed:
        records = RunRecords(store, run_id)
        for field in records.ledger.fields.values():
            for step, tile, aside in field.asides():
                home = stored_key(records.manifest, field.spec, step, tile)
                stored[home.removeprefix(f"{run_prefix(run_id)}/")] = stored[aside]
    inside = {
        key.removeprefix("trace.zarr/"): prototype.buffer.from_bytes(data)
        for key, data in stored.items()
        if key.startswith("trace.zarr/")
    }
    return zarr.open_group(MemoryStore(inside), mode="r")


def zarr_array(store: Store, run_id: str, path: str) -> NDArray[Any]:
    """Read one whole array of the run by zarr-python."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The data type")
        array = zarr_root(store, run_id)[path]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def committed(store: Store, run_id: str) -> dict[tuple[str, int, int], NDArray[Any]]:
    """Read every committed tile, by (field's path, step, tile), as the Zarr array holds it.

    Each object must be as long as its commit says and have its CRC32C: a reader never sees
    part of a tile, and never a tile that a commit does not describe.
    """
    records = RunRecords(store, run_id)
    assert not records.ledger.conflicts
    if not any(ledger.count for ledger in records.ledger.fields.values()):
        return {}
    root = zarr_root(store, run_id, as_committed=True)
    tiles = {}
    for path, ledger in records.ledger.fields.items():
        spec = ledger.spec
        for step in ledger.steps:
            position = step_position(records.manifest, spec, step) if spec.place.stepped else 0
            for tile in range(ledger.tiles):
                entry = ledger.tile(step, tile)
                if entry is None:
                    continue
                home = stored_key(records.manifest, spec, step, tile)
                if entry.nbytes:
                    aside = f"{run_prefix(run_id)}/{entry.aside}"
                    data = store.read(aside if entry.aside else home)
                    assert len(data) == entry.nbytes
                    assert crc32c(data) == entry.crc32c
                lead: tuple[Any, ...] = (position,) if spec.place.stepped else ()
                if spec.tile:
                    start = tile * spec.tile
                    lead += (slice(start, start + entry.samples),)
                array = root[_array(path, spec.every, spec.first)]
                assert isinstance(array, zarr.Array)
                tiles[path, step, tile] = np.asarray(array[lead])
    return tiles


def _array(path: str, every: int, first: int) -> str:
    place, _, rest = path.partition("/")
    cadence = f"_every_{every}" if every > 1 or first else ""
    return f"{Place(place)}{cadence}{f'_from_{first}' if first else ''}/{rest}"
