"""The shape of one sample of each layer: files hold it flat, and seldom tell it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.dmd2 import OUTPUT, known_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from archive_schema.ledger import Ledger

_SHAPE: Final = re.compile(r"[1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*")


def parse_shapes(text: str | None) -> dict[str, tuple[int, ...]]:
    """Return what the flag ``shapes`` says.

    Examples
    --------
    >>> parse_shapes("midblock=768x8x8,head=10")
    {'midblock': (768, 8, 8), 'head': (10,)}

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``.
    """
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split(",") if text else ():
        layer, _, shape = part.rpartition("=")
        if not layer or not _SHAPE.fullmatch(shape):
            message = f"shapes: expected such as midblock=768x8x8, got {part!r:.100}"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        found[layer] = tuple(map(int, shape.split("x")))
    return found


class LayerShapes:
    """Decides the shape of each layer, once.

    What is recorded counts, then what the user says, then ``layer_shapes`` of
    ``dataset_info.json``, then what layers of that name have.

    Parameters
    ----------
    given
        What the user says.
    """

    def __init__(self, ledger: Ledger | None, given: Mapping[str, tuple[int, ...]]) -> None:
        self.odd: list[str] = []
        self._given = given
        self._known: dict[str, tuple[int, ...]] = {}
        for field in () if ledger is None else ledger.fields.values():
            spec = field.spec
            if spec.place is Place.LAYERS and spec.layer is not None and spec.name == OUTPUT:
                self._known[spec.layer] = spec.tail

    def of(self, layer: str, flat: tuple[int, ...], head: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the shape of a sample that files hold as *flat*.

        Parameters
        ----------
        head
            Of ``dataset_info.json``; empty if there is none yet.

        Raises
        ------
        InvalidInputError
            ``shape-mismatch`` if it is of another length than what is known of the layer.
        """
        if layer not in self._known:
            told = self._given.get(layer) or self._told(layer, flat, head)
            self._known[layer] = told or self._named(layer, flat)
        known = self._known[layer]
        if math.prod(known) != math.prod(flat):
            message = f"expected {known} values of layer {layer} for a sample, found {flat}"
            raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, f"{message}: it is another model's")
        return known

    def _told(
        self, layer: str, flat: tuple[int, ...], head: Mapping[str, Any]
    ) -> tuple[int, ...] | None:
        shapes = head.get("layer_shapes")
        shape = shapes.get(layer) if isinstance(shapes, dict) else None
        if not isinstance(shape, list) or not all(type(one) is int for one in shape):
            return None
        if math.prod(shape) == math.prod(flat):
            return tuple(shape)
        self.odd.append(f"layer_shapes gives {layer} as {shape}, and files hold {flat}")
        return None

    def _named(self, layer: str, flat: tuple[int, ...]) -> tuple[int, ...]:
        shape = known_shape(layer, flat[0]) if len(flat) == 1 else flat
        if shape is None:
            self.odd.append(
                f"nothing tells the channels, rows and columns of layer {layer}: kept flat, unless"
                f" --flag shapes={layer}=CxHxW says them"
            )
        return shape or flat
