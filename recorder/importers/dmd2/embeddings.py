"""Tables of embeddings: coordinates of samples in projections, and the parameters beside them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from archive_schema.errors import InvalidInputError
from archive_schema.systems.dmd2 import SAMPLE_ID, UMAP_AXES
from archive_schema.systems.dmd2_files import KeptEmbedding, embedding_rows, table_text
from recorder.importers.dmd2.dataset import load_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recorder.importers.foreign_tree import ForeignTree

FOLDER: Final = "embeddings"
_LARGEST: Final = 1 << 30


@dataclass(slots=True)
class Embedding:
    """One table."""

    kept: KeptEmbedding
    values: dict[int, dict[str, float]]
    """By position: the coordinates that the table adds."""
    text: str

    def comes_back(self, samples: Mapping[int, Mapping[str, Any]]) -> bool:
        """Return whether the table is written again by the same bytes."""
        merged = [{**samples[at], **self.values.get(at, {})} for at in sorted(samples)]
        return table_text(self.kept.columns, embedding_rows(self.kept, merged)) == self.text


def tables(tree: ForeignTree, model: str) -> list[str]:
    """Return the names of the tables of *model*, without their ending, sorted."""
    pattern = re.compile(rf"{re.escape(model)}_[a-z]+_n.*\.csv")
    found = tree.files(FOLDER, lambda _: False)
    return [name.removesuffix(".csv") for name in found if pattern.fullmatch(name)]


def load_embedding(
    tree: ForeignTree, name: str, *, first: bool, positions: Mapping[str, int]
) -> Embedding:
    """Return a table.

    Parameters
    ----------
    first
        Whether its axes are called as in the file; those of further tables have the table's
        parameters behind them.
    positions
        Of samples, by their id.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it names samples that there are not, or has no coordinates.
    """
    path = f"{FOLDER}/{name}.csv"
    with tree.open(path) as file:
        if file.nbytes > _LARGEST:
            raise file.refuse(f"has {file.nbytes} bytes, more than the {_LARGEST} that are read")
        text = file.stream.read().decode("utf-8", "replace")
        header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
        axes = [column for column in header if column in UMAP_AXES]
        if SAMPLE_ID not in header or not axes:
            found = ", ".join(header)
            raise file.refuse(f"expected columns {SAMPLE_ID} and umap_x, found {found:.300}")
        suffix = "" if first else "_" + re.sub(r"[^A-Za-z0-9]+", "-", name.partition("_n")[2])
        kept = KeptEmbedding(
            name=name,
            columns=tuple(header),
            axes={axis: axis + suffix for axis in axes},
            parameters=_parameters(tree, name),
        )
        values: dict[int, dict[str, float]] = {}
        for row in rows:
            told = dict(zip(header, row, strict=False))
            at = positions.get(told.get(SAMPLE_ID, ""))
            if at is None:
                raise file.refuse(f"names {told.get(SAMPLE_ID)!r}, which is no sample of the set")
            try:
                values[at] = {kept.axes[axis]: float(told[axis]) for axis in axes}
            except (ValueError, KeyError) as error:
                raise file.refuse(f"expected numbers at {', '.join(axes)}: {row}") from error
    return Embedding(kept, values, text)


def _parameters(tree: ForeignTree, name: str) -> dict[str, Any] | None:
    try:
        with tree.open(f"{FOLDER}/{name}.json") as file:
            found, _ = load_json(file)
    except InvalidInputError:
        return None
    return found if isinstance(found, dict) else None
