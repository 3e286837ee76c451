"""What is told last of a data set: who its samples are, their pictures, and its embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.dmd2 import (
    CLASS,
    CLASS_ID,
    CLASS_NAMES,
    CLASS_SYNSETS,
    CONDITIONING_SIGMA,
    IMAGE,
    IMAGE_PATH,
    RECONSTRUCTED,
    RECONSTRUCTED_PATH,
    SAMPLE_ID,
    SIGMA,
    SYNSET,
)
from archive_schema.systems.dmd2_files import (
    ACTIVATION_FILES,
    DATASET_INFO,
    EMBEDDINGS,
    KeptEmbedding,
    KeptEmbeddings,
    KeptFiles,
    KeptInfo,
    info_text,
    record_of,
)
from archive_schema.systems.relative_path import is_inside
from recorder.importers.comparison import given_crc32
from recorder.importers.dmd2.dataset import match
from recorder.importers.dmd2.embeddings import load_embedding, tables
from recorder.importers.dmd2.pictures import Pictures, stretches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.ledger import Ledger
    from archive_schema.systems.dmd2_files import Record
    from archive_schema.systems.imagenet import ClassBook
    from recorder.importers.dmd2.activations import Row
    from recorder.importers.dmd2.columns import Columns
    from recorder.importers.dmd2.dataset import Dataset
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Sink


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a data set when its files are taken over."""

    model: str
    rows: Sequence[Row]
    """By position."""
    coordinates: dict[int, dict[str, Any]]
    """By position: what was told of the sample in each row."""
    files: KeptFiles
    dataset: Dataset | None


