"""Reductions of planned slices as named values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from server.formats import Values
from server.query import LAYER, LayerSlices, reduce

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from server.query import Planned, Reduction


def by_layer(found: Planned, over: Sequence[str]) -> bool:
    """Return whether *found* is several layers of which each is reduced by itself."""
    return bool(found.layers) and bool(over) and LAYER not in over


def reduced(
    found: Planned, operation: Reduction, over: tuple[str, ...]
) -> Values | list[tuple[str, Values]]:
    """Return *found* reduced over the dims *over*; over all its dims if none is named.

    Returns
    -------
    Values | list of (str, Values)
        Layer by layer where each is reduced by itself and the results are not alike.
    """
    if not isinstance(found, LayerSlices) or not by_layer(found, over):
        return _values(found, *reduce(found, operation, over))
    results = {layer: reduce(one, operation, over) for layer, one in found.slices.items()}
    if not found.alike(over):
        return [(layer, _values(found.slices[layer], *one)) for layer, one in results.items()]
    dims = next(iter(results.values()))[0]
    return _values(found, (LAYER, *dims), np.stack([array for _, array in results.values()]))


def _values(found: Planned, dims: tuple[str, ...], array: NDArray[Any]) -> Values:
    coordinates = {name: at for name, at in found.coordinates().items() if name in dims}
    layers = found.layers if dims[:1] == (LAYER,) else ()
    return Values(
        run=found.field.run.manifest.id,
        field=found.field.spec.name,
        layer=None if found.layers else found.field.spec.layer,
        dims=dims,
        shape=array.shape,
        dtype=array.dtype,
        dtype_name=array.dtype.name,
        coordinates=lambda: coordinates,
        pieces=lambda _: iter([array]),
        steps=found.steps,
        layers=layers,
    )
