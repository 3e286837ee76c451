"""ImageNet64's files again, each written as NumPy writes it: equal to the last byte."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import NotFoundError
from archive_schema.models import Place
from archive_schema.systems.dmd2 import IMAGE
from archive_schema.systems.imagenet64 import LABEL, MEAN, BatchFile, batch_files
from server.exporters.exporter import Exporter
from server.exporters.saved_npz import SavedNpz
from server.exporters.tree import Tree, TreeFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from numpy.typing import NDArray

    from server.query import RunView
    from server.query.field import FieldView
    from server.query.slice import Slice


def imagenet64_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return ``train_data_batch_N.npz``; one that is not taken over whole yet is left out."""
    del steps  # there are none
    files, notes = [], []
    for batch in _batches(run):
        if batch.whole:
            digest = blake2b(repr(batch.said).encode(), digest_size=16).hexdigest()
            files.append(TreeFile(batch.about.file, batch.nbytes, digest, batch.write))
        else:
            notes.append(f"{batch.about.file} is not whole yet: left out")
    return Tree.of(files, notes)


@dataclass(frozen=True, slots=True)
class _Batch:
    """One of the files that the run was made of."""

    run: RunView
    about: BatchFile
    samples: range
    mean: int | None
    """Which of the run's means it has."""

    @property
    def whole(self) -> bool:
        """Whether it was taken over to its end: labels come last."""
        try:
            ledger = self._field(LABEL).ledger
        except NotFoundError:
            return False
        known = ledger.recorded(self.run.samples, [0])[0, self.samples.start : self.samples.stop]
        return int(known.sum()) == len(self.samples)

    @property
    def nbytes(self) -> int:
        """About how long the file is."""
        image = self._field(IMAGE).spec.tail
        return len(self.samples) * (math.prod(image) + np.dtype(self.about.labels).itemsize)

    @property
    def said(self) -> tuple[object, ...]:
        """What the bytes of the file follow from."""
        mean = None if self.mean is None else self._field(MEAN).select({"batch": self.mean}).digest
        return (*(self._rows(name).digest for name in (IMAGE, LABEL)), mean, self.about)

    def write(self, target: IO[bytes]) -> None:
        """Write the file, a part at a time, as ``numpy.savez`` does."""
        with SavedNpz(target, compressed=self.about.deflated) as file:
            for name in self.about.arrays:
                dtype, shape, pieces = self._array(name)
                data = (np.ascontiguousarray(piece, dtype).data.cast("B") for piece in pieces)
                file.write_pieces(name, dtype.str, shape, data)

    def _array(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...], Iterable[NDArray[Any]]]:
        """Return dtype, shape and values of one array of the file."""
        if name == MEAN and self.mean is not None:
            values = self._field(MEAN).select({"batch": self.mean}).array().reshape(-1)
            return np.dtype(self.about.mean), values.shape, [values]
        rows = len(self.samples)
        if name == "data":
            images = self._rows(IMAGE)
            return images.dtype, (rows, math.prod(images.shape[1:])), images.pieces()
        return np.dtype(self.about.labels), (rows,), self._rows(LABEL).pieces()

    def _rows(self, name: str) -> Slice:
        taken = {"sample": slice(self.samples.start, self.samples.stop)}
        return self._field(name).select(taken)

    def _field(self, name: str) -> FieldView:
        return self.run.field(name, place=Place.INPUTS)


def _batches(run: RunView) -> Iterator[_Batch]:
    start = means = 0
    for about in batch_files(run.manifest.metadata):
        mean = None if about.mean is None else means
        means += about.mean is not None
        yield _Batch(run, about, range(start, start + about.images), mean)
        start += about.images


EXPORTER: Final = Exporter(trees={"imagenet64-tree": imagenet64_tree})
