"""The 1000 classes of ImageNet, in both orders in which programs number them.

*Standard*: rising synset ids, as models and their label files have it; 0 is tench. *ImageNet64*:
that of the challenge's ``map_clsloc.txt``, as the files of downsampled ImageNet have it (counted
from 1 there, from 0 here); 0 is kit_fox.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class ClassOrder(StrEnum):
    """How classes are numbered; ``other`` for a codebook that is in neither order."""

    STANDARD = "standard"
    IMAGENET64 = "imagenet64"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ClassBook:
    """Classes by their number: the entry at a class id is that class."""

    synsets: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.synsets)


@cache
def class_book(order: ClassOrder) -> ClassBook:
    """Return the 1000 classes as they are numbered in *order*.

    Examples
    --------
    >>> [class_book(order).names[0] for order in (ClassOrder.STANDARD, ClassOrder.IMAGENET64)]
    ['tench', 'kit_fox']
    """
    rows = _rows()
    if order is ClassOrder.IMAGENET64:
        rows = sorted(rows)
    elif order is not ClassOrder.STANDARD:
        raise ValueError(f"expected standard or imagenet64, got {order}")
    return ClassBook(tuple(row[1] for row in rows), tuple(row[2] for row in rows))


@cache
def imagenet64_to_standard() -> NDArray[np.int64]:
    """Return the standard class id of each ImageNet64 class id, both counted from 0.

    Examples
    --------
    >>> imagenet64_to_standard()[[0, 448]].tolist()
    [278, 0]
    """
    mapping = np.argsort([row[0] for row in _rows()])
    mapping.flags.writeable = False
    return mapping


def class_order(synsets: Sequence[str]) -> ClassOrder:
    """Return the order in which *synsets* are numbered, told by all of them."""
    for order in (ClassOrder.STANDARD, ClassOrder.IMAGENET64):
        if tuple(synsets) == class_book(order).synsets:
            return order
    return ClassOrder.OTHER


@cache
def _rows() -> list[tuple[int, str, str]]:
    """Return ImageNet64's number, the synset and the name of each class, in standard order."""
    text = files("archive_schema.systems").joinpath("imagenet_classes.json").read_text("utf-8")
    return [(int(at), synset, name) for at, synset, name in json.loads(text)]
