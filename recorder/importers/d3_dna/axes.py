"""Names for the axes of a logger's arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.errors import InvalidInputError
from archive_schema.models import check_name
from archive_schema.systems.d3_dna import SYSTEM

if TYPE_CHECKING:
    from archive_schema.models import Place

_TAKEN: Final = frozenset(("n", "samples", "layer"))
"""Arguments of the recorder's methods, which take fields by their names."""


class Axes:
    """Names axes so that within a place one name has one length, as Zarr's readers expect.

    Parameters
    ----------
    samples : int
        Length of the sample axis. An array whose first axis has another has none.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._lengths: dict[tuple[Place, str], int] = {}

    def dims(self, place: Place, name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Return a name for each axis of a field of *shape*, which has no step axis."""
        declared = SYSTEM.field(place, name)
        names = [f"axis_{at}" for at in range(len(shape))]
        if declared is not None and len(declared.dims) == len(shape):
            names = list(declared.dims)
        elif shape and (declared is None or declared.dims[:1] == ("sample",)):
            names[0] = "sample"
        if names[:1] == ["sample"] and shape[0] != self._samples:
            names[0] = "row"
        return tuple(
            self._unique(place, name, dim, length) for dim, length in zip(names, shape, strict=True)
        )

    def holds_tokens(self, place: Place, name: str) -> bool:
        """Return whether the field's values are ids in a small vocabulary."""
        declared = SYSTEM.field(place, name)
        return declared is not None and declared.tokens

    def _unique(self, place: Place, name: str, dim: str, length: int) -> str:
        if self._lengths.setdefault((place, dim), length) == length:
            return dim
        return f"{name}_{dim}"


def may_be_named(name: str) -> bool:
    """Return whether a run may have a field or a coordinate of that name."""
    try:
        check_name(name)
    except InvalidInputError:
        return False
    return name not in _TAKEN
