"""An archive understood as a run: one prediction, whose passes are steps and blocks are layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.attributes import attribute_to_json
from archive_schema.systems.vizfold import IMPORTED, PASSES, RECYCLE
from recorder.importers.foreign import invalid_file
from recorder.importers.source import Findings
from recorder.importers.vizfold_archives.completeness import contradictions, missing_of
from recorder.importers.vizfold_archives.layouts import (
    ATOMS,
    SAMPLE,
    AmbiguousError,
    Role,
    Told,
    role_of,
    told_apart,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from recorder.importers.source import Progress, Sink
    from recorder.importers.vizfold_archives.arrays import ForeignArchive, ForeignArray

LARGEST_NBYTES: Final = 4 << 30
"""What is recorded at once; it takes about three times as much memory while it is."""
_LARGEST_TILE_NBYTES: Final = 64 << 20
_MOST_PASSES: Final = 1 << 16
_LARGEST_METADATA: Final = 1 << 16
_FEWEST_ZEROS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Placed:
    array: ForeignArray
    role: Role


class ArchiveSource:
    """One archive as the import takes it over.

    Parameters
    ----------
    axes
        Of three-dimensional attention, where the file's user says them.
    largest_nbytes : int
        What is recorded at once.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if nothing in it is known, if the axes of something are ambiguous, or if
        something is too large to be recorded.
    """

    def __init__(
        self,
        url: str,
        archive: ForeignArchive,
        *,
        axes: tuple[str, ...] | None = None,
        largest_nbytes: int = LARGEST_NBYTES,
    ) -> None:
        self._url = url
        self._archive = archive
        self._axes = axes
        self._largest_nbytes = largest_nbytes
        layout = told_apart(archive.arrays.values())
        self.findings = Findings(
            f"{layout} ({archive.container})", list(archive.missing), list(archive.odd)
        )
        self._told: dict[str, JsonValue] = self._scalars()
        self._placed = self._places()
        if not self._placed:
            shown = ", ".join(list(archive.arrays)[:5]) or "none"
            raise invalid_file(url, f"expected arrays of an archive of VizFold, found {shown}")
        self.samples = self._samples()
        self._placed = self._named_apart(self._placed)
        self.tile: int | None = self._tile()
        passes = self._told.get(PASSES)
        self._knows_pass = isinstance(passes, int) and 0 < passes < _MOST_PASSES
        last = passes - 1 if self._knows_pass and isinstance(passes, int) else 0
        self.steps: tuple[int, ...] = (last,)
        if last:
            self.findings.odd.append(
                f"{PASSES} says {passes} passes, and an archive holds one: taken as the last,"
                f" step {last}"
            )
        self.metadata: Mapping[str, JsonValue] = self._metadata(layout)
        self.findings.missing += missing_of(layout, archive.arrays)
        pairs = [(one.array, one.role) for one in self._placed]
        self.findings.odd += contradictions(pairs, self._told)

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand over one array after the other, or one sample of it after the other."""
        total = sum(one.array.nbytes for one in self._placed)
        done = 0
        step = self.steps[0]
        if self._knows_pass:
            sink.record(step, None, None, **{RECYCLE: step})
        for one in self._placed:
            role = one.role
            sink.declare(role.field, layer=role.layer, place=role.place, dims=role.dims)
            for samples, values in self._pieces(one):
                if role.layer is not None:
                    sink.record(step, samples, role.layer, **{role.field: values})
                elif role.place is Place.INPUTS:
                    sink.inputs(samples, **{role.field: values})
                else:
                    sink.outputs(samples, **{role.field: values})
                done += values.nbytes
                progress(done, total)
            self._residues_of(sink, one, step)

    def _scalars(self) -> dict[str, JsonValue]:
        """Return what stands in ``metadata/`` and in attributes, small enough for JSON."""
        told: dict[str, JsonValue] = {}
        for path, said in self._archive.attributes.items():
            if path in ("", "metadata"):
                told |= said
            elif said and path not in self._archive.arrays:
                told[path] = dict(said)
        for path, array in self._archive.arrays.items():
            name = path.removeprefix("metadata/")
            if name == path or array.nbytes > _LARGEST_METADATA or "/" in name:
                continue
            values = array.read(None, None)
            if values.dtype.kind == "U":
                value: Any = values.tolist()
            else:
                value = attribute_to_json(values if values.ndim else values[()])[0]
            told.setdefault(name, value)
        return told

    def _places(self) -> list[_Placed]:
        told = self._told.get("num_residues")
        known = Told(told if isinstance(told, int) else None, self._axes, self._largest_nbytes)
        placed: list[_Placed] = []
        taken: dict[tuple[Place, str | None, str], str] = {}
        for path, array in self._archive.arrays.items():
            try:
                role = role_of(array, known)
            except AmbiguousError as error:
                raise invalid_file(self._url, str(error)) from error
            if role is None:
                if not path.startswith("metadata/"):
                    self.findings.odd.append(f"{path} {array.shape} has no place: left out")
                continue
            address = (role.place, role.layer, role.field)
            if address in taken:
                self.findings.odd.append(f"{path} is {taken[address]} again: left out")
                continue
            if not self._fits(array, role):
                expected = ", ".join(role.dims) or "a single value"
                message = f"{path}: expected axes {expected}, got {array.shape}: left out"
                self.findings.odd.append(message)
                continue
            if SAMPLE not in role.dims and array.nbytes > self._largest_nbytes:
                message = (
                    f"{path} has {array.nbytes:,} bytes, more than the {self._largest_nbytes:,}"
                    " that are recorded at once"
                )
                raise invalid_file(self._url, message)
            taken[address] = path
            placed.append(_Placed(array, role))
        unsure = sorted({p.array.path.rpartition("/")[0] for p in placed if _is_unsure(p.role)})
        self.findings.odd += [
            f"{path} does not say whether it is the mean over residues or the map of one: taken as"
            " the mean"
            for path in unsure
        ]
        return placed

    def _fits(self, array: ForeignArray, role: Role) -> bool:
        if role.field == "final_atom_positions":
            return array.shape[-1:] == (3,) and _atoms_fold(array.shape[:-1])
        if role.field == "final_atom_mask":
            return _atoms_fold(array.shape)
        if role.field in ("pdb", "ptm_score"):
            return len(array.shape) <= 1
        return len(array.shape) == len(role.dims)

    def _named_apart(self, placed: list[_Placed]) -> list[_Placed]:
        """Give axes of one name and another length, in one layer or place, names of their own."""
        lengths: dict[tuple[Place, str | None, str], int] = {}
        named = []
        for one in placed:
            if len(one.array.shape) != len(one.role.dims):  # residues and atoms in one axis
                named.append(one)
                continue
            dims = []
            for dim, length in zip(one.role.dims, one.role.lengths(one.array), strict=True):
                at = (one.role.place, one.role.layer, dim)
                known = self.samples if dim == SAMPLE else lengths.setdefault(at, length)
                dims.append(dim if known == length else f"{dim}_{length}")
            named.append(_Placed(one.array, replace(one.role, dims=tuple(dims))))
        return named

    def _samples(self) -> int:
        """Return the length of the sample axis; fields that differ from it have none."""
        lengths = [p.array.shape[0] for p in self._placed if SAMPLE in p.role.dims]
        return max(set(lengths), key=lengths.count) if lengths else 0

    def _tile(self) -> int | None:
        widest = [
            p.array.nbytes // max(p.array.shape[0], 1)
            for p in self._placed
            if SAMPLE in p.role.dims
        ]
        if not widest:
            return None
        return max(1, min(self.samples, _LARGEST_TILE_NBYTES // max(1, *widest)))

    def _pieces(self, one: _Placed) -> Any:
        if SAMPLE not in one.role.dims:
            yield None, self._values(one, None, None)
            return
        tile = self.tile or 1
        for start in range(0, one.array.shape[0], tile):
            stop = min(start + tile, one.array.shape[0])
            yield slice(start, stop), self._values(one, start, stop)

    def _values(self, one: _Placed, start: int | None, stop: int | None) -> NDArray[Any]:
        values = one.array.read(start, stop)
        role = one.role
        if values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("<"))
        if role.field in ("final_atom_positions", "final_atom_mask"):
            tail = values.shape[values.ndim - (role.field == "final_atom_positions") :]
            if values.ndim < len(role.dims) and len(values) % ATOMS == 0 and len(values) > 0:
                values = values.reshape(-1, ATOMS, *tail)
        elif role.field == "pdb" and values.dtype.kind in "US":
            text = str(values.ravel()[0]) if values.dtype.kind == "U" else values.ravel()[0]
            values = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
        elif role.field == "ptm_score":
            values = values.reshape(())
        if role.heads_last:
            values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
        if role.kind is not None and start in (None, 0):
            self._look_at(one.array.path, values)
        return values

    def _look_at(self, path: str, maps: NDArray[Any]) -> None:
        """Tell maps that were made of text: each has the same number of entries that are not 0."""
        flat = maps.reshape(-1, maps.shape[-1] * maps.shape[-2])
        counts = np.count_nonzero(flat, axis=1)
        if (
            flat.size
            and counts.min() == counts.max()
            and 0 < counts[0] < _FEWEST_ZEROS * flat.shape[1]
        ):
            sentence = (
                f"{path} has {counts[0]} entries a head that are not 0: it looks made of text files"
                " of the strongest entries, and its zeros were never measured"
            )
            if sentence not in self.findings.odd:
                self.findings.odd.append(sentence)

    def _residues_of(self, sink: Sink, one: _Placed, step: int) -> None:
        kind = one.role.kind
        if kind is not None and kind.residue in one.role.dims:
            which = np.arange(one.array.shape[0], dtype=np.int32)
            sink.record(step, None, one.role.layer, **{kind.residues: which})

    def _metadata(self, layout: str) -> dict[str, JsonValue]:
        paths = {
            "/".join(filter(None, (p.role.place.value, p.role.layer, p.role.field))): p.array.path
            for p in self._placed
        }
        about: dict[str, JsonValue] = {
            "format": f"{layout} ({self._archive.container})",
            "paths": dict(paths),
        }
        fields = {one.array.path.removeprefix("metadata/") for one in self._placed}
        told = {name: value for name, value in self._told.items() if name not in fields}
        return {**told, IMPORTED: about}


def _is_unsure(role: Role) -> bool:
    return role.kind is not None and role.kind.residue is not None and role.field == role.kind.mean


def _atoms_fold(shape: tuple[int, ...]) -> bool:
    if len(shape) == 1:
        return shape[0] % ATOMS == 0
    return len(shape) == 2 and shape[1] == ATOMS  # noqa: PLR2004  residues and atoms
