"""Trace folders of the ESMFold backend: ``.pt`` files by layer, block and pass."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.vizfold import ESM, STRUCTURE, SYSTEM, TRUNK
from recorder.importers.vizfold.arrays import representation
from recorder.importers.vizfold.prediction import Value
from recorder.importers.vizfold.torch_file import read_torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Findings
    from recorder.importers.vizfold.prediction import Piece

META: Final = "meta.json"
INDEX: Final = "trace/index.json"
SUMMARY: Final = "trace/summary.json"
MODULE: Final = f"trunk.{STRUCTURE}"
_ATTENTION: Final = re.compile(r"trace/attention/layer_([0-9]{1,6})\.pt")
_ACTIVATIONS: Final = re.compile(r"trace/activations/layer_([0-9]{1,6})\.pt")
_RECYCLED: Final = re.compile(r"trace/activations/recycle_([0-9]{1,6})_s_([sz])\.pt")
_BLOCK: Final = re.compile(r"trace/trunk/block_([0-9]{1,6})_(seq|pair)\.pt")
_FINAL: Final = re.compile(r"trace/trunk/s_([sz])\.pt")
_IPA: Final = re.compile(
    rf"trace/{STRUCTURE}/ipa_attention/recycle_([0-9]{{1,6}})_block_([0-9]{{1,6}})\.pt"
)
_BACKBONE: Final = re.compile(
    rf"trace/{STRUCTURE}/backbone/recycle_([0-9]{{1,6}})_(positions|states)\.pt"
)
_COORDINATES: Final = "structure/predicted.pt"
_TRACED: Final = (_ACTIVATIONS, _RECYCLED, _BLOCK, _FINAL, _IPA, _BACKBONE)
_LETTERS: Final = {"s": "single", "z": "pair", "seq": "single", "pair": "pair"}
_LARGEST_JSON: Final = 1 << 20


def attention_layer(path: str) -> int | None:
    """Return the layer whose attention the file *path* holds; None for any other file."""
    match = _ATTENTION.fullmatch(path)
    return None if match is None else int(match[1])


def passes_in(paths: list[str]) -> int | None:
    """Return how many passes the structure module was traced in; None if it was not."""
    found = [int(m[1]) for path in paths for p in (_IPA, _BACKBONE) if (m := p.fullmatch(path))]
    return max(found) + 1 if found else None


def trace_pieces(
    tree: ForeignTree, paths: list[str], last: int, findings: Findings
) -> dict[str, Piece]:
    """Return what is read of each file of a trace, by its path.

    Parameters
    ----------
    last
        The step of the last pass.
    """
    pieces: dict[str, Piece] = {}
    recycled = [path for path in paths if _RECYCLED.fullmatch(path)]
    # The folding trunk repeats its passes within one call: what a hook on it calls the first
    # pass is the last one, unless there is one of each.
    told = {int(m[1]) for path in recycled if (m := _RECYCLED.fullmatch(path))}
    each = len(told) == last + 1
    blocks: dict[int, list[str]] = {}
    for path in paths:
        if match := _IPA.fullmatch(path):
            blocks.setdefault(int(match[1]), []).append(path)
        elif path == _COORDINATES or any(pattern.fullmatch(path) for pattern in _TRACED):
            pieces[path] = _Piece(tree, path, last, each=each)
    for recycle, group in blocks.items():
        pieces[group[0]] = _Ipa(tree, sorted(group, key=_block_of), recycle, findings)
        for path in group[1:]:
            pieces[path] = _nothing
    return pieces


def read_json(tree: ForeignTree, path: str) -> dict[str, JsonValue]:
    """Return the object in a JSON file.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    with tree.open(path) as file:
        if file.nbytes > _LARGEST_JSON:
            raise file.refuse(f"has {file.nbytes} bytes, more than {_LARGEST_JSON}")
        try:
            found = json.loads(file.stream.read())
        except (ValueError, RecursionError) as error:
            raise file.refuse(f"expected JSON: {error}") from error
        if not isinstance(found, dict):
            raise file.refuse(f"expected a JSON object, found a {type(found).__name__}")
        return found


def missing_of_index(index: dict[str, JsonValue], paths: list[str]) -> list[str]:
    """Return the files that an index names and that are not there."""
    there = set(paths)
    groups = [group for group in index.values() if isinstance(group, dict)]
    named = [one.get("path") for group in groups for one in group.values() if isinstance(one, dict)]
    return [f"{path}, which {INDEX} names" for path in named if path and path not in there]


