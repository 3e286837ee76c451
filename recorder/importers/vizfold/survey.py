"""What the files of predictions are, by their names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from archive_schema.systems.vizfold import attention_file
from recorder.importers.vizfold.esmfold import INDEX, META, SUMMARY, attention_layer

if TYPE_CHECKING:
    from recorder.importers.foreign_tree import ForeignTree

TIMINGS: Final = "timings.json"
_REPRESENTATION: Final = re.compile(r"(?:(.+)_)?(msa|pair|single)_layer([0-9]{1,6})\.npy")
_PICKLE: Final = re.compile(r".+\.(?:pkl|pickle|pt)")
_PREDICTED: Final = re.compile(r"(.+?)_(?:output_dict\.pkl|(?:un)?relaxed\.(?:pdb|cif))")
_FASTA: Final = re.compile(r".+\.(?:fasta|fa)")
_ALIGNMENT: Final = re.compile(r"([A-Za-z0-9_-]{1,100})\.(a3m|sto|hhr)")
_ATTENTION_FOLDER: Final = re.compile(r"attention_files_(.+)")


@dataclass(slots=True)
class Survey:
    """What the names of the files say."""

    attention: list[str] = field(default_factory=list)
    representations: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Paths by the field that keeps their bytes."""
    fasta: list[str] = field(default_factory=list)
    predictions: set[str] = field(default_factory=set)
    proteins: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)


def is_known(path: str) -> bool:
    """Return whether *path* is called like a file of a prediction."""
    name = path.rpartition("/")[2]
    stem, _, ending = name.rpartition(".")
    return bool(
        (attention_file(stem) and ending in ("txt", "npz"))
        or _REPRESENTATION.fullmatch(name)
        or _PREDICTED.fullmatch(name)
        or name.endswith("_output_dict.pkl")
        or path == META
        or path.startswith("trace/")
    )


def is_json(path: str) -> bool:
    """Return whether *path* is one of the JSON files that say something of the run."""
    return path.rpartition("/")[2] in (TIMINGS, META) or path in (INDEX, SUMMARY)


def representation_file(path: str) -> tuple[str, int] | None:
    """Return which representation of which layer the file *path* holds; None for any other."""
    match = _REPRESENTATION.fullmatch(path.rpartition("/")[2])
    return None if match is None else (match[2], int(match[3]))


def survey_of(paths: list[str]) -> Survey:
    """Return what *paths* are by their names."""
    survey = Survey()
    for path in paths:
        folder, _, name = path.rpartition("/")
        if match := _ATTENTION_FOLDER.fullmatch(folder.rpartition("/")[2]):
            survey.proteins.add(match[1])
        if match := _PREDICTED.fullmatch(name):
            survey.predictions.add(match[1])
        match = _REPRESENTATION.fullmatch(name)
        if match and match[1]:
            survey.proteins.add(match[1])
        listed = _list_of(survey, path, name)
        if listed is not None:
            listed.append(path)
        elif name.endswith(".pdb"):
            _once(survey, "relaxed_pdb" if name.endswith("_relaxed.pdb") else "pdb", path)
        elif match := _ALIGNMENT.fullmatch(name):
            _once(survey, f"alignment_{match[1]}_{match[2]}", path)
        elif not is_json(path):
            survey.unknown.append(path)
    return survey


def _list_of(survey: Survey, path: str, name: str) -> list[str] | None:
    stem, _, ending = name.rpartition(".")
    if (attention_file(stem) and ending in ("txt", "npz")) or attention_layer(path) is not None:
        return survey.attention
    if _REPRESENTATION.fullmatch(name):
        return survey.representations
    if path.startswith(("trace/", "structure/")) and ending == "pt":
        return survey.trace
    if _PICKLE.fullmatch(name):
        return survey.objects
    return survey.fasta if _FASTA.fullmatch(name) else None


def _once(survey: Survey, name: str, path: str) -> None:
    """Take a file for the field *name*, unless it has one: with names that differ, the next."""
    taken = name
    count = 1
    while taken in survey.texts:
        count += 1
        taken = f"{name}_{count}"
    survey.texts[taken] = path


def chosen(tree: ForeignTree, survey: Survey, named: str | None) -> Survey:
    """Return what is of the prediction *named*."""
    names = sorted(survey.predictions)
    if named not in names:
        told = f"expected one prediction, found {', '.join(names) or 'none'}: name one by --part"
        raise tree.refuse(told if named is None else f"there is no {named!r}: {told}")
    others = [name for name in names if name != named]

    def own(path: str) -> bool:
        begins = path.rpartition("/")[2]
        return not any(begins.startswith(f"{other}_") for other in others)

    protein = {one for one in survey.proteins if named.startswith(one)}
    foreign = survey.proteins - protein

    def of_protein(path: str) -> bool:
        words = path.split("/")
        return not any(
            word in (f"attention_files_{one}", f"{one}.fasta") or word.startswith(f"{one}_")
            for one in foreign
            for word in words
        )

    return Survey(
        attention=list(filter(of_protein, survey.attention)),
        representations=list(filter(of_protein, survey.representations)),
        objects=list(filter(own, survey.objects)),
        trace=survey.trace,
        texts=_renamed({name: path for name, path in survey.texts.items() if own(path)}),
        fasta=list(filter(of_protein, survey.fasta)),
        predictions={named},
        proteins=protein,
        unknown=survey.unknown,
    )


def _renamed(texts: dict[str, str]) -> dict[str, str]:
    """Give the files that are left the names that they have where there is one of each."""
    survey = Survey()
    for name, path in texts.items():
        _once(survey, re.sub(r"_[0-9]+$", "", name), path)
    return survey.texts
