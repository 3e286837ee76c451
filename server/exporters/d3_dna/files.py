"""The two formats of the logger, HDF5 and NPZ, as it writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.systems.d3_dna import (
    ATTRIBUTES,
    COORDINATES,
    NOISE_SCHEDULE,
    NPZ_KEYS,
    SIGMA_VALUES,
)
from server.exporters.d3_dna.log import Log, listed
from server.exporters.hdf5 import hdf5_file
from server.exporters.hdf5_tree import Dataset, Group
from server.exporters.npz import Member, npz_file

if TYPE_CHECKING:
    from server.exporters.cut import Cut
    from server.exporters.virtual_file import VirtualFile

_STEP_NAME: Final = "step_{:04d}"
_SCHEDULE_PREFIX: Final = "noise_schedule_"


def logger_hdf5(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the logger's HDF5 file of *cut*, and notes on what it does not hold."""
    log = Log.of(cut)
    metadata: dict[str, Group | Dataset] = {}
    schedule: dict[str, Group | Dataset] = {}
    for field in log.inputs:
        group = schedule if field.spec.name == SIGMA_VALUES else metadata
        group[field.spec.name] = Dataset(log.values(field, None, text=True))
    if log.schedule is not None or schedule:
        metadata[NOISE_SCHEDULE] = Group(log.schedule or {}, schedule)
    traced = {
        field: log.values(field, steps, text=True)
        for field in log.traced
        if (steps := cut.steps_of(field))
    }
    groups: dict[str, Group | Dataset] = {
        _STEP_NAME.format(step): Group(
            log.step_attributes(step),
            {
                field.spec.name: Dataset(values.at(step))
                for field, values in traced.items()
                if cut.has(field, step)
            },
        )
        for step in cut.steps
    }
    root = Group(members={"metadata": Group(log.attributes, metadata), "steps": Group({}, groups)})
    return hdf5_file(root), (*cut.notes, *log.notes())


def logger_npz(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the logger's NPZ file of *cut*, and notes on what it does not hold."""
    log = Log.of(cut)
    notes = [*cut.notes, *log.notes()]
    members = _metadata(log)
    members["steps"] = np.array(cut.steps, np.int64)
    members |= _coordinates(log, notes)
    members |= _traced(log, notes)
    return npz_file(members), tuple(notes)


def _metadata(log: Log) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for name in (*ATTRIBUTES, *(name for name in log.attributes if name not in ATTRIBUTES)):
        if name in log.attributes:
            members[f"meta_{name}"] = np.array(log.attributes[name])
        elif name == "split" and log.writes_none:
            members["meta_split"] = None
    for field in log.inputs:
        name = field.spec.name
        members[_SCHEDULE_PREFIX + name if name == SIGMA_VALUES else name] = log.values(field, None)
    for name, value in (log.schedule or {}).items():
        members[_SCHEDULE_PREFIX + name] = np.array(value)
    return members


def _coordinates(log: Log, notes: list[str]) -> dict[str, Member]:
    steps = log.cut.steps
    members: dict[str, Member] = {}
    for name, coordinate in log.coordinates.items():
        lacking = [step for step in steps if step not in coordinate.values]
        if steps and len(lacking) == len(steps):
            continue
        if lacking:
            notes.append(f"{name} is not recorded at steps {listed(lacking)} and is NaN there")
        column = coordinate.array(steps)
        members[COORDINATES.get(name, name)] = column if log.imported else column.astype(float)
    return members


def _traced(log: Log, notes: list[str]) -> dict[str, Member]:
    steps = log.cut.steps
    members: dict[str, Member] = {}
    for field in log.traced:
        name = NPZ_KEYS.get(field.spec.name, field.spec.name)
        lacking = sorted(set(steps) - set(log.cut.steps_of(field)))
        if field.spec.ragged:
            notes.append(f"{name} has another shape at each step: left out")
        elif lacking:
            notes.append(f"{name} is not recorded at steps {listed(lacking)}: left out")
        else:
            members[name] = log.values(field, steps)
    return members
