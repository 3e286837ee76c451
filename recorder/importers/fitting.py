"""Which field of the run takes which values: a field's dtype and axes are settled by its first.

What does not fit, because a later file has longer text, another width of float or another number of
axes, goes into a field of its own beside it, and nothing is cast that would lose by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from archive_schema.dtypes import dtype_name
from archive_schema.models import Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from archive_schema.ledger import Ledger
    from recorder.recorded import Recorded

_ROOM: Final = 16
"""Text is stored in multiples of so many characters, with half as much again as the first had."""


class Fitting:
    """The layers' fields of a run: their dtypes, and how many axes they have."""

    def __init__(self, known: Ledger | Recorded | None) -> None:
        self._known: dict[tuple[str, str], tuple[str, int]] = {}
        for spec in [] if known is None else [field.spec for field in known.fields.values()]:
            if spec.place is Place.LAYERS and spec.layer is not None:
                self._known[spec.layer, spec.name] = (spec.dtype, len(spec.dims) - 1)

    def fit(self, layer: str, name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
        """Return the field of *layer* that takes *values*, and the values as it takes them."""
        known = self._known.get((layer, name))
        if known is None:
            known = self._known[layer, name] = (_roomy(values.dtype), values.ndim)
        dtype, axes = known
        if axes != values.ndim:
            return self.fit(layer, f"{name}_{values.ndim}d", values)
        own = dtype_name(values.dtype)
        if own == dtype:
            return name, values
        if own[0] == dtype[0] == "U" and int(own[1:]) <= int(dtype[1:]):
            return name, values.astype(dtype)
        return self.fit(layer, f"{name}_{_roomy(values.dtype)}", values)


def _roomy(dtype: np.dtype[Any]) -> str:
    if dtype.kind != "U":
        return dtype_name(dtype)
    longest = dtype.itemsize // 4
    return f"U{_ROOM * -(-longest * 3 // (2 * _ROOM))}"
