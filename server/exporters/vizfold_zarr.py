"""Runs of VizFold as the archive "VizFold 1.0": in Zarr 2, which readers of both versions know.

A chunk of attention is a map of one head. Files are made when it is their turn; a chunk is read and
compressed alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numcodecs import Blosc

from archive_schema.models import Place
from archive_schema.systems.vizfold import layer_number
from server.exporters.tree import Tree, TreeFile
from server.exporters.values import Values
from server.systems.vizfold import Prediction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from server.query import RunView
    from server.query.field import FieldView

_CHUNK_NBYTES: Final = 4 << 20
_MAP_AXES: Final = 3
_MOST_SHOWN: Final = 5
_STRUCTURE: Final = {
    "final_atom_positions": "atom_positions",
    "final_atom_mask": "atom_mask",
    "ptm_score": "ptm",
    "plddt": "plddt",
}


def vizfold_zarr(run: RunView, steps: Collection[int]) -> Tree:
    """Return the archive of the last of *steps*, as one folder."""
    root = f"{run.manifest.id}.vizfold.zarr"
    arrays = list(_arrays(run, steps))
    groups = {""}
    for array in arrays:
        parts = array.path.split("/")[:-1]
        groups |= {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
    files = [
        _literal("/".join(filter(None, (root, group, ".zgroup"))), _json({"zarr_format": 2}))
        for group in sorted(groups)
    ]
    for array in arrays:
        files += array.files(f"{root}/{array.path}")
    placed = {array.field for array in arrays}
    left = sorted(
        field.path
        for field in run.fields()
        if field.path not in placed
        and field.path not in ("inputs/sequence", "inputs/residue_index")
    )
    notes = no_place(left)
    if len(run.steps) > 1:
        notes.append(f"of passes {', '.join(map(str, run.steps))} the last of those asked for")
    return Tree.of(files, notes)


def no_place(paths: Collection[str]) -> list[str]:
    """Return what is to be said of fields that a layout has no place for, if there are any."""
    shown = sorted(paths)
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    return [f"no place in this layout: {', '.join(shown[:_MOST_SHOWN])}{more}"] if shown else []


@dataclass(frozen=True, slots=True)
class _ZarrArray:
    """One array of the hierarchy, written chunk by chunk."""

    path: str
    values: Values | NDArray[Any]
    chunks: tuple[int, ...]
    field: str = ""

    def files(self, path: str) -> Iterator[TreeFile]:
        """Yield its metadata and its chunks."""
        shape, dtype = self.values.shape, self.values.dtype
        packed = bool(shape)
        about = {
            "chunks": list(self.chunks),
            "compressor": Blosc("lz4", 5, Blosc.SHUFFLE).get_config() if packed else None,
            "dtype": dtype.str,
            "fill_value": "" if dtype.kind == "U" else 0 if dtype.kind in "iu" else 0.0,
            "filters": None,
            "order": "C",
            "shape": list(shape),
            "zarr_format": 2,
        }
        yield _literal(f"{path}/.zarray", _json(about))
        grid = [range(-(-n // chunk)) for n, chunk in zip(shape, self.chunks, strict=True)]
        digest = self.values.digest if isinstance(self.values, Values) else ""
        for at in np.ndindex(*map(len, grid)):
            key = ".".join(map(str, at)) or "0"
            nbytes = dtype.itemsize * math.prod(self.chunks)
            if isinstance(self.values, Values):
                said = blake2b(f"{digest} {self.chunks} {key}".encode(), digest_size=16).hexdigest()
                yield TreeFile(f"{path}/{key}", nbytes, said, partial(self._write, at))
            else:
                chunk = self.values.tobytes()
                yield _literal(f"{path}/{key}", Blosc("lz4", 5).encode(chunk) if packed else chunk)

    def _write(self, at: tuple[int, ...], target: IO[bytes]) -> None:
        """Write one chunk; those at the end are as long as all others."""
        values = self.values
        if not isinstance(values, Values):
            raise TypeError(values)
        rows = values.rows(
            at[0] * self.chunks[0], min((at[0] + 1) * self.chunks[0], values.shape[0])
        )
        rest = zip(at[1:], self.chunks[1:], strict=True)
        part = rows[(slice(None), *(slice(n * chunk, (n + 1) * chunk) for n, chunk in rest))]
        padded = np.zeros(self.chunks, values.dtype)
        padded[tuple(map(slice, part.shape))] = part
        target.write(Blosc("lz4", 5, Blosc.SHUFFLE).encode(padded))


def _arrays(run: RunView, steps: Collection[int]) -> Iterator[_ZarrArray]:
    prediction = Prediction(run)
    yield from _metadata(prediction)
    for field in run.fields(Place.LAYERS):
        number = layer_number(field.spec.layer or "")
        there = [step for step in field.steps if step in steps]
        known = field.spec.name in ("single", "pair") and not field.spec.sampled
        if known and number is not None and there:
            values = Values(field, there[-1])
            path = f"representations/{field.spec.name}/layer_{number:02d}"
            yield _ZarrArray(path, values, _row_chunks(values), field.path)
    seen: set[str] = set()
    for one in prediction.attention:
        path = f"attention/{one.kind}/layer_{one.number:02d}"
        if one.sparse or one.number < 0 or one.lead == "sample":
            continue
        field = run.field(one.name, layer=one.layer)
        there = [step for step in field.steps if step in steps]
        whole = one.mean or one.lead is None
        if path in seen or not there or (not whole and not _all_residues(field)):
            continue
        seen.add(path)
        values = Values(field, there[-1])
        maps = len(values.shape) - 2
        yield _ZarrArray(path, values, (*(1,) * maps, *values.shape[-2:]), field.path)
    for name, path in _STRUCTURE.items():
        recorded = prediction.whole(name, Place.OUTPUTS)
        if recorded is not None:
            yield _ZarrArray(f"structure/{path}", recorded, recorded.shape, f"outputs/{name}")


def _metadata(prediction: Prediction) -> Iterator[_ZarrArray]:
    told = prediction.run.manifest.metadata
    residues = prediction.whole("residue_index", Place.INPUTS)
    sequence = prediction.sequence
    values: dict[str, Any] = {
        "model_version": told.get("model_version") or told.get("model"),
        "config_version": told.get("config_version") or told.get("config"),
        "sequence": sequence,
    }
    length = told.get("num_residues") or (sequence and len(sequence.replace(":", "")))
    passes = told.get("num_recycles") or len(prediction.passes) or None
    texts = {name: text for name, text in values.items() if isinstance(text, str)}
    numbers = {"num_residues": length, "num_recycles": passes}
    for name, text in texts.items():
        yield _ZarrArray(f"metadata/{name}", np.array(text), ())
    for name, number in numbers.items():
        if isinstance(number, int):
            yield _ZarrArray(f"metadata/{name}", np.array(number, np.int32), ())
    for name, dtype in (("recycle_info", "<f4"), ("representation_names", "<U")):
        listed = told.get(name)
        if isinstance(listed, list) and listed:
            array = np.array(listed).astype(dtype)
            yield _ZarrArray(f"metadata/{name}", array, array.shape)
    if residues is not None:
        yield _ZarrArray("metadata/residue_index", residues, residues.shape)


def _all_residues(field: FieldView) -> bool:
    return len(field.spec.tail) > _MAP_AXES and field.spec.tail[0] == field.spec.tail[-1]


def _row_chunks(values: Values) -> tuple[int, ...]:
    row = values.dtype.itemsize * math.prod(values.shape[1:])
    return (max(1, min(values.shape[0], _CHUNK_NBYTES // max(row, 1))), *values.shape[1:])


def _literal(path: str, data: bytes) -> TreeFile:
    def write(target: IO[bytes]) -> None:
        target.write(data)

    return TreeFile(path, len(data), blake2b(data, digest_size=16).hexdigest(), write)


def _json(document: dict[str, Any]) -> bytes:
    """Return JSON as Zarr 2 writes it."""
    return json.dumps(document, indent=4, sort_keys=True, separators=(",", ": ")).encode()
