"""What an archive lacks of its layout, and where it contradicts itself: a lenient validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archive_schema.systems.vizfold import layer_number
from recorder.importers.vizfold_archives.layouts import ATOMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from recorder.importers.vizfold_archives.arrays import ForeignArray
    from recorder.importers.vizfold_archives.layouts import Role

_FULL: Final = (
    "metadata/sequence", "metadata/num_residues", "metadata/num_recycles",
    "metadata/residue_index", "metadata/model_version", "metadata/config_version",
    "representations/single", "representations/pair", "attention", "structure/atom_positions",
)  # fmt: skip
_WANTED: Final = {
    "vizfold-1.0": _FULL,
    "vizfold-to-zarr": _FULL,
    "archiveformat": ("activations", "attention", "outputs/coords", "outputs/conf"),
}
"""What an archive of a layout has, as paths or their beginnings."""
_RESIDUES: Final = ("residue", "row_residue", "column_residue", "query", "key")


def missing_of(layout: str, paths: Collection[str]) -> list[str]:
    """Return what archives of *layout* have, and one with arrays at *paths* has not."""
    return [
        wanted
        for wanted in _WANTED.get(layout, ())
        if not any(path == wanted or path.startswith(f"{wanted}/") for path in paths)
    ]


def contradictions(
    placed: Sequence[tuple[ForeignArray, Role]], told: Mapping[str, JsonValue]
) -> Iterator[str]:
    """Yield where arrays differ from what the metadata *told* say, and which layers lack."""
    residues = told.get("num_residues")
    sequence = told.get("sequence")
    if isinstance(residues, int):
        for array, role in placed:
            pairs = zip(role.dims, role.lengths(array), strict=False)
            lengths = {length for dim, length in pairs if _is_residue(dim)}
            other = sorted(lengths - {residues, ATOMS * residues})
            if other:
                yield f"{array.path} has {other[0]} residues; num_residues says {residues}"
        letters = len(sequence.replace(":", "")) if isinstance(sequence, str) else residues
        if letters != residues:
            yield f"the sequence has {letters} letters; num_residues says {residues}"
    for array, role in placed:
        if len(array.shape) < len(role.dims):
            yield f"{array.path} {array.shape} is kept as residues by {ATOMS} atoms"
    numbers = sorted({n for _, role in placed if (n := layer_number(role.layer or "")) is not None})
    if numbers and numbers != list(range(numbers[-1] + 1)):
        yield f"layers {', '.join(map(str, numbers))} only"


def _is_residue(dim: str) -> bool:
    """Return whether an axis is one of residues, under its own name or with its length behind."""
    return dim in _RESIDUES or any(dim.startswith(f"{name}_") for name in _RESIDUES)
