"""Samples as a table, in the columns of the app's own export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.systems.dmd2 import ACTIVATION_DIGEST, CLASS, CLASS_ID, UMAP_AXES
from archive_schema.systems.dmd2_files import coordinate_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from server.systems.dmd2.dataset import ImageSet

_KEY_OF = {CLASS_ID: "class_label", CLASS: "class_name"}


def listed(
    dataset: ImageSet, positions: Sequence[int]
) -> tuple[tuple[str, ...], list[list[JsonValue]]]:
    """Return columns and rows of some samples.

    Columns are those of the first table of embeddings, which the app loads; without one, those of
    the list of samples, and without that all coordinates.
    """
    columns: tuple[str, ...]
    if dataset.embeddings is not None and dataset.embeddings.tables:
        columns = dataset.embeddings.tables[0].columns
    else:
        known = dict.fromkeys(name for one in dataset.samples for name in one)
        first = () if dataset.info is None else dataset.info.keys
        named = [_KEY_OF.get(name, name) for name in known if name != ACTIVATION_DIGEST]
        axes = [name for name in UMAP_AXES if name in known]
        columns = (*(first or (n for n in named if n not in axes)), *axes)
    return columns, [
        [dataset.samples[at].get(coordinate_of(column)) for column in columns] for at in positions
    ]
