"""Attention files of one layer and kind: text, dense twins, or both, of one residue or several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.attention_text import (
    AttentionText,
    Strongest,
    attention_text,
    parse_attention_text,
    strongest_of,
)
from archive_schema.systems.vizfold import (
    ESM,
    EVOFORMER,
    MSA_ROW,
    SELF,
    AttentionKind,
    attention_file,
    sparse_dims,
    sparse_name,
)
from recorder.importers.vizfold.arrays import read_dense
from recorder.importers.vizfold.esmfold import attention_layer, read_tensor, without_batch
from recorder.importers.vizfold.prediction import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Findings

_LARGEST_TEXT: Final = 256 << 20
TORCH_ENDING: Final = ".pt"
_LAST_DECIMAL: Final = 5e-7
_HALF_PRECISION: Final = 5e-4
"""By which float16 rounds weights of up to one."""


@dataclass(slots=True)
class _Files:
    """The files of one map of each head."""

    text: str | None = None
    dense: str | None = None
    parsed: AttentionText | None = None
    data: bytes = b""


@dataclass(slots=True)
class AttentionGroup:
    """The files that become one field of one layer, and the fields beside it."""

    tree: ForeignTree
    findings: Findings
    kind: AttentionKind
    name: str
    """Of the field."""
    layer: str
    number: int
    step: int = 0
    files: dict[int | None, _Files] = field(default_factory=dict)
    """By residue; None for a mean, or for a kind without residues."""
    broken: list[InvalidInputError] = field(default_factory=list)

    def read_texts(self) -> Iterator[AttentionText]:
        """Read the text files, which tell how many entries of each head there are."""
        for files in self.files.values():
            if files.text is None:
                continue
            try:
                with self.tree.open(files.text) as file:
                    if file.nbytes > _LARGEST_TEXT:
                        raise file.refuse(f"has {file.nbytes} bytes, more than {_LARGEST_TEXT}")
                    files.data = file.stream.read()
                    files.parsed = parse_attention_text(files.data)
            except InvalidInputError as error:
                self.broken.append(self._named(files.text, error))
                continue
            if files.parsed.layer != self.number:
                said = f"says layer {files.parsed.layer}, and its name {self.number}"
                self.findings.odd.append(f"{files.text} {said}: the name counts")
            yield files.parsed

    def values(self) -> Iterator[Value]:
        """Read the dense twins, compare them with the texts, and yield what is recorded.

        Raises
        ------
        InvalidInputError
            ``file-invalid`` in the end, if any of the files could not be read.
        """
        residues = sorted(self.files, key=lambda residue: -1 if residue is None else residue)
        dense = {residue: self._dense(self.files[residue]) for residue in residues}
        texts = {
            residue: files.parsed.strongest
            for residue, files in self.files.items()
            if files.parsed is not None and self._is_kept(files, dense[residue])
        }
        maps = {residue: values for residue, values in dense.items() if values is not None}
        dims = self.kind.dims(self.name)
        if maps:
            yield self._value(self.name, dims, self._stacked(maps, residues))
        if texts:
            stacked = _stacked_texts(texts, residues)
            if None in residues:
                stacked = Strongest(**{name: values[0] for name, values in stacked.arrays.items()})
            for part, values in stacked.arrays.items():
                name = sparse_name(self.name, part)
                yield self._value(name, sparse_dims(self.name, dims, part), values)
        if (maps or texts) and self.kind.residue is not None and None not in residues:
            known = np.array(residues, np.int32)
            yield self._value(self.kind.residues, (self.kind.residue,), known)
        if self.broken:
            reasons = "; ".join(map(str, self.broken))
            raise InvalidInputError(ErrorKind.FILE_INVALID, reasons)

    def _value(self, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> Value:
        return Value(Place.LAYERS, name, dims, values, self.layer, self.step)

    def _dense(self, files: _Files) -> NDArray[Any] | None:
        if files.dense is None:
            return None
        try:
            if files.dense.endswith(TORCH_ENDING):
                tensor = read_tensor(self.tree, files.dense)
                return without_batch(self.tree, files.dense, tensor, 3, 0)
            with self.tree.open(files.dense) as file:
                values, odd = read_dense(file)
        except InvalidInputError as error:
            self.broken.append(self._named(files.dense, error))
            return None
        if odd:
            self.findings.odd.append(f"{files.dense} {odd}")
        return values

    def _named(self, path: str, error: InvalidInputError) -> InvalidInputError:
        return error if path in str(error) else self.tree.refuse(f"{path}: {error}")

    def _is_kept(self, files: _Files, dense: NDArray[Any] | None) -> bool:
        """Return whether a text is kept: it is not where its dense twin gives the same bytes."""
        text = files.parsed
        if text is None:
            return False
        own = attention_text(self.number, text.strongest, comma=text.comma)
        if own != files.data:
            message = f"{files.text} is written otherwise than upstream's: its numbers are kept"
            self.findings.odd.append(message)
        if dense is None:
            return True
        again = strongest_of(dense, int(text.strongest.count.max()))
        if attention_text(self.number, again) == attention_text(self.number, text.strongest):
            return False
        how = _difference(text.strongest, dense)
        self.findings.odd.append(f"{files.text} {how} {files.dense}: both are kept")
        return True

    def _stacked(
        self, maps: dict[int | None, NDArray[Any]], residues: list[int | None]
    ) -> NDArray[Any]:
        if None in maps:
            return maps[None]
        shapes = {values.shape for values in maps.values()}
        if len(shapes) > 1:
            found = ", ".join(map(str, sorted(shapes)))
            message = f"dense maps of {self.layer} {self.name} have several shapes: {found}"
            raise self.tree.refuse(message)
        lacking = [residue for residue in residues if residue not in maps]
        if lacking:
            said = f"{self.layer} {self.name}: residues {lacking} are known by text only"
            self.findings.odd.append(f"{said}: NaN among the dense maps")
        first = next(iter(maps.values()))
        stacked = np.full((len(residues), *first.shape), np.nan, first.dtype)
        for at, residue in enumerate(residues):
            if residue in maps:
                stacked[at] = maps[residue]
        return stacked


def attention_groups(
    tree: ForeignTree, paths: list[str], findings: Findings, *, of_language_model: bool
) -> list[AttentionGroup]:
    """Return the attention files among *paths* by layer and field.

    Parameters
    ----------
    of_language_model
        Whether they are ESMFold's, which calls the attention of its language model MSA row
        attention.
    """
    groups: dict[tuple[int, str], AttentionGroup] = {}
    for path in paths:
        stem, _, ending = path.rpartition("/")[2].rpartition(".")
        named = attention_file(stem)
        number = attention_layer(path)
        if number is not None:
            kind, name, residue = SELF, SELF.name, None
        elif named is not None and ending in ("txt", "npz"):
            kind, name, number, residue = named.kind, named.field, named.number, named.residue
            if of_language_model and kind is MSA_ROW:
                kind, name = SELF, SELF.name
        else:
            continue
        layer = f"{ESM if kind is SELF else EVOFORMER}{number}"
        group = groups.setdefault(
            (number, name), AttentionGroup(tree, findings, kind, name, layer, number)
        )
        files = group.files.setdefault(residue, _Files())
        had = files.text if ending == "txt" else files.dense
        if had is not None:
            findings.odd.append(f"{path} says again what {had} does: left out")
        elif ending == "txt":
            files.text = path
        else:
            files.dense = path
    return [groups[key] for key in sorted(groups)]


def _stacked_texts(texts: dict[int | None, Strongest], residues: list[int | None]) -> Strongest:
    """Return entries by residue, those of residues without a text with a count of 0."""
    heads = max(text.count.shape[-1] for text in texts.values())
    ranks = max(text.row.shape[-1] for text in texts.values())
    none = Strongest(
        np.empty((0, 0), np.int32),
        np.empty((0, 0), np.int32),
        np.empty((0, 0)),
        np.empty(0, np.int32),
    )
    padded = [texts.get(residue, none).padded(heads, ranks) for residue in residues]
    names = ("row", "column", "weight", "count")
    return Strongest(**{name: np.stack([one.arrays[name] for one in padded]) for name in names})


def _difference(text: Strongest, dense: NDArray[Any]) -> str:
    """Say how a text differs from dense maps that give another one."""
    heads, rows, columns = dense.shape
    differing = 0.0
    for head, count in enumerate(text.count.tolist()):
        row, column = text.row[head, :count], text.column[head, :count]
        if count and (head >= heads or row.max() >= rows or column.max() >= columns):
            return f"has entries outside of the maps {dense.shape} of"
        if count:
            held = np.round(dense[head, row, column].astype(np.float64), 6)
            differing = max(differing, float(np.abs(held - text.weight[head, :count]).max()))
    if differing < _LAST_DECIMAL:
        return "orders equal weights otherwise than"
    if dense.dtype.itemsize < np.dtype(np.float32).itemsize and differing < _HALF_PRECISION:
        return "has the weights before they were rounded to the half precision of"
    return f"disagrees, by up to {differing:.2g}, with"