class _Piece:
    """One file of one tensor."""

    def __init__(self, tree: ForeignTree, path: str, last: int, *, each: bool) -> None:
        self._tree = tree
        self._path = path
        self._last = last
        self._each = each

    def __call__(self) -> Iterator[Value]:
        values = read_tensor(self._tree, self._path)
        path = self._path
        if match := _ACTIVATIONS.fullmatch(path):
            yield self._layer(values, "activations", f"{ESM}{int(match[1])}", 0)
        elif match := _BLOCK.fullmatch(path):
            name = _LETTERS[match[2]]
            yield self._represented(values, name, f"{TRUNK}{int(match[1])}", self._last)
        elif match := _RECYCLED.fullmatch(path):
            step = int(match[1]) if self._each else self._last
            yield self._represented(values, _LETTERS[match[2]], "trunk", step)
        elif match := _FINAL.fullmatch(path):
            found = self._represented(values, _LETTERS[match[1]], "trunk", self._last)
            yield Value(Place.OUTPUTS, found.name, found.dims, found.values)
        elif match := _BACKBONE.fullmatch(path):
            name = "positions" if match[2] == "positions" else "single"
            yield self._layer(values, name, MODULE, int(match[1]))
        else:
            declared = SYSTEM.field(Place.OUTPUTS, "final_atom_positions")
            dims = () if declared is None else declared.dims
            values = without_batch(self._tree, path, values, len(dims), 0)
            yield Value(Place.OUTPUTS, "final_atom_positions", dims, values)

    def _layer(self, values: NDArray[Any], name: str, layer: str, step: int) -> Value:
        declared = SYSTEM.field(Place.LAYERS, name, layer)
        dims = () if declared is None else declared.dims
        batch = 1 if dims[:1] == ("structure_block",) else 0
        values = without_batch(self._tree, self._path, values, len(dims), batch)
        return Value(Place.LAYERS, name, dims, values, layer, step)

    def _represented(self, values: NDArray[Any], name: str, layer: str, step: int) -> Value:
        known = representation(name, values)
        if known is None:
            raise self._tree.refuse(f"{self._path}: expected a {name}, found {values.shape}")
        return Value(Place.LAYERS, name, known[0], known[1], layer, step)


class _Ipa:
    """Attention of the structure module in one pass: a file a block."""

    def __init__(
        self, tree: ForeignTree, paths: list[str], recycle: int, findings: Findings
    ) -> None:
        self._tree = tree
        self._paths = paths
        self._recycle = recycle
        self._findings = findings

    def __call__(self) -> Iterator[Value]:
        blocks = [_block_of(path) for path in self._paths]
        if blocks != list(range(len(blocks))):
            which = f"pass {self._recycle} has attention of blocks {blocks}"
            self._findings.odd.append(f"{which}: they are stacked in that order")
        maps = [
            without_batch(self._tree, path, read_tensor(self._tree, path), 3, 0)
            for path in self._paths
        ]
        if len({one.shape for one in maps}) > 1:
            raise self._tree.refuse(f"blocks of pass {self._recycle} have maps of several shapes")
        declared = SYSTEM.field(Place.LAYERS, "ipa_attention", MODULE)
        dims = () if declared is None else declared.dims
        yield Value(Place.LAYERS, "ipa_attention", dims, np.stack(maps), MODULE, self._recycle)


def read_tensor(tree: ForeignTree, path: str) -> NDArray[Any]:
    """Return the one tensor in a file.

    Raises
    ------
    InvalidInputError
        ``file-invalid``.
    """
    with tree.open(path) as file:
        try:
            found = read_torch(file)
        except InvalidInputError as error:
            raise _named(tree, path, error) from error
        if not isinstance(found, np.ndarray):
            raise file.refuse(f"expected one tensor, found a {type(found).__name__}")
        return found


def without_batch(
    tree: ForeignTree, path: str, values: NDArray[Any], axes: int, batch: int
) -> NDArray[Any]:
    """Return *values* with so many axes: without the axis *batch*, which has one entry."""
    if values.ndim == axes + 1 and values.shape[batch] == 1:
        return np.ascontiguousarray(np.squeeze(values, batch))
    if values.ndim != axes:
        raise tree.refuse(f"{path}: expected {axes} axes, of one protein, found {values.shape}")
    return values


def _block_of(path: str) -> int:
    match = _IPA.fullmatch(path)
    return -1 if match is None else int(match[2])


def _named(tree: ForeignTree, path: str, error: InvalidInputError) -> InvalidInputError:
    return error if tree.url in str(error) else tree.refuse(f"{path}: {error}")


def _nothing() -> Iterator[Value]:
    return iter(())
