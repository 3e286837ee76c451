"""Layers by glob, and one field of several layers as one array."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.globs import matching_names, natural
from archive_schema.models import Place
from server.query.slice import PIECE_NBYTES, Slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from server.query.field import FieldView
    from server.query.run import RunView

LAYER: Final = "layer"
"""The axis along which layers lie."""
_MOST_SHOWN: Final = 20


def matching_layers(run: RunView, glob: str) -> list[str]:
    """Return the layers whose names match *glob*, in natural order.

    A layer that is called just so is meant alone.

    Raises
    ------
    NotFoundError
        ``layer-not-found``, naming what there is.
    """
    known = run.layers()
    found = matching_names(known, glob)
    if not found:
        names = sorted(known, key=natural)
        more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
        there = ", ".join(names[:_MOST_SHOWN]) + more if names else "none"
        message = f"no layer of run {run.manifest.id!r} matches {glob[:200]!r}; there are: {there}"
        raise NotFoundError(ErrorKind.LAYER_NOT_FOUND, message)
    return found


def matching_fields(run: RunView, glob: str, name: str) -> list[FieldView]:
    """Return the field *name* of each layer that matches *glob* and has it, in natural order.

    Raises
    ------
    NotFoundError
        ``layer-not-found``, or ``field-not-found``, naming what there is.
    """
    layers = matching_layers(run, glob)
    by_layer = {f.spec.layer: f for f in run.fields(Place.LAYERS) if f.spec.name == name}
    found = [by_layer[layer] for layer in layers if layer in by_layer]
    if not found:
        names = {f.spec.name for f in run.fields(Place.LAYERS) if f.spec.layer in set(layers)}
        message = (
            f"no layer of run {run.manifest.id!r} that matches {glob[:200]!r} has a field"
            f" {name!r}; expected one of {', '.join(sorted(names)) or 'none'}"
        )
        raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
    return found


class LayerSlices:
    """The same selection of one field of several layers.

    Where dims, shapes, dtypes and the entries taken agree it is one array with a leading axis
    `layer`, and is read like a `Slice`; `check_alike` tells where they do not.

    Parameters
    ----------
    slices
        By name of the layer; at least one.
    """

    def __init__(self, slices: Mapping[str, Slice]) -> None:
        self.slices = slices
        self.layers = tuple(slices)
        first = next(iter(slices.values()))
        self.field = first.field
        self.dtype = first.dtype
        self.dims = (LAYER, *first.dims)
        self.shape = (len(slices), *first.shape)
        self.steps = first.steps
        self.nbytes = sum(one.nbytes for one in slices.values())

    def alike(self, over: Sequence[str] = ()) -> bool:
        """Return whether they can be one array, after dims *over* were reduced."""
        kinds = {_kind(one, over) for one in self.slices.values()}
        return len(kinds) == 1 and LAYER not in self.dims[1:]

    def check_alike(self, over: Sequence[str] = ()) -> None:
        """Check that they can be one array, after dims *over* were reduced.

        Raises
        ------
        InvalidInputError
            ``invalid-selection``, naming what differs.
        """
        if self.alike(over):
            return
        kinds: dict[str, list[str]] = {}
        for layer, one in self.slices.items():
            axes = ", ".join(f"{d} {n}" for d, n in zip(one.dims, one.shape, strict=True))
            steps = f" at {len(one.steps)} steps" if one.field.stepped else ""
            kinds.setdefault(f"({axes}) {one.field.spec.dtype}{steps}", []).append(layer)
        texts = [
            f"{kind} in {', '.join(layers[:3])}{', …' if len(layers) > 3 else ''}"  # noqa: PLR2004
            for kind, layers in list(kinds.items())[:_MOST_SHOWN]
        ]
        message = (
            f"{self.field.spec.name!r} of {len(self.layers)} layers is no one array:"
            f" {'; '.join(texts)}; expected layers that are alike, or format=npz, which gives"
            " an array for each layer"
        )
        raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)

    @property
    def digest(self) -> str:
        """A strong digest of the values, as hexadecimal text; no data is read for it."""
        said = "\n".join(f"{layer} {one.digest}" for layer, one in self.slices.items())
        return blake2b(said.encode(), digest_size=16).hexdigest()

    def array(self, *, keep: bool = True) -> NDArray[Any]:
        """Read everything, as `Slice.array`."""
        return np.stack([one.array(keep=keep) for one in self.slices.values()])

    def pieces(self, max_bytes: int = PIECE_NBYTES) -> Iterator[NDArray[Any]]:
        """Read everything, as `Slice.pieces`."""
        for _, values in self.boxes(max_bytes):
            yield values

    def boxes(
        self, max_bytes: int = PIECE_NBYTES
    ) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """Yield each piece with its place, as `Slice.boxes`."""
        for at, one in enumerate(self.slices.values()):
            for place, values in one.boxes(max_bytes):
                yield (slice(at, at + 1), *place), values[None]

    def recorded(self) -> NDArray[np.bool_]:
        """Return which layers, steps and samples are recorded."""
        return np.stack([one.recorded() for one in self.slices.values()])

    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Return the layers' names, and step numbers and positions along the other axes."""
        first = next(iter(self.slices.values()))
        return {LAYER: np.array(self.layers), **first.coordinates()}


Planned: TypeAlias = Slice | LayerSlices
"""What reductions and encoders read."""


def _kind(one: Slice, over: Sequence[str]) -> tuple[Any, ...]:
    # Also what is taken: equal shapes of other entries would be numbered wrongly.
    axes = [(dim, of) for dim, of in zip(one.dims, one.kept, strict=True) if dim not in over]
    return tuple(axes), one.field.spec.dtype, () if "step" in over else one.steps
