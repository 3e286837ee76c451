"""One model's data set, taken over as its files come.

Samples are numbered as their activations come: a position is one row of one content of one file.
Upstream's resume writes its files anew from the first on, so a file may come again with another
content; what was recorded of it before stays, and the new rows follow. The list of samples comes
last (``dataset_info.json``), and tells who is in which row (`finishing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.dmd2 import (
    ACTIVATION_DIGEST,
    ACTIVATION_PATH,
    BATCH_INDEX,
    MODEL,
    OUTPUT,
    layer_axes,
)
from recorder.importers.dmd2.activations import (
    ENDING,
    ActivationFile,
    ActivationReader,
    ChangedError,
    Row,
    is_activations,
    sort_key,
    survey,
)
from recorder.importers.dmd2.columns import Columns
from recorder.importers.dmd2.dataset import Dataset, load_dataset
from recorder.importers.dmd2.finishing import Finishing, Told
from recorder.importers.dmd2.shapes import LayerShapes
from recorder.importers.dmd2.sidecars import Sidecars
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from archive_schema.records import RunRecords
    from archive_schema.systems.imagenet import ClassBook
    from recorder.importers.foreign_tree import ForeignTree, Signature
    from recorder.importers.source import Progress, Sink

CONFIG: Final = (
    "model_type", "adapter", "checkpoint", "layers", "conditioning_sigma", "seed", "split",
)  # fmt: skip
"""Of ``dataset_info.json``: what a resumed run must not change."""
_INFO: Final = "dataset_info.json"
_SINGLES: Final = 16
"""Samples in a tile where each has a file of its own."""
_TILE_NBYTES: Final = 64 << 20
"""Of the largest layer: some have all of a data set in one file."""


class Dmd2Tree:
    """One model's data set.

    Parameters
    ----------
    model
        Name of the folders below ``activations`` and ``metadata``.
    records
        What is recorded of it already.
    shapes
        Of layers, where the user says them: (channel, row, column).
    classes
        Classes by their number, where the user says how they are numbered.

    Raises
    ------
    ConflictError
        ``run-differs`` if the data set says that it was made otherwise than what is recorded.
    """

    steps: Final = (0,)

    def __init__(
        self,
        tree: ForeignTree,
        model: str,
        records: RunRecords | None,
        shapes: Mapping[str, tuple[int, ...]],
        classes: ClassBook | None,
    ) -> None:
        self._tree = tree
        self._model = model
        self._classes = classes
        self._ledger = None if records is None else records.ledger
        self._columns = Columns()
        self._sidecars = Sidecars(tree, self._columns)
        self._shapes = LayerShapes(self._ledger, shapes)
        self._rows: list[Row] = []
        self._told: dict[int, dict[str, Any]] = {}
        """By position: the coordinates of the sample that is in a row, as files told them."""
        self._contents: dict[str, set[str]] = {}
        """Digests of what has been at each path."""
        self._recorded = 0
        self._comparing = False
        self._files: dict[str, ActivationFile | None] = {}
        self._seen: dict[str, Signature] = {}
        """How files looked last, and how they looked when they were read."""
        self._surveyed: dict[str, Signature] = {}
        self._pending: list[str] = []
        self._others: list[str] = []
        self._broken: dict[str, str] = {}
        self._odd: list[str] = []
        self._dataset: Dataset | None = None
        self._finishing: Finishing | None = None
        self._look_at_dataset(settled=True)
        self.metadata: dict[str, JsonValue] = self._metadata(records)
        self._resume()

    @property
    def samples(self) -> int:
        """Samples that are held."""
        return self._recorded

    @property
    def files(self) -> int:
        """Files of activations that are held."""
        return len({(row.path, row.digest) for row in self._rows[: self._recorded]})

    @property
    def ended(self) -> bool:
        """Whether the list of samples is there, and all that it names is recorded."""
        return (
            self._finishing is not None
            and self._finishing.complete
            and self._recorded == len(self._rows)
            and not self._pending
        )

    def findings(self) -> Findings:
        """Return what is missing or odd in the tree as it is now."""
        findings = Findings(f"{self._sidecars.kept.layout} files")
        findings.odd += [*self._odd, *self._sidecars.odd, *self._shapes.odd, *self._columns.odd]
        findings.odd += [f"{path} is not whole: {why}" for path, why in self._broken.items()]
        generated = [name for name in self._others if "_generated." in name]
        others = [name for name in self._others if name not in generated]
        if generated:
            findings.odd.append(
                f"what was generated in the app is a run of its own: --part {self._model}/generated"
            )
        if others:
            findings.odd.append(f"no batches of activations, left out: {', '.join(others):.300}")
        if self._dataset is None:
            findings.missing.append(
                f"{_INFO}, which is written last: whoever made these files is still at work, or"
                " was cut short; samples have no names and pictures"
            )
        if self._finishing is not None:
            findings.missing += self._finishing.missing
            findings.odd += self._finishing.odd
        return findings

    def look(self, sink: Sink, progress: Progress, *, settled: bool) -> bool:
        """Take over what is new and whole; return whether there was anything."""
        listed = self._look_at_files(settled=settled)
        self._look_at_dataset(settled=settled)
        self._check_config()
        before = self._recorded
        whole = settled or (self._dataset is not None and not self._pending)
        try:
            with ActivationReader(self._tree) as reader:
                self._record_tiles(sink, reader, listed, progress, whole=whole)
        except ChangedError as error:
            if settled:
                self._odd.append(f"{error}, while it was imported: import again")
            whole = False
        if whole:
            self._finish(sink, settled=settled)
        return self._recorded > before

    def compare(self, sink: Sink, progress: Progress) -> None:
        """Hand over every file that is there."""
        self._comparing = True
        self._recorded = 0
        self.look(sink, progress, settled=True)

    def _finish(self, sink: Sink, *, settled: bool) -> None:
        told = Told(self._model, self._rows, self._told, self._sidecars.kept, self._dataset)
        finishing = Finishing(self._tree, told, self._columns, self._classes, self._tile)
        if finishing.complete or settled:
            finishing.hand_over(sink, None if self._comparing else self._ledger)
            self._finishing = finishing

    def _look_at_files(self, *, settled: bool) -> set[str]:
        """Take note of files of activations that are new; return all names that are there."""
        folder = f"activations/{self._model}"
        listed = self._tree.files(folder, lambda _: False)
        self._pending = []
        for name in sorted(filter(is_activations, listed), key=sort_key):
            path = f"{folder}/{name.removesuffix(ENDING)}"
            seen, self._seen[name] = self._seen.get(name), listed[name]
            if self._surveyed.get(name) == listed[name]:
                continue
            if not settled and seen != listed[name]:
                self._pending.append(name)
                continue
            try:
                with self._tree.open(f"{folder}/{name}") as file:
                    found = self._files[path] = survey(file, path)
            except InvalidInputError as error:
                self._broken[name] = str(error)
                self._pending += [] if settled else [name]
                continue
            self._broken.pop(name, None)
            self._surveyed[name] = listed[name]
            if found is not None:
                self._append(found)
        known = {name for name in listed if is_activations(name)}
        beside = {f"{name.removesuffix(ENDING)}.json" for name in known}
        self._others = sorted(set(listed) - known - beside)
        return set(listed)

    def _append(self, file: ActivationFile) -> None:
        """Give positions to the rows of a file that are not known yet."""
        contents = self._contents.setdefault(file.path, set())
        if file.digest in contents:
            return
        if contents:
            self._odd.append(
                f"{file.path}{ENDING} was written over, as upstream's resume does: what was"
                f" recorded of it before stays, and {file.samples} new samples follow"
            )
            # What was not recorded of an earlier content cannot be any more.
            self._rows = [
                row
                for at, row in enumerate(self._rows)
                if at < self._recorded or row.path != file.path or self._held_at(at)
            ]
        contents.add(file.digest)
        self._rows += file.rows()

    def _look_at_dataset(self, *, settled: bool) -> None:
        signature = self._tree.files(f"metadata/{self._model}", lambda _: False).get(_INFO)
        if signature is None:
            return
        seen, self._seen[_INFO] = self._seen.get(_INFO), signature
        if self._surveyed.get(_INFO) == signature:
            return
        if not settled and seen != signature:
            self._dataset = None
            return
        try:
            with self._tree.open(f"metadata/{self._model}/{_INFO}") as file:
                self._dataset = load_dataset(file)
        except InvalidInputError as error:
            self._broken[_INFO] = str(error)
        else:
            self._broken.pop(_INFO, None)
            self._surveyed[_INFO] = signature

    @property
    def _head(self) -> dict[str, Any]:
        return {} if self._dataset is None else self._dataset.head

    def _metadata(self, records: RunRecords | None) -> dict[str, JsonValue]:
        told = {key: self._head[key] for key in CONFIG if self._head.get(key) is not None}
        here = {MODEL: self._model, "imported": {"format": "tree"}, **told}
        known = here if records is None else dict(records.manifest.metadata)
        if known.get(MODEL) != self._model:
            message = f"the run is of {known.get(MODEL)!r}, expected {self._model!r}"
            raise ConflictError(ErrorKind.RUN_DIFFERS, message)
        return known

    def _check_config(self) -> None:
        for key in CONFIG:
            known, now = self.metadata.get(key), self._head.get(key)
            if None not in (known, now) and known != now:
                message = (
                    f"{_INFO} says {key} {now!r:.200}, and what is recorded was made with"
                    f" {known!r:.200}: import it as another run"
                )
                raise ConflictError(ErrorKind.RUN_DIFFERS, message)

    def _resume(self) -> None:
        """Take note of the rows that are recorded, and of what was told of them."""
        columns = {} if self._ledger is None else self._ledger.sample_coordinates
        places = [columns.get(name) for name in (ACTIVATION_PATH, BATCH_INDEX, ACTIVATION_DIGEST)]
        for at in range(0 if self._ledger is None else self._ledger.samples):
            values = [None if one is None else one.values.get(at) for one in places]
            if None in values:
                break
            path, index, digest = values
            self._rows.append(Row(str(path), int(index or 0), str(digest)))
            self._contents.setdefault(str(path), set()).add(str(digest))
            self._told[at] = {
                name: column.values[at] for name, column in columns.items() if at in column.values
            }

    @property
    def _tile(self) -> int:
        """Samples in a tile: as recorded, or as many as the first file has, within bounds."""
        for field in () if self._ledger is None else self._ledger.fields.values():
            if field.spec.place is Place.LAYERS:
                return field.spec.tile
        first = next((file for file in self._files.values() if file is not None), None)
        if first is None or first.samples == 1:
            return _SINGLES
        most = max(1, min(first.samples, _TILE_NBYTES // first.sample_nbytes))
        parts = range(most, most // 2, -1)
        return next((part for part in parts if first.samples % part == 0), most)

    def _record_tiles(
        self,
        sink: Sink,
        reader: ActivationReader,
        listed: set[str],
        progress: Progress,
        *,
        whole: bool,
    ) -> None:
        """Hand over tiles that are full, and the last one if *whole*."""
        tile = self._tile
        while (start := self._recorded) < len(self._rows):
            stop = min(start + tile, len(self._rows))
            if stop - start < tile and not whole:
                return
            if start % tile:
                message = (
                    f"{len(self._rows) - start} samples came after the run had ended with sample"
                    f" {start}, within a tile of {tile}: import the tree as another run"
                )
                raise ConflictError(ErrorKind.RUN_DIFFERS, message)
            if not self._record_tile(sink, reader, listed, start, stop):
                stop = start + self._held_at(start)
            self._recorded = stop
            progress(stop, len(self._rows))

    def _record_tile(
        self, sink: Sink, reader: ActivationReader, listed: set[str], start: int, stop: int
    ) -> bool:
        """Hand over samples ``[start, stop)``; return False if they are as recorded before."""
        rows = self._rows[start:stop]
        files = [self._current(row) for row in rows]
        if not self._comparing and self._held_at(start):
            for row, file in zip(rows, files, strict=True):
                if file is not None:
                    self._beside(row, file, listed)
            return False
        if None in files:
            path = rows[files.index(None)].path
            message = f"{path}{ENDING} is gone, or another than the one recorded"
            raise ConflictError(ErrorKind.RUN_DIFFERS, message)
        for at, (row, file) in enumerate(zip(rows, files, strict=True), start):
            if file is not None:
                place = {ACTIVATION_PATH: row.path, BATCH_INDEX: row.index}
                digest = {ACTIVATION_DIGEST: row.digest}
                self._told[at] = self._beside(row, file, listed) | place | digest
        # Before the activations: whoever goes on must know which rows they are.
        self._columns.put(sink, {at: self._told[at] for at in range(start, stop)})
        for layer in dict.fromkeys(layer for file in files if file for layer in file.layers):
            lacking = [file.path for file in files if file and layer not in file.layers]
            if lacking:
                self._odd.append(
                    f"{lacking[0]}{ENDING} lacks layer {layer}: samples {start}:{stop} are"
                    " recorded without it"
                )
                continue
            values = reader.read(layer, rows)
            shape = self._shapes.of(layer, values.shape[1:], self._head)
            sink.declare(OUTPUT, layer=layer, dims=layer_axes(shape))
            shaped = values.reshape(len(values), *shape)
            sink.record(0, slice(start, stop), layer, **{OUTPUT: shaped})
        return True

    def _beside(self, row: Row, file: ActivationFile, listed: set[str]) -> dict[str, Any]:
        there = f"{row.path.rpartition('/')[2]}.json" in listed
        return self._sidecars.coordinates(row, file, there=there)

    def _current(self, row: Row) -> ActivationFile | None:
        """Return the file that a row is of, if it is there as it was."""
        file = self._files.get(row.path)
        return file if file is not None and file.digest == row.digest else None

    def _held_at(self, position: int) -> int:
        """Return how many samples of the tile at *position* are recorded of all its layers."""
        fields = [] if self._ledger is None else list(self._ledger.fields.values())
        entries = [
            field.tile(0, position // field.spec.tile)
            for field in fields
            if field.spec.place is Place.LAYERS
        ]
        return min((0 if one is None else one.samples for one in entries), default=0)
