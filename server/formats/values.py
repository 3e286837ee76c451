"""What an encoder takes and gives: named values that come in pieces, and a body in parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query import Planned

Part: TypeAlias = "bytes | memoryview"
Pieces: TypeAlias = Callable[[int], "Iterator[NDArray[Any]]"]


@dataclass(frozen=True, slots=True)
class Values:
    """An array that is named and not read yet.

    Each piece is one box of consecutive values in C order: along one axis a range, along the
    axes before it one entry, and whole along the axes after it.
    """

    run: str
    field: str
    layer: str | None
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dtype_name: str
    """``float16``, ``U8``."""
    coordinates: Callable[[], dict[str, NDArray[Any]]]
    """Names of layers, step numbers, or positions in the field, along each of *dims*."""
    pieces: Pieces
    """Given the most bytes that one piece should have."""
    steps: tuple[int, ...] = ()
    """Step numbers that were chosen, also where they are no axis of the result."""
    recorded: NDArray[np.bool_] | None = None
    """Which are recorded, along those of *dims* that `marked` names; None for all."""
    layers: tuple[str, ...] = ()
    """Names along the first axis, `layer`, of several layers as one array."""

    @property
    def marked(self) -> tuple[str, ...]:
        """Those of *dims* whose entries have names or numbers of their own."""
        known = ("layer", "step", "sample") if self.layers else ("step", "sample")
        return tuple(dim for dim in self.dims if dim in known)

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def present(self, start: int, stop: int) -> NDArray[np.bool_] | None:
        """Return which of the values ``[start, stop)`` in C order are recorded; None for all."""
        if self.recorded is None:
            return None
        flat = np.arange(start, stop)
        places = np.unravel_index(flat, self.shape) if self.shape else ()
        index = tuple(
            place for dim, place in zip(self.dims, places, strict=True) if dim in self.marked
        )
        mask: NDArray[np.bool_] = np.broadcast_to(self.recorded[index], (stop - start,))
        return None if mask.all() else mask


def values_of(found: Planned, *, masked: bool = False) -> Values:
    """Return the values of a planned slice; *masked* tells which of them are recorded."""
    spec = found.field.spec

    def pieces(max_bytes: int) -> Iterator[NDArray[Any]]:
        # Cutting costs more than reading where there is nothing to cut.
        return iter((found.array(),)) if found.nbytes <= max_bytes else found.pieces(max_bytes)

    return Values(
        run=found.field.run.manifest.id,
        field=spec.name,
        layer=None if found.layers else spec.layer,
        dims=found.dims,
        shape=found.shape,
        dtype=found.dtype,
        dtype_name=spec.dtype,
        coordinates=found.coordinates,
        pieces=pieces,
        steps=found.steps,
        recorded=found.recorded() if masked else None,
        layers=found.layers,
    )


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of an answer, computed while they are sent."""

    media_type: str
    nbytes: int | None
    """Exact length, known before anything is read; None where it follows from the values."""
    parts: Callable[[], Iterator[Part]]


def as_bytes(values: NDArray[Any]) -> memoryview:
    """Return the bytes of *values* in C order, without a copy where they lie so already."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
