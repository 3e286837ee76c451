"""What the visualizer's text files hold beside values, and those files written again from it.

Importer and exporter share this: the values of a sample are its coordinates, and all else of
``dataset_info.json``, of the JSON beside activations and of the embeddings is kept as the documents
below, as bytes in the run's inputs.
"""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from pydantic import JsonValue, ValidationError

from archive_schema.errors import ErrorKind, FormatError, InvalidInputError
from archive_schema.models import Document
from archive_schema.systems.dmd2 import RENAMED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

DATASET_INFO: Final = "dataset_info"
ACTIVATION_FILES: Final = "activation_files"
EMBEDDINGS: Final = "embeddings"
"""Inputs: a `KeptInfo`, a `KeptFiles` and `KeptEmbeddings`."""
SAMPLES: Final = "samples"
CLASS_LABELS: Final = "class_labels"
"""Keys of ``dataset_info.json`` that are not kept in the document."""

Record = dict[str, JsonValue]


class _Kept(Document):
    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the document that is kept as *data*; the inverse of `array`.

        Raises
        ------
        FormatError
            ``record-damaged``.
        """
        try:
            return cls.model_validate_json(data)
        except (ValidationError, InvalidInputError) as error:
            message = f"expected a {cls.__name__}, got {data[:80]!r}"
            raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error

    def array(self) -> NDArray[np.uint8]:
        """Return the document as a field holds it."""
        return np.frombuffer(self.model_dump_json().encode(), np.uint8)


class KeptInfo(_Kept):
    """``dataset_info.json`` but for the values of samples and the codebook."""

    head: Record
    """All keys in their order; `SAMPLES` and `CLASS_LABELS` without their value."""
    keys: tuple[str, ...] = ()
    """Keys of a sample, in their order."""
    order: tuple[int | None, ...] | None = None
    """Position of each sample of the list, None for the next of *without*; or None for 0, 1, …"""
    without: tuple[Record, ...] = ()
    """Samples that no activation is known of, as they were told."""


class KeptFiles(_Kept):
    """What the files of activations have in common."""

    layout: Literal["batch", "sample"]
    """Whether a file holds a batch or one sample."""
    layers: tuple[str, ...]
    """In the order of their arrays."""
    keys: tuple[str, ...] = ()
    """Keys of a sample in the JSON beside a file; none if there is no such JSON."""


class KeptEmbedding(_Kept):
    """One table of embeddings and the parameters beside it."""

    name: str
    """Of the file, without ``.csv``."""
    columns: tuple[str, ...]
    axes: dict[str, str]
    """The sample coordinate that a column became, for the columns that are the embedding's own."""
    parameters: Record | None = None


class KeptEmbeddings(_Kept):
    """All tables of embeddings."""

    tables: tuple[KeptEmbedding, ...]


def coordinate_of(key: str) -> str:
    """Return the sample coordinate that *key* of a sample becomes."""
    return RENAMED.get(key, key)


def record_of(values: Mapping[str, Any], keys: Iterable[str]) -> Record:
    """Return a sample as the files tell it, from its coordinates."""
    return {key: values[name] for key in keys if (name := coordinate_of(key)) in values}


def info_text(info: KeptInfo, samples: Sequence[Record], labels: Record | None) -> str:
    """Return ``dataset_info.json``.

    Parameters
    ----------
    samples
        By position.
    labels
        The codebook, by class id as text.
    """
    document: dict[str, Any] = dict(info.head)
    if CLASS_LABELS in document:
        document[CLASS_LABELS] = labels
    if SAMPLES in document:
        without = iter(info.without)
        order = range(len(samples)) if info.order is None else info.order
        document[SAMPLES] = [next(without) if at is None else samples[at] for at in order]
    return json.dumps(document, indent=2)


def batch_text(files: KeptFiles, samples: Sequence[Record]) -> str:
    """Return the JSON beside a file of activations."""
    if files.layout == "sample":
        return json.dumps(samples[0], indent=2)
    document = {"batch_size": len(samples), "layers": list(files.layers), SAMPLES: list(samples)}
    return json.dumps(document, indent=2)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[JsonValue]]) -> str:
    """Return a table as pandas writes it, without its index; None and NaN are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if _lacking(value) else _cell(value) for value in row])
    return out.getvalue()


def embedding_rows(
    embedding: KeptEmbedding, samples: Iterable[Mapping[str, Any]]
) -> list[list[JsonValue]]:
    """Return the rows of a table: of *samples*, by coordinate, those that are in it."""
    first = next(iter(embedding.axes.values()))
    names = [embedding.axes.get(column, coordinate_of(column)) for column in embedding.columns]
    return [[one.get(name) for name in names] for one in samples if first in one]


def _lacking(value: JsonValue) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _cell(value: JsonValue) -> str:
    return repr(value) if isinstance(value, float) else str(value)
