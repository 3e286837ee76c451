"""A run as a data set of images: who its samples are, and what is kept of its files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.dmd2 import (
    CLASS_NAMES,
    CLASS_SYNSETS,
    GUIDANCE,
    IMAGE,
    MODEL,
    OUTPUT,
)
from archive_schema.systems.dmd2 import SYSTEM as DMD2
from archive_schema.systems.dmd2_files import (
    ACTIVATION_FILES,
    DATASET_INFO,
    EMBEDDINGS,
    KeptEmbeddings,
    KeptFiles,
    KeptInfo,
)
from archive_schema.systems.imagenet import ClassOrder, class_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.query import RunView
    from server.query.field import FieldView

_T = TypeVar("_T", KeptInfo, KeptFiles, KeptEmbeddings)


def image_set(run: RunView) -> ImageSet:
    """Return *run* as a data set.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` if it is of another system.
    """
    if run.manifest.system != DMD2.name:
        message = f"run {run.manifest.id!r} is of system {run.manifest.system!r}, expected dmd2"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return ImageSet(run)


def features_of(field: FieldView) -> int:
    """Return how many values a sample of a layer has in flat files: of one forward pass."""
    tail = field.spec.tail
    return math.prod(tail[1:] if GUIDANCE in field.dims else tail)


@dataclass(frozen=True)
class ImageSet:
    """A data set, as far as it is recorded."""

    run: RunView

    @property
    def model(self) -> str:
        """Return the name of its folders."""
        metadata = self.run.manifest.metadata
        return str(metadata.get(MODEL) or metadata.get("model_type") or "imagenet")

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Return the coordinates of each sample, by position."""
        found: list[dict[str, Any]] = [{} for _ in range(self.run.samples)]
        # A copy: the recorder of a live run may bring more while this is used.
        for name, coordinate in list(self.run.ledger.sample_coordinates.items()):
            for at, value in list(coordinate.values.items()):
                if at < len(found):
                    found[at][name] = value
        return found

    @cached_property
    def layers(self) -> list[FieldView]:
        """Return the fields of activations, by the name of their layer: as flat files have them."""
        fields = self.run.fields(Place.LAYERS)
        return sorted(
            (field for field in fields if field.spec.name == OUTPUT and field.spec.sampled),
            key=lambda field: str(field.spec.layer),
        )

    def chosen(self, names: Sequence[str] | None) -> list[FieldView]:
        """Return the layers called *names*, all by default.

        Raises
        ------
        NotFoundError
            ``layer-not-found``.
        """
        if names is None:
            return self.layers
        return [self.run.field(OUTPUT, layer=name) for name in sorted(set(names))]

    @cached_property
    def info(self) -> KeptInfo | None:
        """Return what is kept of ``dataset_info.json``."""
        return self._kept(DATASET_INFO, KeptInfo)

    @cached_property
    def files(self) -> KeptFiles | None:
        """Return what is kept of the files of activations."""
        return self._kept(ACTIVATION_FILES, KeptFiles)

    @cached_property
    def embeddings(self) -> KeptEmbeddings | None:
        """Return what is kept of the tables of embeddings."""
        return self._kept(EMBEDDINGS, KeptEmbeddings)

    @cached_property
    def classes(self) -> list[tuple[str, str]]:
        """Return synset and name of each class, by class id; empty without a codebook."""
        columns = [self._input(name) for name in (CLASS_SYNSETS, CLASS_NAMES)]
        if None in columns:
            return []
        first, second = (one.select({}).array().tolist() for one in columns if one is not None)
        return list(zip(first, second, strict=True))

    @property
    def class_order(self) -> ClassOrder | None:
        """Return how the classes are numbered; None without a codebook."""
        return class_order([synset for synset, _ in self.classes]) if self.classes else None

    def pictures(self, name: str = IMAGE) -> FieldView | None:
        """Return the pictures of samples, or None if there are none."""
        ledger = self.run.ledger.at(Place.OUTPUTS, None, name)
        return None if ledger is None else self.run.field(name, place=Place.OUTPUTS)

    def _input(self, name: str) -> FieldView | None:
        ledger = self.run.ledger.at(Place.INPUTS, None, name)
        if ledger is None or not ledger.count:
            return None
        return self.run.field(name, place=Place.INPUTS)

    def _kept(self, name: str, kind: type[_T]) -> _T | None:
        field = self._input(name)
        return None if field is None else kind.parse(field.select({}).array().tobytes())
