"""Runs of any system as plain HDF5 and NPZ files; docs/systems/generic.md describes both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from server.exporters.hdf5 import Dataset, Group, encoded_text, hdf5_file
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
    steps = {_STEP_NAME.format(step): _step_group(cut, step) for step in cut.steps}
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
        if not field.spec.place.stepped:
            members[field.path] = Values(field, None, cut.samples)
        elif not field.spec.ragged and cut.steps_of(field) == cut.steps:
            members[field.path] = Values(field, cut.steps, cut.samples)
        else:
            for step in cut.steps_of(field):
                name = f"{field.path}/{_STEP_NAME.format(step)}"
                members[name] = Values(field, step, cut.samples)
    return npz_file(members), cut.notes


def _step_group(cut: Cut, step: int) -> Group:
    attributes: dict[str, Attribute] = {"step": np.int64(step)}
    for name, coordinate in _step_coordinates(cut).items():
        value = coordinate.values.get(step)
        if value is not None:
            attributes[name] = _typed(value, coordinate.dtype)
    members: dict[str, Group | Dataset] = {
        field.spec.name: _dataset(cut, field, step)
        for field in cut.fields(Place.TRACE)
        if cut.has(field, step)
    }
    layers: dict[str, dict[str, Group | Dataset]] = {}
    for field in cut.fields(Place.LAYERS):
        if cut.has(field, step):
            _, layer, name = field.path.split("/")
            layers.setdefault(layer, {})[name] = _dataset(cut, field, step)
    if layers:
        groups = {layer: Group(members=fields) for layer, fields in layers.items()}
        members["layers"] = Group(members=groups)
    return Group(attributes, members)


def _fields_group(cut: Cut, place: Place) -> Group:
    return Group(members={f.spec.name: _dataset(cut, f, None) for f in cut.fields(place)})


def _dataset(cut: Cut, field: FieldView, step: int | None) -> Dataset:
    conversion = encoded_text(field.dtype) if field.dtype.kind == "U" else None
    dims = field.dims[1:] if field.spec.place.stepped else field.dims
    values = Values(field, step, cut.samples, conversion=conversion)
    return Dataset(values, {"dims": list(dims)})


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
