"""The logger's HDF5 files: attributes of ``/metadata``, a group a step below ``/steps``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np

from archive_schema.systems.d3_dna import IMPORTED, NOISE_SCHEDULE, SIGMA_VALUES
from recorder.importers.d3_dna.axes import may_be_named
from recorder.importers.d3_dna.log import Log, LoggedField
from recorder.importers.hdf5_file import Member, attributes, is_plain, members, values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.systems.attributes import Attribute
    from recorder.importers.foreign import ForeignFile

_STEP: Final = re.compile(r"step_([0-9]{4,18})")


def survey_hdf5(file: ForeignFile, opened: h5py.File) -> tuple[Log, Hdf5Reader, list[str]]:
    """Return what *file* holds, who reads it, and what of it is odd.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if the logger cannot have written it.
    """
    odd: list[str] = []
    root = members(opened)
    metadata, steps = root.pop("metadata", None), root.pop("steps", None)
    if not isinstance(metadata, h5py.Group) or not isinstance(steps, h5py.Group):
        found = ", ".join(opened) or "nothing"
        raise file.refuse(f"expected the groups /metadata and /steps, found {found}")
    _leave_out(odd, [*(member.name for member in root.values()), *_attributed(opened, steps)])
    groups = _step_groups(file, steps, odd)
    traced, where = _traced(file, groups, odd)
    log = Log("hdf5", tuple(sorted(groups)), _samples(file, traced), traced=traced)
    log.coordinates = {step: _coordinates(group, step, odd) for step, group in groups.items()}
    log.attributes = attributes(metadata, odd)
    odd += (
        f"attribute {name!r} of /metadata has a name of our own: left out"
        for name in (IMPORTED, NOISE_SCHEDULE)
        if log.attributes.pop(name, None) is not None
    )
    inputs: dict[str, h5py.Dataset] = {}
    for name, member in members(metadata).items():
        if name == NOISE_SCHEDULE and isinstance(member, h5py.Group):
            log.schedule = attributes(member, odd)
            inside = members(member)
            if SIGMA_VALUES in inside:
                inputs[SIGMA_VALUES] = inside.pop(SIGMA_VALUES)
            _leave_out(odd, [one.name for one in inside.values()])
        elif _usable(member, odd):
            inputs[name] = member
    log.inputs = [LoggedField(name, one.dtype, one.shape) for name, one in inputs.items()]
    return log, Hdf5Reader(inputs, where), odd


class Hdf5Reader:
    """Reads datasets that were surveyed."""

    def __init__(self, inputs: dict[str, h5py.Dataset], groups: dict[int, h5py.Group]) -> None:
        self._inputs = inputs
        self._groups = groups

    def input(self, name: str, start: int | None, stop: int | None) -> NDArray[Any]:
        """Return entries ``[start, stop)`` of an input, or all of it."""
        values: NDArray[Any] = values_of(self._inputs[name], start, stop)
        return values

    def traced(self, name: str, step: int, start: int | None, stop: int | None) -> NDArray[Any]:
        """Return samples ``[start, stop)`` of a field at *step*, or all of it."""
        values: NDArray[Any] = values_of(self._groups[step][name], start, stop)
        return values


def _step_groups(file: ForeignFile, steps: h5py.Group, odd: list[str]) -> dict[int, h5py.Group]:
    groups: dict[int, h5py.Group] = {}
    for name, member in members(steps).items():
        match = _STEP.fullmatch(name)
        if match is None or not isinstance(member, h5py.Group):
            _leave_out(odd, [member.name])
            continue
        step = int(match[1])
        if step in groups:
            raise file.refuse(f"{groups[step].name} and {member.name} are the same step")
        groups[step] = member
    if not groups:
        raise file.refuse("expected groups like /steps/step_0000, found none")
    return dict(sorted(groups.items()))


def _traced(
    file: ForeignFile, groups: dict[int, h5py.Group], odd: list[str]
) -> tuple[list[LoggedField], dict[int, h5py.Group]]:
    fields: dict[str, LoggedField] = {}
    steps: dict[str, set[int]] = {}
    for step, group in groups.items():
        for name, member in members(group).items():
            if not _usable(member, odd):
                continue
            known = fields.setdefault(name, LoggedField(name, member.dtype, member.shape))
            if (known.dtype, known.shape) != (member.dtype, member.shape):
                message = (
                    f"expected {member.name} as at other steps, {known.dtype} of shape"
                    f" {known.shape}; found {member.dtype} of shape {member.shape}"
                )
                raise file.refuse(message)
            steps.setdefault(name, set()).add(step)
    traced = [replace(field, steps=frozenset(steps[name])) for name, field in fields.items()]
    return traced, groups


def _samples(file: ForeignFile, fields: list[LoggedField]) -> int:
    """Return the length of the sample axis, which the largest arrays begin with."""
    known = {field.name: field.shape for field in fields if len(field.shape) > 1}
    shape = known.get("sequence") or known.get("score_matrix") or next(iter(known.values()), None)
    if not shape or not shape[0]:
        message = "expected a sequence of at least one sample at every step, found none"
        raise file.refuse(message)
    return shape[0]


def _coordinates(group: h5py.Group, step: int, odd: list[str]) -> dict[str, Attribute]:
    found = attributes(group, odd)
    said = found.pop("step", None)
    if said != step:
        odd.append(f"{group.name} says that it is step {said}; its name is believed")
    for name, value in list(found.items()):
        scalar = isinstance(value, (str, bool, int, float, np.generic))
        if not scalar or isinstance(value, bytes) or not may_be_named(name):
            odd.append(f"attribute {name!r} of {group.name} is no named scalar: left out")
            del found[name]
    return found


def _usable(member: Member, odd: list[str]) -> bool:
    """Return whether *member* is an array that a run can hold; say in *odd* what is lost."""
    name = member.name.rpartition("/")[2]
    if not isinstance(member, h5py.Dataset) or not is_plain(member) or not may_be_named(name):
        _leave_out(odd, [member.name])
        return False
    _leave_out(odd, [f"attribute {key!r} of {member.name}" for key in member.attrs])
    return True


def _attributed(*owners: Member) -> list[str]:
    return [f"attribute {name!r} of {owner.name}" for owner in owners for name in owner.attrs]


def _leave_out(odd: list[str], names: list[str]) -> None:
    odd += (f"{name} is nothing that the logger writes: left out" for name in names)
