"""A prediction as the tree of files that OpenFold's scripts write, and VizFold's tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.attention_text import Strongest, attention_text, strongest_of
from archive_schema.systems.relative_path import is_inside
from archive_schema.systems.vizfold import (
    DEFAULT_TOP_K,
    IMPORTED,
    KINDS,
    PROTEIN,
    SPARSE_PARTS,
    TOP_K,
    AttentionFile,
    layer_number,
    sparse_name,
)
from server.exporters.saved_npz import save_npz
from server.exporters.tree import Tree, TreeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from archive_schema.systems.vizfold import AttentionKind
    from server.exporters.exporter import BuildTree
    from server.query import RunView
    from server.query.field import FieldView
    from server.query.slice import Slice

_REPRESENTATIONS: Final = ("msa", "pair", "single")
_KEPT: Final = {
    "fasta": "{protein}.fasta",
    "pdb": "predictions/{prediction}_unrelaxed.pdb",
    "relaxed_pdb": "predictions/{prediction}_relaxed.pdb",
}
"""Files whose bytes are recorded, and where they lie if nothing tells."""
_ALIGNMENT: Final = "alignment_"


def openfold_tree(run: RunView, steps: Collection[int]) -> Tree:
    """Return the files of the last pass among *steps*, the text with ``Layer L, Head h``."""
    return _Folder(run, steps, comma=True).tree()


def openfold_tree_no_comma(run: RunView, steps: Collection[int]) -> Tree:
    """Return the same with ``Layer L Head h``, as Boltz's validator wants it."""
    return _Folder(run, steps, comma=False).tree()


