"""Downsampled ImageNet, the images that DMD2's visualizer begins with: files of a hundred thousand.

A run is the whole set, a sample is one image. Nothing has steps: everything is an input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Document, Place
from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration
from archive_schema.systems.dmd2 import CLASS_NAMES, CLASS_SYNSETS, IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

LABEL: Final = "label"
MEAN: Final = "mean"
LABEL_NAMES: Final = "label_names"
LABEL_SYNSETS: Final = "label_synsets"
"""The codebook of the labels as the files have them; `CLASS_NAMES` is that of ``class_id``."""
FIRST_LABEL: Final = 1
"""Labels are counted from 1, class ids from 0."""

BATCHES: Final = "batches"
"""Metadata: a `BatchFile` for each file, in the order of their images."""


class BatchFile(Document):
    """What a run keeps of a file beside its images and labels."""

    file: str
    """Its name."""
    images: int
    labels: str
    """Their dtype."""
    mean: str | None
    """Its dtype; None where the file has none."""
    arrays: tuple[str, ...]
    """Names of its arrays, in their order."""
    deflated: bool
    crc32: int
    """Of its images as the file has them, which tells it from others."""


_BATCHES: Final = TypeAdapter(tuple[BatchFile, ...])


def batch_files(metadata: Mapping[str, Any]) -> tuple[BatchFile, ...]:
    """Return the files that a run was made of, from its metadata.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` if it was made otherwise.
    """
    try:
        found = _BATCHES.validate_python(metadata.get(BATCHES))
        for one in found:
            np.dtype(one.labels), np.dtype(one.mean)
    except (ValidationError, TypeError) as error:
        message = f"the run was not made of ImageNet64's files: its metadata {BATCHES!r}: {error}"
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message) from error
    return found


SYSTEM: Final = SystemDeclaration(
    name="imagenet64",
    title="ImageNet64 batches",
    fields={
        Place.INPUTS: {
            IMAGE: FieldDeclaration(("sample", "channel", "row", "column")),
            LABEL: FieldDeclaration(("sample",), description="from 1, in ImageNet64's order"),
            MEAN: FieldDeclaration(
                ("batch", "channel", "row", "column"), description="of the files that have one"
            ),
            CLASS_NAMES: FieldDeclaration(("class",), description="by class id, standard order"),
            CLASS_SYNSETS: FieldDeclaration(("class",), description="by class id"),
            LABEL_NAMES: FieldDeclaration(("class",), description="by label - 1"),
            LABEL_SYNSETS: FieldDeclaration(("class",), description="by label - 1"),
        },
    },
)
