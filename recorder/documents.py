"""The Zarr documents of a run that is being recorded: put when a field appears or an axis grows.

An axis that the run declared has its full length from the start. Otherwise the arrays of a
group have a capacity that doubles; sealing trims it.

Sealing replaces these documents by final ones, which a writer that wakes up late must not touch.
So what never changes is created and not written, and what may is not written once a sealing began.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.errors import ConflictError, NotFoundError
from archive_schema.hierarchy import (
    array_documents,
    coordinate_documents,
    group_documents,
    root_attributes,
)
from archive_schema.layout import (
    array_path,
    declared_steps,
    field_steps,
    group_path,
    sealing_key,
    zarr_key,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from archive_schema.models import FieldSpec, RunManifest
    from archive_schema.store import Store

_FIRST_CAPACITY: Final = 64


@dataclass(slots=True)
class _Group:
    steps: int
    samples: int
    fields: dict[str, FieldSpec] = field(default_factory=dict)


class ZarrDocuments:
    """Keeps the Zarr hierarchy ahead of the tiles, so that a live run opens as plain Zarr.

    Parameters
    ----------
    known
        Fields that were declared before.
    steps, samples : int
        Axis lengths that were recorded before.
    """

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        known: Iterable[FieldSpec] = (),
        *,
        steps: int = 0,
        samples: int = 0,
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._least = (steps, samples)
        self._groups: dict[str, _Group] = {}
        self._known: defaultdict[str, dict[str, FieldSpec]] = defaultdict(dict)
        for spec in known:
            if not spec.ragged:
                self._known[group_path(spec)][spec.name] = spec
        self._fixed = declared_steps(manifest) is not None and manifest.samples is not None
        """Whether no array of the run ever grows."""
        self._lock = threading.Lock()

    def ensure(self, spec: FieldSpec, position: int, stop: int) -> None:
        """Make the field's array hold a tile.

        Parameters
        ----------
        position
            Of the tile, on the field's own step axis.
        stop : int, samples
            Where the tile ends.
        """
        with self._lock:
            path = group_path(spec)
            group = self._groups.get(path)
            if group is None:
                # Fields of an earlier opening too: all arrays of a group have one length.
                group = _Group(*self._first_capacity(spec), self._known.get(path, {}))
            grows = position >= group.steps or stop > group.samples
            if path in self._groups and spec.name in group.fields and not grows:
                return
            whole = grows or path not in self._groups
            steps = _capacity(group.steps, position + 1)
            samples = _capacity(group.samples, stop)
            fields = {**group.fields, spec.name: spec}
            new = growing_group(self._manifest, path, fields.values(), steps, samples)
            for one in fields.values() if whole else [spec]:
                new |= array_documents(one, steps=steps, samples=samples)
            self._put(new, fixed=self._fixed)
            # Not before: what the store did not take is put with the tile that comes again.
            self._groups[path] = _Group(steps, samples, fields)

    def ensure_ragged(
        self, spec: FieldSpec, step: int, shape: tuple[int, ...], block: tuple[int, ...]
    ) -> None:
        """Make the array of a ragged field at *step*."""
        path = array_path(spec, step)
        with self._lock:
            group = path.rpartition("/")[0]
            self._put(group_documents([group], root_attributes(self._manifest)), fixed=True)
            new = array_documents(spec, steps=0, samples=0, ragged=(step, shape, block))
            # A writer that died may have had another shape.
            self._put(new, fixed=False)

    def _first_capacity(self, spec: FieldSpec) -> tuple[int, int]:
        return capacity(self._manifest, spec, *self._least)

    def _put(self, documents: Mapping[str, bytes], *, fixed: bool) -> None:
        if not fixed and self._is_sealing():
            return  # the tile that wants them will not be committed either
        for path, data in documents.items():
            key = zarr_key(self._manifest.id, path)
            if fixed:
                with suppress(ConflictError):
                    self._store.create(key, data)
            else:
                self._store.write(key, data)

    def _is_sealing(self) -> bool:
        try:
            self._store.size(sealing_key(self._manifest.id))
        except NotFoundError:
            return False
        return True


def capacity(manifest: RunManifest, spec: FieldSpec, steps: int, samples: int) -> tuple[int, int]:
    """Return the lengths of a field's step and sample axes while the run is recorded.

    Parameters
    ----------
    steps, samples : int
        How far the run reaches, as far as it is known: one more than its last step and sample.
    """
    declared = declared_steps(manifest)
    count = len(field_steps(spec, declared if declared is not None else range(steps)))
    if declared is None:
        count = _capacity(_FIRST_CAPACITY, count)
    if manifest.samples is not None:
        return count, manifest.samples
    return count, _capacity(_FIRST_CAPACITY, samples)


def growing_group(
    manifest: RunManifest, path: str, specs: Collection[FieldSpec], steps: int, samples: int
) -> dict[str, bytes]:
    """Return the documents of a group and those above it, with its index coordinates.

    Parameters
    ----------
    specs
        Fields of the group, at least one.
    steps, samples : int
        Lengths of the axes.
    """
    documents = group_documents([path], root_attributes(manifest))
    first = next(iter(specs))
    if first.place.stepped:
        declared = declared_steps(manifest)
        numbers: Iterable[int] = (
            field_steps(first, declared)
            if declared is not None
            else range(first.first, first.first + first.every * steps, first.every)
        )
        documents |= index_documents(path, "step", numbers)
        if any(spec.tile for spec in specs):
            documents |= index_documents(path, "sample", range(samples))
    return documents


def index_documents(group: str, dim: str, numbers: Iterable[int]) -> dict[str, bytes]:
    """Return the index coordinate of one axis of a group: an array named like the axis."""
    values = np.fromiter(numbers, np.int64)
    return coordinate_documents(f"{group}/{dim}", values, (dim,))


def _capacity(had: int, needed: int) -> int:
    while had < needed:
        had = max(2 * had, _FIRST_CAPACITY)
    return had
