"""Runs of any system as plain HDF5 and NPZ files; docs/systems/generic.md describes both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from server.exporters.exporter import Exporter, Format
from server.exporters.hdf5 import hdf5_file
from server.exporters.hdf5_tree import Dataset, Group, encoded_text
from server.exporters.npz import Member, npz_file
from server.exporters.values import Values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from archive_schema.ledger import Coordinate
    from archive_schema.systems.attributes import Attribute
    from server.exporters.cut import Cut
    from server.exporters.virtual_file import VirtualFile
    from server.query.field import FieldView

_STEP_NAME: Final = "step_{:04d}"


def generic_hdf5(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the HDF5 file of *cut*: a group for each step, layers below it."""
    manifest = cut.run.manifest
    about: dict[str, Attribute] = {
        "format": "trace-archive",
        "run": manifest.id,
        "system": manifest.system,
        "created": manifest.created.isoformat(),
        "tags": list(manifest.tags),
        "metadata": json.dumps(manifest.metadata),
    }
    recorded = _Recorded.of(cut)
    steps = {_STEP_NAME.format(step): recorded.step(step) for step in cut.steps}
    samples = {
        name: Dataset(_hdf5_text(values)) for name, values in _sample_coordinates(cut).items()
    }
    members = {
        "steps": Group(members=steps),
        "samples": Group(members=samples),
        "inputs": _fields_group(cut, Place.INPUTS),
        "outputs": _fields_group(cut, Place.OUTPUTS),
    }
    return hdf5_file(Group(about, members)), cut.notes


def generic_npz(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the NPZ file of *cut*: an array for each field, by the field's path.

    A field that lacks some of the steps, or is ragged, has an array for each of its steps.
    """
    members: dict[str, Member] = {"steps": np.array(cut.steps, np.int64)}
    for name, coordinate in _step_coordinates(cut).items():
        members[f"steps/{name}"] = coordinate.array(cut.steps)
    for name, values in _sample_coordinates(cut).items():
        members[f"samples/{name}"] = values
    for field in cut.fields(*Place):
        steps = cut.steps_of(field)
        if not field.spec.place.stepped:
            members[field.path] = Values(field, None, cut.samples)
        elif steps:
            stacked = Values(field, steps, cut.samples)
            if steps == cut.steps and not field.spec.ragged:
                members[field.path] = stacked
            else:
                each = {f"{field.path}/{_STEP_NAME.format(step)}": step for step in steps}
                members |= {name: stacked.at(step) for name, step in each.items()}
    return npz_file(members), cut.notes


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the groups of all steps are made of, found once."""

    cut: Cut
    coordinates: Mapping[str, Coordinate]
    traced: list[tuple[FieldView, Values]]
    """Each field that is recorded at any of the steps, with its values at all of them."""
    layers: list[tuple[FieldView, Values]]

    @classmethod
    def of(cls, cut: Cut) -> _Recorded:
        traced, layers = (
            [(f, _values(cut, f)) for f in cut.fields(place) if cut.steps_of(f)]
            for place in (Place.TRACE, Place.LAYERS)
        )
        return cls(cut, _step_coordinates(cut), traced, layers)

    def step(self, step: int) -> Group:
        """Return the group of one step."""
        attributes: dict[str, Attribute] = {"step": np.int64(step)}
        for name, coordinate in self.coordinates.items():
            value = coordinate.values.get(step)
            if value is not None:
                attributes[name] = _typed(value, coordinate.dtype)
        members: dict[str, Group | Dataset] = {
            field.spec.name: _dataset(values.at(step))
            for field, values in self.traced
            if self.cut.has(field, step)
        }
        layers: dict[str, dict[str, Group | Dataset]] = {}
        for field, values in self.layers:
            if self.cut.has(field, step):
                _, layer, name = field.path.split("/")
                layers.setdefault(layer, {})[name] = _dataset(values.at(step))
        if layers:
            groups = {layer: Group(members=fields) for layer, fields in layers.items()}
            members["layers"] = Group(members=groups)
        return Group(attributes, members)


def _fields_group(cut: Cut, place: Place) -> Group:
    return Group(members={f.spec.name: _dataset(_values(cut, f)) for f in cut.fields(place)})


def _values(cut: Cut, field: FieldView) -> Values:
    """Return the values of *field* as HDF5 holds them, at all its steps."""
    conversion = encoded_text(field.dtype) if field.dtype.kind == "U" else None
    steps = cut.steps_of(field) if field.spec.place.stepped else None
    return Values(field, steps, cut.samples, conversion=conversion)


def _dataset(values: Values) -> Dataset:
    dims = values.field.dims
    return Dataset(values, {"dims": list(dims[len(dims) - len(values.shape) :])})


def _step_coordinates(cut: Cut) -> Mapping[str, Coordinate]:
    # A copy: the recorder of a live run may bring another while this is used.
    known = dict(cut.run.ledger.step_coordinates)
    return {name: c for name, c in known.items() if any(s in c.values for s in cut.steps)}


def _sample_coordinates(cut: Cut) -> Mapping[str, NDArray[Any]]:
    known = dict(cut.run.ledger.sample_coordinates)
    return {
        name: c.array(cut.samples)
        for name, c in known.items()
        if any(sample in c.values for sample in cut.samples)
    }


def _typed(value: str | float, dtype: str) -> Attribute:
    if isinstance(value, str):
        return value
    scalar: np.generic = np.dtype(dtype).type(value)
    return scalar


def _hdf5_text(values: NDArray[Any]) -> NDArray[Any]:
    return encoded_text(values.dtype).apply(values) if values.dtype.kind == "U" else values


_HDF5: Final = Format("application/x-hdf5", ".h5", generic_hdf5)
_NPZ: Final = Format("application/x-npz", ".npz", generic_npz)
EXPORTER: Final = Exporter(
    formats={"h5": _HDF5, "npz": _NPZ, "generic-h5": _HDF5, "generic-npz": _NPZ}
)