class _Folder:
    """What of a run goes into such a tree."""

    def __init__(self, run: RunView, steps: Collection[int], *, comma: bool) -> None:
        self._run = run
        self._steps = steps
        self._comma = comma
        said = run.manifest.metadata
        self._protein = str(said.get(PROTEIN) or run.manifest.id).replace("/", "_")
        self._prediction = str(said.get("prediction") or self._protein).replace("/", "_")
        top_k = said.get(TOP_K)
        self._top_k = top_k if isinstance(top_k, int) and top_k > 0 else DEFAULT_TOP_K
        imported = said.get(IMPORTED)
        paths = imported.get("paths") if isinstance(imported, Mapping) else None
        self._paths = paths if isinstance(paths, Mapping) else {}

    def tree(self) -> Tree:
        """Return the files, and what of the run is in none."""
        files: dict[str, TreeFile] = {}
        for file in (*self._attention(), *self._representations(), *self._kept(), *self._timings()):
            files.setdefault(file.path, file)
        taken = {field.path for field in self._taken}
        left = sorted(f.path for f in self._run.fields() if f.path not in taken)
        notes = []
        passes = [step for step in self._run.steps if step in self._steps]
        if len(passes) > 1:
            notes.append(f"steps {passes} are recorded: each file is of the last that has it")
        if left:
            more = f" and {len(left) - 8} more" if len(left) > 8 else ""  # noqa: PLR2004  a line of them
            notes.append(f"no file of this tree holds {', '.join(left[:8])}{more}")
        return Tree.of((files[path] for path in sorted(files)), notes)

    @property
    def _taken(self) -> list[FieldView]:
        return [field for field in self._run.fields() if self._has_place(field)]

    def _has_place(self, field: FieldView) -> bool:
        name, place = field.spec.name, field.spec.place
        if place is Place.LAYERS and layer_number(field.spec.layer or "") is not None:
            own = (n for kind in KINDS if kind.file for n in (kind.residues, *_names(kind)))
            return name in (*_REPRESENTATIONS, *own)
        if place in (Place.INPUTS, Place.OUTPUTS):
            return name in (*_KEPT, "sequence") or name.startswith(_ALIGNMENT)
        return False

    def _attention(self) -> Iterator[TreeFile]:
        for layer in self._run.layers():
            number = layer_number(layer)
            if number is None:
                continue
            for kind in KINDS:
                for name in kind.fields if kind.file else ():
                    yield from self._maps(layer, number, kind, name)

    def _maps(self, layer: str, number: int, kind: AttentionKind, name: str) -> Iterator[TreeFile]:
        """Yield text and dense twin of each residue that there are maps of."""
        folder = f"attention_files_{self._protein}"
        for place, residue in self._residues(layer, kind, name):
            stem = f"{folder}/{AttentionFile(kind, number, residue).stem}"
            dense = self._slice(name, layer, place)
            parts = [self._slice(sparse_name(name, part), layer, place) for part in SPARSE_PARTS]
            sparse = [one for one in parts if one is not None]
            sources = sparse if dense is None else [dense, *sparse]
            if dense is not None:
                yield _file(f"{stem}.npz", [dense], partial(_write_npz, dense))
            if sources:
                write = partial(self._write_text, number, dense, sparse)
                yield _file(f"{stem}.txt", sources, write, f"{self._comma} {self._top_k}")

    def _residues(
        self, layer: str, kind: AttentionKind, name: str
    ) -> list[tuple[dict[str, int], int | None]]:
        """Return where the maps of which residue lie; None for the one map there is."""
        if kind.residue is None or name == kind.mean:
            return [({}, None)]
        known = self._slice(kind.residues, layer)
        if known is not None:
            return [({kind.residue: at}, int(one)) for at, one in enumerate(known.array())]
        dense = self._slice(name, layer)
        count = 0 if dense is None else dense.shape[0]
        return [({kind.residue: at}, at) for at in range(count)]

    def _write_text(
        self, number: int, dense: Slice | None, sparse: list[Slice], target: IO[bytes]
    ) -> None:
        found = None
        if sparse:
            arrays = [one.array() for one in sparse]
            found = Strongest(**dict(zip(SPARSE_PARTS, arrays, strict=True)))
        if dense is not None and (found is None or not found.count.any()):
            found = strongest_of(dense.array().astype(np.float32), self._top_k)
        if found is not None:
            target.write(attention_text(number, found, comma=self._comma))

    def _representations(self) -> Iterator[TreeFile]:
        for layer in self._run.layers():
            number = layer_number(layer)
            for name in _REPRESENTATIONS if number is not None else ():
                values = self._slice(name, layer)
                if values is not None:
                    path = f"representations/{self._protein}_{name}_layer{number}.npy"
                    yield _file(path, [values], partial(_write_npy, values))

    def _kept(self) -> Iterator[TreeFile]:
        for field in self._run.fields():
            name = field.spec.name
            if field.spec.place not in (Place.INPUTS, Place.OUTPUTS):
                continue
            usual = _KEPT.get(name)
            if name.startswith(_ALIGNMENT):
                stem, _, ending = name.removeprefix(_ALIGNMENT).rpartition("_")
                usual = f"alignments/{stem}.{ending}"
            if usual is None or not field.ledger.count:
                continue
            told = self._paths.get(name)
            path = usual.format(protein=self._protein, prediction=self._prediction)
            values = field.select({})
            yield _file(
                told if isinstance(told, str) and is_inside(told) else path,
                [values],
                partial(_write_bytes, values),
            )
        if self._run.ledger.at(Place.INPUTS, None, "fasta") is None:
            yield from self._fasta()

    def _fasta(self) -> Iterator[TreeFile]:
        """Yield a FASTA file of a sequence that was recorded without one."""
        known = self._run.ledger.at(Place.INPUTS, None, "sequence")
        if known is None or not known.count:
            return
        sequence = self._run.field("sequence", place=Place.INPUTS).select({})

        def write(target: IO[bytes]) -> None:
            target.write(f">{self._protein}\n{sequence.array()}\n".encode())

        yield _file(f"{self._protein}.fasta", [sequence], write)

    def _timings(self) -> Iterator[TreeFile]:
        timings = self._run.manifest.metadata.get("timings")
        if isinstance(timings, Mapping):
            data = json.dumps(timings).encode()
            yield TreeFile(
                "timings.json",
                len(data),
                blake2b(data, digest_size=16).hexdigest(),
                lambda target: _write(target, data),
            )

    def _slice(self, name: str, layer: str, place: Mapping[str, int] | None = None) -> Slice | None:
        """Return the values, or those at *place*, of the last of the steps that has them."""
        known = self._run.ledger.at(Place.LAYERS, layer, name)
        if known is None:
            return None
        field = self._run.field(name, layer=layer)
        steps = [step for step in field.steps if step in self._steps]
        return field.select({"step": steps[-1], **(place or {})}) if steps else None


def _names(kind: AttentionKind) -> Iterator[str]:
    for name in kind.fields:
        yield name
        yield from (sparse_name(name, part) for part in SPARSE_PARTS)


def _file(
    path: str, sources: list[Slice], write: Callable[[IO[bytes]], None], said: str = ""
) -> TreeFile:
    """Return a file that follows from *sources* and *said*."""
    digests = " ".join(one.digest for one in sources)
    digest = blake2b(f"{path} {said} {digests}".encode(), digest_size=16).hexdigest()
    return TreeFile(path, sum(one.nbytes for one in sources), digest, write)


def _write_npz(values: Slice, target: IO[bytes]) -> None:
    save_npz(target, {"attn": values.array()}, compressed=True)


def _write_npy(values: Slice, target: IO[bytes]) -> None:
    np.save(target, values.array())


def _write_bytes(values: Slice, target: IO[bytes]) -> None:
    target.write(values.array().tobytes())


def _write(target: IO[bytes], data: bytes) -> None:
    target.write(data)


TREES: Final[Mapping[str, BuildTree]] = {
    "openfold-tree": openfold_tree,
    "openfold-tree-no-comma": openfold_tree_no_comma,
}
