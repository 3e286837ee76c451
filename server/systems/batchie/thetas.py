"""Samples of the model's parameters, stacked over chains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.systems.batchie import PRIVATE, SHARED, SYSTEM, THETAS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archive_schema.systems.kept_file import KeptFile
    from server.systems.batchie.simulation import Simulation
    from server.systems.layer_file import LayerFile

_DRAW: Final = re.compile(rf"{PRIVATE}/([0-9]+)")


@dataclass(frozen=True, slots=True)
class Thetas:
    """The thetas of a step. Nothing of the class that a file names is imported."""

    step: int
    """Where they lie: at the first plate of the iteration, as a rule."""
    theta_class: str
    theta_module: str
    chains: tuple[tuple[int, int], ...]
    """Number of each chain, and how many draws it has, by number."""
    capacities: tuple[int, ...]
    """How many draws each file says that it has room for."""
    private: tuple[str, ...]
    """Parameters that every draw has."""
    shared: tuple[str, ...]
    """Parameters that are alike for all draws; BATCHIE takes them from the first."""
    files: tuple[LayerFile, ...]

    def parameter(
        self, name: str, chain: int | None = None
    ) -> tuple[tuple[str, ...], NDArray[Any], str]:
        """Return a parameter's axes and values, and what is to be said of them.

        A private one begins with (chain, draw), or draw if one chain is asked for; where chains
        have other numbers of draws, the shorter end with NaN. A shared one is the first chain's.

        Raises
        ------
        NotFoundError
            ``field-not-found`` or ``not-recorded``.
        InvalidInputError
            ``shape-mismatch`` if draws or chains do not stack.
        """
        numbers = [number for number, _ in self.chains]
        if chain is not None and chain not in numbers:
            message = f"expected a chain of {numbers}, got {chain}"
            raise NotFoundError(ErrorKind.NOT_RECORDED, message)
        chosen = [f for f, n in zip(self.files, numbers, strict=True) if chain in (None, n)]
        if name in self.shared:
            values = chosen[0].dataset(f"{SHARED}/{name}")
            return _dims(chosen[0], f"shared_{name}", values.ndim), values, ""
        if name not in self.private:
            known = ", ".join((*self.private, *self.shared))
            message = f"there is no parameter {name!r}; expected one of {known}"
            raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
        parts = [_stacked(file, name) for file in chosen]
        dims = ("draw", *_dims(chosen[0], name, parts[0].ndim)[1:])
        if chain is not None:
            return dims, parts[0], ""
        if len({part.shape[1:] for part in parts}) > 1:
            message = f"{name} has shapes {[part.shape for part in parts]}: ask for one chain"
            raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, message)
        longest = max(len(part) for part in parts)
        short = [n for n, part in zip(numbers, parts, strict=True) if len(part) < longest]
        if not short:
            return ("chain", *dims), np.stack(parts), ""
        if parts[0].dtype.kind != "f":
            message = f"{name}: chains {short} have fewer than {longest} draws: ask for one chain"
            raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, message)
        values = np.full((len(parts), longest, *parts[0].shape[1:]), np.nan, parts[0].dtype)
        for at, part in enumerate(parts):
            values[at, : len(part)] = part
        return ("chain", *dims), values, f"chains {short} have fewer draws, and end with NaN"


def thetas(simulation: Simulation, step: int) -> Thetas:
    """Return the thetas that hold at *step*.

    Raises
    ------
    NotFoundError
        ``not-recorded`` if there are none.
    """
    files = simulation.nearest(step, THETAS)
    said = [file.about.attributes() for file in files]
    return Thetas(
        step=files[0].step,
        theta_class=str(said[0].get("theta_class")),
        theta_module=str(said[0].get("theta_module")),
        chains=tuple((THETAS.number(f.layer), _draws(f.about)) for f in files),
        capacities=tuple(n if isinstance(n := one.get("n_thetas"), int) else 0 for one in said),
        private=tuple(dict.fromkeys(n for f in files for n in _private(f.about))),
        shared=tuple(
            m.path.removeprefix(f"{SHARED}/")
            for m in files[0].about.hdf5 or ()
            if m.dataset is not None and m.path.startswith(f"{SHARED}/")
        ),
        files=tuple(files),
    )


def chains_of(simulation: Simulation, step: int) -> list[tuple[int, int]]:
    """Return number and draws of each chain whose thetas lie at *step*."""
    files = simulation.of_kind(step, THETAS)
    return [(THETAS.number(file.layer), _draws(file.about)) for file in files]


def _draws(about: KeptFile) -> int:
    return sum(_DRAW.fullmatch(member.path) is not None for member in about.hdf5 or ())


def _private(about: KeptFile) -> list[str]:
    names: dict[str, None] = {}
    for member in about.hdf5 or ():
        match = _DRAW.match(member.path)
        if match is None:
            continue
        if member.dataset is not None:
            names[member.path[match.end() + 1 :]] = None
        names |= {one.name: None for one in member.attributes if one.place is not None}
    return list(names)


def _stacked(file: LayerFile, name: str) -> NDArray[Any]:
    """Return the values of a private parameter of one chain, its draws in order."""
    at: dict[int, tuple[str, int]] = {}
    for member in file.about.hdf5 or ():
        match = _DRAW.match(member.path)
        if match is None:
            continue
        places = [one.place for one in member.attributes if one.name == name]
        if member.dataset is not None:
            places = [member.dataset.place] if member.path[match.end() + 1 :] == name else []
        for place in places:
            if place is not None and place.at is not None:
                at[int(match[1])] = (place.field, place.at)
    fields = {field for field, _ in at.values()}
    if len(fields) != 1 or sorted(at) != list(range(_draws(file.about))):
        message = (
            f"{file.about.path}: {name} is not alike in all draws; see fields {sorted(fields)}"
        )
        raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, message)
    return file.field(fields.pop())


def _dims(file: LayerFile, name: str, ndim: int) -> tuple[str, ...]:
    known = SYSTEM.field(Place.LAYERS, name, file.layer)
    if known is not None and len(known.dims) == ndim:
        return known.dims
    return tuple(f"axis_{at}" for at in range(ndim))
