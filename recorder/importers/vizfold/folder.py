"""The files of a prediction: which one is what, and what they say of the run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.vizfold import (
    EVOFORMER,
    IMPORTED,
    PASSES,
    PROTEIN,
    TOP_K,
)
from recorder.importers.source import Findings
from recorder.importers.vizfold.arrays import read_npy, read_objects, representation
from recorder.importers.vizfold.attention import attention_groups
from recorder.importers.vizfold.esmfold import (
    INDEX,
    META,
    missing_of_index,
    passes_in,
    read_json,
    trace_pieces,
)
from recorder.importers.vizfold.outputs import is_model_output, object_values, passes_of
from recorder.importers.vizfold.prediction import Prediction, Value
from recorder.importers.vizfold.survey import (
    Survey,
    chosen,
    is_json,
    representation_file,
    survey_of,
)
from recorder.importers.vizfold.texts import fasta_values, kept_bytes, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import JsonValue

    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.vizfold.pickles import Tree
    from recorder.importers.vizfold.prediction import Piece

_MODEL: Final = re.compile(r"_model_[0-9]+(?:_(?:multimer|ptm|seqemb)[^/]*)?$")
_SHOWN: Final = 20


def open_prediction(
    tree: ForeignTree, paths: list[str], named: str | None, passes: int | None
) -> Prediction | None:
    """Return the prediction that the files *paths* are of; None if they hold nothing of one.

    Parameters
    ----------
    named
        Which prediction, where the folder holds several: what its files begin with.
    passes
        The number of passes, where no file says it.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if they are of several predictions and none is named.
    """
    survey = survey_of(paths)
    findings = Findings("esmfold" if META in paths else "openfold")
    if len(survey.predictions) > 1 or named is not None:
        survey = chosen(tree, survey, named)
    found = _Opening(tree, survey, findings, paths, passes).prediction()
    return found if found.pieces else None


class _Opening:
    """Puts together what the files say of the run, and what is read of each later."""

    def __init__(
        self,
        tree: ForeignTree,
        survey: Survey,
        findings: Findings,
        paths: list[str],
        passes: int | None,
    ) -> None:
        self._tree = tree
        self._survey = survey
        self._findings = findings
        self._paths = paths
        self._said = passes
        self._metadata: dict[str, JsonValue] = {}
        self._kept: dict[str, str] = {}
        self._broken: list[InvalidInputError] = []

    def prediction(self) -> Prediction:
        survey, findings = self._survey, self._findings
        self._metadata[PROTEIN] = self._protein()
        self._read_json()
        objects = {path: self._object(path) for path in survey.objects}
        passes = self._passes(objects)
        last = 0 if passes is None else passes - 1
        esmfold = findings.generation == "esmfold"
        groups = attention_groups(self._tree, survey.attention, findings, of_language_model=esmfold)
        counts = [int(t.strongest.count.max()) for g in groups for t in g.read_texts()]
        if counts:
            self._metadata.setdefault(TOP_K, max(counts))
        for group in groups:
            group.step = last if group.layer.startswith(EVOFORMER) else 0
        pieces: list[Piece] = [*self._texts(), *(group.values for group in groups)]
        pieces += [self._representation(path, last) for path in survey.representations]
        pieces += [
            self._of_object(path, found, last)
            for path, found in objects.items()
            if found is not None
        ]
        pieces += trace_pieces(self._tree, survey.trace, last, findings).values()
        if self._broken:
            pieces.append(self._tell_broken)
        self._report(passes)
        self._metadata[IMPORTED] = {"format": findings.generation, "paths": dict(self._kept)}
        steps = {} if passes is None and not esmfold else {at: at for at in range(last + 1)}
        taken = len(self._paths) - len(survey.unknown)
        return Prediction(self._metadata, pieces, findings, taken, steps)

    def _protein(self) -> str:
        names = self._survey.proteins or {
            re.sub(_MODEL, "", name) for name in self._survey.predictions
        }
        if not names:
            names = {path.rpartition("/")[2].rpartition(".")[0] for path in self._survey.fasta}
        return min(names, default="protein")

    def _read_json(self) -> None:
        if self._survey.predictions:
            name = min(self._survey.predictions)
            self._metadata["prediction"] = name
            if match := _MODEL.search(name):
                self._metadata["model"] = match[0].lstrip("_")
        for path in self._paths:
            if not is_json(path):
                continue
            try:
                found = read_json(self._tree, path)
            except InvalidInputError as error:
                self._broken.append(error)
                continue
            if path == INDEX:
                self._findings.missing += missing_of_index(found, self._paths)
            elif path == META:
                said = {"backend", "model_name", "device", "dtype", "seed", TOP_K, "repo_commit"}
                self._metadata |= {key: found[key] for key in found if key in said}
                self._metadata["meta"] = found
            else:
                key = path.rpartition("/")[2].removesuffix(".json")
                self._metadata[key] = found
                self._kept[key] = path

    def _object(self, path: str) -> Tree:
        try:
            with self._tree.open(path) as file:
                found = read_objects(file)
        except InvalidInputError as error:
            self._broken.append(
                error if path in str(error) else self._tree.refuse(f"{path}: {error}")
            )
            return None
        if is_model_output(found):
            self._kept["outputs"] = path
        return found

    def _passes(self, objects: dict[str, Tree]) -> int | None:
        told = {path: passes_of(found) for path, found in objects.items()}
        known = {count for count in told.values() if count is not None}
        traced = passes_in(self._survey.trace)
        if traced is not None:
            known.add(traced)
        if self._said is not None:
            if known - {self._said}:
                message = f"the flag says {self._said} passes, and the files {sorted(known)}"
                self._findings.odd.append(f"{message}: the flag counts")
            known = {self._said}
        elif len(known) > 1:
            message = f"files disagree on the number of passes: {sorted(known)}; name it by a flag"
            raise self._tree.refuse(f"{message} passes=N")
        passes = next(iter(known), None)
        if passes is not None:
            self._metadata[PASSES] = passes
        return passes

    def _texts(self) -> Iterator[Piece]:
        for name, path in self._survey.texts.items():
            place = Place.OUTPUTS if name in ("pdb", "relaxed_pdb") else Place.INPUTS
            self._kept[name] = path
            yield lambda path=path, name=name, place=place: [  # type: ignore[misc]
                kept_bytes(self._tree, path, name, place)
            ]
        fasta = self._own_fasta()
        if fasta is not None:
            self._kept["fasta"] = fasta
            data = read_bytes(self._tree, fasta)
            values = list(fasta_values(self._tree, fasta, data, self._metadata))
            yield lambda: values

    def _own_fasta(self) -> str | None:
        found = self._survey.fasta
        protein = str(self._metadata[PROTEIN])
        named = [path for path in found if path.rpartition("/")[2].rpartition(".")[0] == protein]
        if len(found) > 1 and len(named) != 1:
            names = ", ".join(found[:_SHOWN])
            self._findings.odd.append(f"which of {names} is the sequence, no name tells: left out")
            return None
        return next(iter(named or found), None)

    def _representation(self, path: str, last: int) -> Piece:
        def read() -> Iterable[Value]:
            name, number = representation_file(path) or ("", 0)
            with self._tree.open(path) as file:
                values = read_npy(file)
                found = representation(name, values)
                if found is None:
                    raise file.refuse(f"expected a representation, found shape {values.shape}")
            yield Value(Place.LAYERS, name, *found, f"{EVOFORMER}{number}", last)

        return read

    def _of_object(self, path: str, found: Tree, last: int) -> Piece:
        def read() -> Iterable[Value]:
            odd: list[str] = []
            yield from object_values(found, last, odd)
            self._findings.odd += [f"{path}: {sentence}" for sentence in odd]

        return read

    def _tell_broken(self) -> Iterable[Value]:
        raise InvalidInputError(ErrorKind.FILE_INVALID, "; ".join(map(str, self._broken)))

    def _report(self, passes: int | None) -> None:
        survey, findings = self._survey, self._findings
        if not survey.fasta:
            findings.missing.append("a FASTA file: the sequence is not known")
        if not survey.texts.keys() & {"pdb", "relaxed_pdb"}:
            findings.missing.append("a PDB file of the structure")
        if findings.generation == "openfold":
            if "outputs" not in self._kept:
                findings.missing.append("an output pickle (--save_outputs): coordinates, pLDDT")
            if not survey.attention:
                findings.missing.append("attention files (--demo_attn)")
            if passes is None:
                findings.odd.append(
                    "no file says how many passes there were: what is here is of the last one, and"
                    " recorded as step 0 without a recycle (say it by the flag passes=N)"
                )
            elif passes > 1:
                findings.odd.append(
                    f"of {passes} passes only the last one is in the files: it is step {passes - 1}"
                )
        if survey.unknown:
            names = ", ".join(survey.unknown[:_SHOWN])
            more = len(survey.unknown) - _SHOWN
            findings.odd.append(
                f"no files of a prediction, left out: {names}"
                + (f" and {more} more" if more > 0 else "")
            )