class Finishing:
    """Hands over what is told last."""

    def __init__(
        self,
        tree: ForeignTree,
        told: Told,
        columns: Columns,
        classes: ClassBook | None,
        tile: int,
    ) -> None:
        self.missing: list[str] = []
        self.odd: list[str] = []
        self._tree = tree
        self._told = told
        self._columns = columns
        self._tile = tile
        self._labels = {} if told.dataset is None else dict(told.dataset.labels)
        if not self._labels and classes is not None:
            self._labels = dict(enumerate(zip(classes.synsets, classes.names, strict=True)))
        self.complete = False
        """Whether the list of samples is there, and every file that it names was seen."""
        self._of_row: dict[int, int] = {}
        if told.dataset is not None:
            claims = match(told.dataset, told.model, told.rows, told.coordinates)
            self.odd += claims.odd
            self.missing += claims.missing
            self.complete = not claims.missing
            self._of_row = claims.of_row

    def hand_over(self, sink: Sink, ledger: Ledger | None) -> None:
        """Hand over everything.

        Parameters
        ----------
        ledger
            What is recorded already, and stays as it is.
        """
        samples = self._samples()
        self._columns.put(sink, samples)
        documents: dict[str, NDArray[Any]] = {ACTIVATION_FILES: self._told.files.array()}
        if self._told.dataset is not None:
            documents[DATASET_INFO] = self._info(self._told.dataset, samples).array()
            self._put_sigma(sink, self._told.dataset, samples)
        documents |= self._codebook()
        for field, key in ((IMAGE, IMAGE_PATH), (RECONSTRUCTED, RECONSTRUCTED_PATH)):
            self._put_pictures(sink, field, {at: one.get(key) for at, one in samples.items()})
        embeddings = self._put_embeddings(sink, samples)
        if embeddings:
            documents[EMBEDDINGS] = KeptEmbeddings(tables=tuple(embeddings)).array()
        for name, array in documents.items():
            known = None if ledger is None else ledger.at(Place.INPUTS, None, name)
            entry = None if known is None else known.tile(0)
            if known is None or entry is None:
                sink.inputs(None, **{name: array})
            elif (entry.shape, entry.crc32) != (array.shape, given_crc32(array, known)):
                self.odd.append(f"{name} is another than the one recorded, which stays")

    def _samples(self) -> dict[int, dict[str, Any]]:
        """Return the coordinates of every sample, by position."""
        found: dict[int, dict[str, Any]] = {}
        for at in range(len(self._told.rows)):
            told = dict(self._told.coordinates[at])
            if self._told.dataset is not None and at in self._of_row:
                sample = self._told.dataset.samples[self._of_row[at]]
                told |= self._columns.coordinates(sample)
            label = self._labels.get(told.get(CLASS_ID, -1))
            if label is not None:
                told = {SYNSET: label[0], CLASS: label[1]} | told
            if SAMPLE_ID in told and IMAGE_PATH not in told and not self._of_row:
                told[IMAGE_PATH] = f"images/{self._told.model}/{told[SAMPLE_ID]}.png"
            found[at] = told
        return found

    def _info(self, dataset: Dataset, samples: dict[int, dict[str, Any]]) -> KeptInfo:
        keys = tuple(dict.fromkeys(key for one in dataset.samples for key in one))
        position = {number: at for at, number in self._of_row.items()}
        order = tuple(position.get(number) for number in range(len(dataset.samples)))
        without = tuple(dataset.samples[n] for n, at in enumerate(order) if at is None)
        plain = order == tuple(range(len(samples)))
        info = KeptInfo(
            head=dataset.head, keys=keys, order=None if plain else order, without=without
        )
        records = [record_of(samples[at], keys) for at in range(len(samples))]
        labels: Record = {str(one): list(label) for one, label in dataset.labels.items()}
        if not dataset.samples:
            self.odd.append(
                "dataset_info.json has no list of samples, as the script for several GPUs leaves"
                " it: what the JSON beside the activations says counts"
            )
            self._count(dataset, len(samples))
        elif info_text(info, records, labels) != dataset.text:
            self.odd.append("dataset_info.json comes back with equal values, not byte for byte")
        return info

    def _count(self, dataset: Dataset, found: int) -> None:
        wanted = dataset.head.get("num_samples")
        if type(wanted) is int and wanted != found:
            self.missing.append(f"{wanted - found} of {wanted} samples have no activations")

    def _put_sigma(self, sink: Sink, dataset: Dataset, samples: dict[int, dict[str, Any]]) -> None:
        """Record the noise level as the step's, if all samples have the same."""
        told = {one.get(CONDITIONING_SIGMA) for one in samples.values()} - {None}
        sigma = dataset.head.get(CONDITIONING_SIGMA, next(iter(told), None))
        named = any(SIGMA in one for one in samples.values())
        if isinstance(sigma, (int, float)) and told <= {sigma} and not named:
            sink.record(0, None, None, **{SIGMA: float(sigma)})

    def _codebook(self) -> dict[str, NDArray[Any]]:
        if not self._labels:
            return {}
        if sorted(self._labels) != list(range(len(self._labels))):
            self.odd.append("class_labels are not numbered 0, 1, …: there is no codebook")
            return {}
        labels = [self._labels[at] for at in range(len(self._labels))]
        return {
            CLASS_SYNSETS: np.array([synset for synset, _ in labels]),
            CLASS_NAMES: np.array([name for _, name in labels]),
        }

    def _put_pictures(self, sink: Sink, field: str, paths: dict[int, str | None]) -> None:
        if not any(paths.values()):
            return
        folders = {path.rpartition("/")[0] for path in paths.values() if path and is_inside(path)}
        there = {f"{folder}/{name}" for folder in folders for name in self._names(folder)}
        absent = [path for path in paths.values() if path not in there]
        # A tile is written whole: where pictures are missing, each is a tile of its own.
        tile = 1 if absent else self._tile
        pictures = Pictures(self._tree, f"pictures ({field})")
        for start in range(0, len(paths), tile):
            wanted = [paths[at] for at in range(start, min(start + tile, len(paths)))]
            found = pictures.read([path if path in there else None for path in wanted])
            if tile > 1 and any(one is None for one in found):
                self.odd.append(f"{field}: samples {start}:{start + len(found)} are left out")
                continue
            for at, pixels in stretches(found, start):
                sink.outputs(slice(at, at + len(pixels)), **{field: pixels})
        if absent:
            first = next((path for path in absent if path), "those of samples without a name")
            self.missing.append(f"{len(absent)} pictures ({field}): {first}")
        self.odd += pictures.sentences()

    def _names(self, folder: str) -> list[str]:
        return list(self._tree.files(folder, lambda _: False))

    def _put_embeddings(
        self, sink: Sink, samples: dict[int, dict[str, Any]]
    ) -> list[KeptEmbedding]:
        positions = {one[SAMPLE_ID]: at for at, one in samples.items() if SAMPLE_ID in one}
        kept: list[KeptEmbedding] = []
        for name in tables(self._tree, self._told.model):
            try:
                found = load_embedding(self._tree, name, first=not kept, positions=positions)
            except InvalidInputError as error:
                self.odd.append(f"left out: {error}")
                continue
            kept.append(found.kept)
            self._columns.put(sink, found.values)
            if not found.comes_back(samples):
                self.odd.append(f"{name}.csv comes back with equal values, not byte for byte")
        return kept
