"""Runs of VizFold in the keys of `archiveformat.py`, as HDF5 and NPZ, and as PDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.vizfold import layer_number
from server.exporters.exporter import Format
from server.exporters.hdf5 import hdf5_file
from server.exporters.hdf5_tree import Dataset, Group
from server.exporters.npz import npz_file
from server.exporters.values import Values, cast_to
from server.exporters.virtual_file import Literal, VirtualFile
from server.exporters.vizfold_zarr import no_place, vizfold_zarr
from server.systems.vizfold import Prediction, pdb_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from server.exporters.cut import Cut
    from server.exporters.exporter import BuildTree, Built
    from server.query.field import FieldView

_CA: Final = 1
_ATTENTION: Final = (
    "attention",
    "msa_row_attention",
    "pairwise_attention",
    "triangle_start_attention_mean",
    "triangle_end_attention_mean",
)
"""`archiveformat.py` knows one attention a layer: the first of these that a layer has."""
_WIDENED: Final = np.dtype("<f2")
_SINGLE: Final = np.dtype("<f4")
_MAP_AXES: Final = 3


def archiveformat_hdf5(cut: Cut) -> Built:
    """Return `archiveformat.py`'s HDF5 file of the last pass in *cut*."""
    found = _Archiveformat(cut)
    activations: dict[str, Group | Dataset] = {}
    for number, fields in sorted(found.layers.items()):
        members: dict[str, Group | Dataset] = {
            name: Dataset(_widened(found.last(field))) for name, field in fields.items()
        }
        activations[f"layer_{number}"] = Group(members=members)
    maps: dict[str, Group | Dataset] = {
        f"layer_{number}": Dataset(_widened(found.last(field)))
        for number, field in sorted(found.maps.items())
    }
    outputs: dict[str, Group | Dataset] = {
        name: Dataset(values) for name, values in found.outputs().items()
    }
    groups = {"activations": activations, "attention": maps, "outputs": outputs}
    root = Group(members={name: Group(members=one) for name, one in groups.items() if one})
    return hdf5_file(root), found.notes()


def archiveformat_npz(cut: Cut) -> Built:
    """Return `archiveformat.py`'s NPZ file of the last pass in *cut*."""
    found = _Archiveformat(cut)
    members: dict[str, Values | NDArray[Any] | None] = {}
    for number in sorted({*found.layers, *found.maps}):
        for name, field in found.layers.get(number, {}).items():
            members[f"act_{number}_{name}"] = _widened(found.last(field))
        if number in found.maps:
            members[f"attn_{number}"] = _widened(found.last(found.maps[number]))
    members |= found.outputs()
    return npz_file(members), found.notes()


def pdb(cut: Cut) -> Built:
    """Return the structure as a PDB file."""
    data, note = pdb_text(Prediction(cut.run))
    return VirtualFile([Literal(data)]), () if note is None else (note,)


class _Archiveformat:
    """What of a cut has a place in `archiveformat.py`'s layout.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` if nothing has.
    """

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self.layers: dict[int, dict[str, FieldView]] = {}
        """Representations by layer's number and their name."""
        self.maps: dict[int, FieldView] = {}
        self._left: set[str] = set()
        traced = [field for field in cut.fields(Place.LAYERS) if cut.steps_of(field)]
        for field in sorted(traced, key=_preferred):
            self._put(field)
        for field in cut.fields(Place.TRACE, Place.INPUTS, Place.OUTPUTS):
            if field.spec.name not in self._outputs_of:
                self._left.add(field.path)
        if not self.layers and not self.maps:
            message = (
                f"run {cut.run.manifest.id!r} has neither representations nor whole attention of"
                " numbered layers, which is what this format holds; generic-h5 and generic-npz"
                " hold any run"
            )
            raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)

    def last(self, field: FieldView) -> Values:
        """Return the field at the last step of the cut that has it."""
        return Values(field, self._cut.steps_of(field)[-1])

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return coordinates, of alpha carbons if those of all atoms are known, and confidence."""
        found: dict[str, NDArray[Any]] = {}
        known = {field.spec.name: field for field in self._cut.fields(Place.OUTPUTS)}
        for source, name in self._outputs_of.items():
            if source in known and name not in found:
                values = Values(known[source], None).array()
                all_atoms = values.ndim == _MAP_AXES
                found[name] = np.ascontiguousarray(values[:, _CA] if all_atoms else values)
        return found

    def notes(self) -> tuple[str, ...]:
        """Return what is not in the file."""
        notes = [*self._cut.notes]
        if len(self._cut.steps) > 1:
            notes.append(f"of {len(self._cut.steps)} passes the last one")
        notes += no_place(self._left)
        return tuple(notes)

    _outputs_of: Final = {
        "coordinates": "coords",
        "final_atom_positions": "coords",
        "confidence": "conf",
        "plddt": "conf",
    }

    def _put(self, field: FieldView) -> None:
        number = layer_number(field.spec.layer or "")
        name = field.spec.name
        if number is not None and name in ("single", "pair"):
            fields = self.layers.setdefault(number, {})
        elif number is not None and name in _ATTENTION and len(field.spec.tail) == _MAP_AXES:
            if number not in self.maps:
                self.maps[number] = field
                return
            fields = {name: field}
        else:
            fields = {name: field}
        if name in fields or field.spec.sampled:
            self._left.add(field.path)
        else:
            fields[name] = field


def _preferred(field: FieldView) -> tuple[int, str, str]:
    name = field.spec.name
    order = _ATTENTION.index(name) if name in _ATTENTION else -1
    return order, field.spec.layer or "", "" if name == "single" else name


def _widened(values: Values) -> Values:
    """Return float16 as float32, which is exact, and is what these files have."""
    if values.dtype != _WIDENED:
        return values
    return Values(values.field, values.step_numbers[0], conversion=cast_to(_SINGLE))


FORMATS: Final[Mapping[str, Format]] = {
    "h5": Format("application/x-hdf5", ".h5", archiveformat_hdf5),
    "npz": Format("application/x-npz", ".npz", archiveformat_npz),
    "pdb": Format("chemical/x-pdb", ".pdb", pdb),
}
TREES: Final[Mapping[str, BuildTree]] = {"vizfold-zarr": vizfold_zarr}
"""As a ZIP over HTTP, or as files in a folder."""
