"""Which of the visualizer's data sets is meant, and what a user says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems.imagenet import ClassOrder, class_book
from recorder.importers.dmd2.generated import GENERATED, GeneratedTree, has_generated
from recorder.importers.dmd2.shapes import parse_shapes
from recorder.importers.dmd2.tree import Dmd2Tree
from recorder.importers.importer import TreeImporter

if TYPE_CHECKING:
    from archive_schema.records import RunRecords
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.tree import TreeSource


def open_dmd2_tree(
    tree: ForeignTree,
    part: str | None,
    records: RunRecords | None,
    shapes: str | None = None,
    classes: str | None = None,
) -> TreeSource | None:
    """Return the data set *part* in the data folder *tree*; None if there is none yet.

    Parameters
    ----------
    part
        A folder below ``activations``; with ``/generated`` behind it, what was generated in the
        app beside that data set.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if there are several data sets, and none is named;
        ``invalid-parameter`` for a flag.
    """
    order = None if classes is None else _order(classes)
    models = tree.folders("activations")
    if part is None and len(models) > 1:
        message = f"expected one data set, found {', '.join(models)}: name one by --part"
        raise tree.refuse(message)
    model, _, kind = (part or next(iter(models), "")).partition("/")
    if model not in models:
        return None
    if kind == GENERATED:
        return GeneratedTree(tree, model, order) if has_generated(tree, model) else None
    if kind:
        raise tree.refuse(f"expected a part such as {model} or {model}/{GENERATED}, got {part!r}")
    book = None if order is None else class_book(order)
    return Dmd2Tree(tree, model, records, parse_shapes(shapes), book)


def _order(text: str) -> ClassOrder:
    if text not in (ClassOrder.STANDARD, ClassOrder.IMAGENET64):
        message = f"classes: expected standard or imagenet64, got {text!r}"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return ClassOrder(text)


IMPORTER: Final = TreeImporter(
    open=open_dmd2_tree,
    signs=("activations/*/batch_*.npz", "metadata/*/dataset_info.json"),
    flags={
        "shapes": "channels, rows and columns of layers: midblock=768x8x8,…",
        "classes": "how class ids are numbered, where no codebook is there: standard, imagenet64",
    },
)
