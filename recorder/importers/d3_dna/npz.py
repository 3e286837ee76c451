"""The logger's NPZ files: ``meta_*`` scalars, arrays stacked over steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.d3_dna import (
    COORDINATES,
    IMPORTED,
    NOISE_SCHEDULE,
    NPZ_KEYS,
    SIGMA_VALUES,
    SYSTEM,
)
from recorder.importers.d3_dna.axes import may_be_named
from recorder.importers.d3_dna.log import Log, LoggedField

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.systems.attributes import Attribute
    from recorder.importers.foreign import ForeignFile
    from recorder.importers.npz_file import NpzArray, NpzFile, NpzRows

_META: Final = "meta_"
_SCHEDULE: Final = f"{NOISE_SCHEDULE}_"
_STEPS: Final = "steps"
_FIELDS: Final = {key: name for name, key in NPZ_KEYS.items()}
_COORDINATES: Final = {key: name for name, key in COORDINATES.items()}
_SAMPLED: Final = ("sequences", "score_matrices", "prob_matrices")


def survey_npz(file: ForeignFile, npz: NpzFile) -> tuple[Log, NpzReader, list[str]]:
    """Return what *file* holds, who reads it, and what of it is odd.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if the logger cannot have written it.
    """
    odd: list[str] = []
    steps, samples = _extent(file, npz, odd)
    log = Log("npz", steps, samples)
    keys: dict[tuple[Place, str], str] = {}
    columns: dict[str, NDArray[Any]] = {}
    for key, array in npz.arrays.items():
        if array.is_none:
            if key == f"{_META}split":
                log.has_none = True
            else:
                odd.append(f"{key} is None: left out")
        elif key.startswith((_META, _SCHEDULE)) and key != _SCHEDULE + SIGMA_VALUES:
            _attribute(log, npz, key, odd)
        elif key != _STEPS and not may_be_named(key):
            odd.append(f"{key} is nothing that the logger writes: left out")
        elif key in _COORDINATES or _is_column(key, array, log):
            columns[_COORDINATES.get(key, key)] = _column(file, npz, key, log)
        elif key != _STEPS:
            place, name = _address(file, key, array, log)
            keys[place, name] = key
    for at, step in enumerate(log.steps):
        log.coordinates[step] = {name: _scalar(values[at]) for name, values in columns.items()}
    npz.verify()
    return log, NpzReader(npz, keys), odd


class NpzReader:
    """Reads stacked arrays, each from its beginning to its end and never back."""

    def __init__(self, npz: NpzFile, keys: dict[tuple[Place, str], str]) -> None:
        self._npz = npz
        self._keys = keys
        self._rows: dict[tuple[Place, str], NpzRows] = {}

    def input(self, name: str, start: int | None, stop: int | None) -> NDArray[Any]:
        """Return entries ``[start, stop)`` of an input, or all of it."""
        key = self._keys[Place.INPUTS, name]
        if start is None or stop is None:
            return np.asarray(self._npz.read(key))
        if self._npz.arrays[key].fortran:
            # Its rows do not lie one after another; an input is small enough to be held.
            return np.asarray(self._npz.read(key))[start:stop]
        return self._opened(Place.INPUTS, name, 1).read(stop - start)

    def traced(self, name: str, step: int, start: int | None, stop: int | None) -> NDArray[Any]:
        """Return samples ``[start, stop)`` of a field at *step*, or all of it.

        The steps, and the samples of each, are asked for in their order.
        """
        del step
        if start is None or stop is None:
            # An array even of one value: a scalar would be a coordinate.
            return np.asarray(self._opened(Place.TRACE, name, 1).read(1)[0])
        return self._opened(Place.TRACE, name, 2).read(stop - start)

    def _opened(self, place: Place, name: str, axes: int) -> NpzRows:
        if (place, name) not in self._rows:
            self._rows[place, name] = self._npz.rows(self._keys[place, name], axes)
        return self._rows[place, name]


def _extent(file: ForeignFile, npz: NpzFile, odd: list[str]) -> tuple[tuple[int, ...], int]:
    """Return step numbers and the length of the sample axis."""
    known = [npz.arrays[key].shape for key in _SAMPLED if key in npz.arrays]
    shape = next((shape for shape in known if len(shape) > 1 and 0 not in shape[:2]), None)
    if shape is None:
        found = ", ".join(npz.arrays) or "nothing"
        message = (
            f"expected one of {', '.join(_SAMPLED)} with at least a step and a sample,"
            f" found {found:.500}"
        )
        raise file.refuse(message)
    if _STEPS not in npz.arrays:
        odd.append("there are no step numbers: steps are counted from 0")
        return tuple(range(shape[0])), shape[1]
    numbers = npz.arrays[_STEPS]
    if numbers.dtype.kind not in "iu" or numbers.shape != shape[:1]:
        message = f"expected {shape[0]} step numbers, found {numbers.dtype} of {numbers.shape}"
        raise file.refuse(message)
    steps = np.asarray(npz.read(_STEPS))
    if steps[0] < 0 or (np.diff(steps.astype(object)) <= 0).any():
        raise file.refuse(f"expected rising step numbers from 0 on, found {steps}")
    return tuple(steps.tolist()), shape[1]


def _attribute(log: Log, npz: NpzFile, key: str, odd: list[str]) -> None:
    value = _scalar(np.asarray(npz.read(key)))
    if key.startswith(_META):
        name = key.removeprefix(_META)
        if name in (IMPORTED, NOISE_SCHEDULE):
            odd.append(f"{key} has a name of our own: left out")
        else:
            log.attributes[name] = value
    else:
        log.schedule = {**(log.schedule or {}), key.removeprefix(_SCHEDULE): value}


def _is_column(key: str, array: NpzArray, log: Log) -> bool:
    """Return whether an array that the logger does not write holds one scalar a step."""
    known = key in _FIELDS or any(key in fields for fields in SYSTEM.fields.values())
    return not known and key != _STEPS and array.shape == (len(log.steps),)


def _column(file: ForeignFile, npz: NpzFile, key: str, log: Log) -> NDArray[Any]:
    values = np.asarray(npz.read(key))
    if values.shape != (len(log.steps),):
        raise file.refuse(f"expected {key} at {len(log.steps)} steps, found {values.shape}")
    return values


def _address(file: ForeignFile, key: str, array: NpzArray, log: Log) -> tuple[Place, str]:
    """Decide which field an array is, and add it to *log*."""
    name = SIGMA_VALUES if key == _SCHEDULE + SIGMA_VALUES else _FIELDS.get(key, key)
    stacked = array.shape[:2] == (len(log.steps), log.samples)
    traced, inputs = SYSTEM.field(Place.TRACE, name), SYSTEM.field(Place.INPUTS, name)
    if name == "ground_truth_labels":
        # Of generation A they are (step, sample, output), of B (sample, output).
        is_traced = len(array.shape) > 2  # noqa: PLR2004
    else:
        is_traced = traced is not None or (inputs is None and stacked)
    if not is_traced:
        log.inputs.append(LoggedField(name, array.dtype, array.shape))
        return Place.INPUTS, name
    if array.shape[:1] != (len(log.steps),):
        raise file.refuse(f"expected {key} at {len(log.steps)} steps, found {array.shape}")
    if array.fortran:
        raise file.refuse(f"{key} is in Fortran order, which cannot be read step by step")
    log.traced.append(LoggedField(name, array.dtype, array.shape[1:], frozenset(log.steps)))
    return Place.TRACE, name


def _scalar(values: NDArray[Any]) -> Attribute:
    """Return a 0-d array as its scalar, texts as `str` where their dtype is as long as they."""
    if values.ndim:
        return values
    scalar: Any = values[()]
    if isinstance(scalar, np.str_) and np.array(str(scalar)).dtype == values.dtype:
        return str(scalar)
    kept: np.generic = scalar
    return kept
