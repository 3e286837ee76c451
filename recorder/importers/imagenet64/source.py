"""A set of files of images as one run, each file read once, from its beginning to its end.

A file's checksum lies at its end. So its images are recorded while they are read, and its labels
when all of it has been: an image that has a label is as the file has it. Whoever goes on after an
import that was cut short looks for the labels, and opens no file again that has all of them.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.layout import field_path
from archive_schema.models import Place
from archive_schema.systems.dmd2 import (
    CLASS,
    CLASS_ID,
    CLASS_NAMES,
    CLASS_ORDER,
    CLASS_SYNSETS,
    IMAGE,
)
from archive_schema.systems.imagenet import ClassOrder, class_book, imagenet64_to_standard
from archive_schema.systems.imagenet64 import (
    BATCHES,
    FIRST_LABEL,
    LABEL,
    LABEL_NAMES,
    LABEL_SYNSETS,
    MEAN,
)
from recorder.importers.foreign_tree import ForeignTree
from recorder.importers.imagenet64.batch import read_batch
from recorder.importers.importer import FileImporter
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from archive_schema.store import StoreOptions
    from recorder.importers.imagenet64.batch import Batch
    from recorder.importers.source import Progress, Sink

MOST_NAMED: Final = 200_000
"""Images up to which each has its class as coordinates, which take 0.25 kB of memory an image."""
_TILE_NBYTES: Final = 12 << 20
_FILE: Final = re.compile(r"train_data_batch_([0-9]+)\.npz")
_SINGLE: Final = ".npz"


@contextmanager
def open_imagenet64(url: str, options: StoreOptions | None = None) -> Iterator[Imagenet64Source]:
    """Open the file at *url*, or the folder of ``train_data_batch_N.npz``.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    findings = Findings("npz")
    urls = [url] if url.endswith(_SINGLE) else _listed(ForeignTree(url, options), findings)
    batches = [read_batch(one, options) for one in urls]
    yield Imagenet64Source(batches, options, findings)


def _listed(tree: ForeignTree, findings: Findings) -> list[str]:
    """Return the URLs of a folder's files, by their numbers."""
    names = tree.files("", lambda _: False)
    numbers = {int(match[1]): name for name in names if (match := _FILE.fullmatch(name))}
    if not numbers:
        raise tree.refuse("expected train_data_batch_1.npz and its like, found none of them")
    for number in range(1, max(numbers)):
        if number not in numbers:
            findings.missing.append(f"train_data_batch_{number}.npz is not there")
    for name in sorted(set(names) - set(numbers.values())):
        findings.odd.append(f"{name} is no training batch: left out")
    return [f"{tree.url}/{name}" for _, name in sorted(numbers.items())]


class Imagenet64Source:
    """The files as the import takes them over, one after another."""

    steps: tuple[int, ...] = ()

    def __init__(
        self, batches: Sequence[Batch], options: StoreOptions | None, findings: Findings
    ) -> None:
        first = batches[0]
        for batch in batches:
            if batch.side != first.side:
                message = f"expected images of side {first.side}, as {first.name} has: {batch.side}"
                raise ForeignTree(batch.url, options).refuse(message)
        self._batches = batches
        self._options = options
        self._labels = np.concatenate([batch.labels for batch in batches])
        self._classes = self._class_ids()
        self.samples = len(self._labels)
        self.tile: int | None = min(self.samples, _TILE_NBYTES // (3 * first.side * first.side))
        self.findings = findings
        self.findings.files = len(batches)
        self._find()
        self.metadata: Mapping[str, JsonValue] = {
            CLASS_ORDER: ClassOrder.STANDARD.value,
            BATCHES: [batch.about.model_dump(mode="json") for batch in batches],
        }

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand everything over: what is small, then image after image."""
        self._feed_books(sink)
        size = self.tile or self.samples
        done = self._labelled(sink)
        at, begin = done, 0
        held: list[NDArray[np.uint8]] = []
        for batch in self._batches:
            end = begin + batch.rows
            if end > at:
                with batch.images(self._options) as images:
                    images.skip(at - begin)
                    while at < end:
                        count = min(size - at % size, end - at)
                        held.append(images.read(count).reshape(count, *batch.shape))
                        at += count
                        if at % size == 0 or at == self.samples:
                            whole = held[0] if len(held) == 1 else np.concatenate(held)
                            sink.inputs(slice(at - len(whole), at), **{IMAGE: whole})
                            held = []
                            progress(at, self.samples)
                    images.finish()
                sound = at - sum(map(len, held))
                for start in range(done, sound, size):
                    self._feed_labels(sink, slice(start, min(start + size, sound)))
                done = sound
            begin = end

    def _feed_books(self, sink: Sink) -> None:
        by_class, by_label = class_book(ClassOrder.STANDARD), class_book(ClassOrder.IMAGENET64)
        books = {
            CLASS_NAMES: by_class.names,
            CLASS_SYNSETS: by_class.synsets,
            LABEL_NAMES: by_label.names,
            LABEL_SYNSETS: by_label.synsets,
        }
        sink.inputs(None, **{name: np.array(book) for name, book in books.items()})
        means = [
            batch.mean.reshape(batch.shape) for batch in self._batches if batch.mean is not None
        ]
        if means:
            sink.inputs(None, **{MEAN: np.stack(means)})

    def _labelled(self, sink: Sink) -> int:
        """Return the first image whose label is not recorded: it was not seen to be sound."""
        known = sink.recorded().fields.get(field_path(Place.INPUTS, None, LABEL))
        size, at = self.tile or self.samples, 0
        while known is not None and at < self.samples:
            end = min(at + size, self.samples)
            if not known.has(0, at, end):
                break
            at = end
        return at

    def _feed_labels(self, sink: Sink, rows: slice) -> None:
        sink.inputs(rows, **{LABEL: self._labels[rows]})
        if self._classes is not None:
            ids = self._classes[rows]
            names: NDArray[Any] = np.array(class_book(ClassOrder.STANDARD).names)[ids]
            sink.sample_coordinates(rows, **{CLASS_ID: ids, CLASS: names})

    def _class_ids(self) -> NDArray[np.int64] | None:
        """Return the class id of each image; None for too many images, and for odd labels."""
        mapping = imagenet64_to_standard()
        at = self._labels - FIRST_LABEL
        if len(at) > MOST_NAMED or at.min() < 0 or at.max() >= len(mapping):
            return None
        ids: NDArray[np.int64] = mapping[at]
        return ids

    def _find(self) -> None:
        low, high = int(self._labels.min()), int(self._labels.max())
        book = len(imagenet64_to_standard())
        odd = self.findings.odd
        if low < FIRST_LABEL or high >= FIRST_LABEL + book:
            odd.append(
                f"labels are from {low} to {high}, not from 1 to {book}: no image is given a class"
            )
        elif self._classes is None:
            odd.append(
                f"{self.samples} images are more than {MOST_NAMED}: their classes are in"
                " inputs/label alone, and no sample coordinates"
            )
        for batch in self._batches:
            odd += [f"{batch.name}: {name} is left out" for name in batch.unknown]
            if batch.mean is None:
                self.findings.missing.append(f"{batch.name} has no mean")


IMPORTER: Final = FileImporter(open=open_imagenet64, signs=("train_data_batch_*.npz",))
