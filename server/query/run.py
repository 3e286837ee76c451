"""One run as it is recorded now: its axes, its fields, and what is new in it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.models import Place, RunStatus
from server.query.changes import ChangeSet, changes_since, version_of
from server.query.field import FieldView

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from archive_schema.openings import Opening
    from archive_schema.records import RunRecords
    from server.query.archive import Archive


class RunView:
    """A run at one version; it is made anew when something was committed.

    Parameters
    ----------
    status : callable
        Answers whether the writers are still there.
    writers : callable
        Answers how each of them is doing.
    lock
        Held by whoever adds commits to *records*, and here where tables are walked.
    """

    def __init__(
        self,
        archive: Archive,
        records: RunRecords,
        status: Callable[[], RunStatus],
        writers: Callable[[], list[Opening]],
        lock: threading.RLock,
    ) -> None:
        self.archive = archive
        self.records = records
        self.manifest = records.manifest
        self.ledger = records.ledger
        self.sealed = records.seal is not None
        self.zarr = records.zarr
        """Folder of the Zarr hierarchy that was current when this view was made."""
        self.generation = 0 if records.generation is None else records.generation.number
        """How often the run was rewritten."""
        self.shards = records.shards
        """By field's path, where values lie with many steps in an object."""
        self.marks = dict(records.marks)
        """Commits seen, by writer and epoch."""
        self.version = version_of(records)
        self._status = status
        self._writers = writers
        self._lock = lock
        # Taken now: the ledger grows while this view is read.
        self.steps: tuple[int, ...] = self.ledger.steps
        """Steps at which anything is recorded, rising."""
        self._fields: dict[tuple[Place, str | None, str], FieldView] = {}

    @property
    def status(self) -> RunStatus:
        """Whether the run is sealed, being recorded, or left by its writers."""
        return RunStatus.SEALED if self.sealed else self._status()

    @property
    def writers(self) -> list[Opening]:
        """The latest opening of each writer; none of a sealed run."""
        return [] if self.sealed else self._writers()

    @cached_property
    def samples(self) -> int:
        """Length of the sample axis: as sealed, as declared, or as far as it is recorded."""
        if self.records.seal is not None and self.sealed:
            return self.records.seal.samples
        with self._lock:
            recorded = self.ledger.samples
        return max(recorded, self.manifest.samples or 0)

    def field(
        self, name: str, *, layer: str | None = None, place: Place = Place.TRACE
    ) -> FieldView:
        """Return a field; *layer* alone says that the field is a layer's.

        Raises
        ------
        NotFoundError
            ``layer-not-found`` or ``field-not-found``, naming what there is.
        """
        if layer is not None:
            place = Place.LAYERS
        address = (place, layer, name)
        found = self._fields.get(address)
        if found is not None:
            return found
        ledger = self.ledger.at(*address)
        if ledger is not None:
            return self._fields.setdefault(address, FieldView(self, ledger))
        if layer is not None and layer not in self.layers():
            message = f"run {self.manifest.id!r} has no layer {layer!r}; {_known(self.layers())}"
            raise NotFoundError(ErrorKind.LAYER_NOT_FOUND, message)
        where = f"its {place.value}" if layer is None else f"layer {layer!r}"
        names = [f.spec.name for f in self.fields(place) if f.spec.layer == layer]
        message = f"run {self.manifest.id!r} has no field {name!r} in {where}; {_known(names)}"
        raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)

    def fields(self, place: Place | None = None) -> list[FieldView]:
        """Return all fields, or those of one place, in the order of their first commit."""
        specs = [ledger.spec for ledger in list(self.ledger.fields.values())]
        return [
            self.field(spec.name, layer=spec.layer, place=spec.place)
            for spec in specs
            if place is None or spec.place is place
        ]

    def layers(self) -> list[str]:
        """Return the names of all layers, in the order of their first commit."""
        fields = self.fields(Place.LAYERS)
        return list(dict.fromkeys(f.spec.layer for f in fields if f.spec.layer is not None))

    def changes(self, since: str) -> ChangeSet:
        """Return what is recorded here and was not at the version *since*.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` for a text that is no version.
        """
        return changes_since(self, since)


_MOST_NAMES = 20


def _known(names: list[str]) -> str:
    if not names:
        return "it has none"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"expected one of {', '.join(names[:_MOST_NAMES])}{more}"
