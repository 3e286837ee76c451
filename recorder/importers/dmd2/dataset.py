"""``dataset_info.json`` and the JSON beside activations: who is in which row of which file."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from archive_schema.systems.dmd2 import (
    ACTIVATION_PATH,
    BATCH_INDEX,
    CLASS_ID,
    ORIGINAL_PATH,
    SAMPLE_ID,
    SYNSET,
)
from archive_schema.systems.dmd2_files import CLASS_LABELS, SAMPLES, coordinate_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recorder.importers.dmd2.activations import Row
    from recorder.importers.foreign import ForeignFile

_LARGEST: Final = 512 << 20
_TELLING: Final = frozenset((SAMPLE_ID, CLASS_ID, SYNSET, ORIGINAL_PATH))
"""Coordinates by which the JSON beside a file may tell whose a row is."""
Sample = dict[str, Any]


@dataclass(slots=True)
class Dataset:
    """What ``dataset_info.json`` says."""

    head: dict[str, Any]
    """All of it, with nothing at `SAMPLES` and `CLASS_LABELS`."""
    samples: list[Sample]
    labels: dict[int, tuple[str, str]]
    """Synset and name by class id."""
    text: str


@dataclass(slots=True)
class Claims:
    """Which sample is in which row."""

    of_row: dict[int, int] = field(default_factory=dict)
    """By position of the row: the number of the sample in the list."""
    missing: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def load_json(file: ForeignFile) -> tuple[Any, str]:
    """Return a JSON document and its text.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if it is cut short, or is none.
    """
    if file.nbytes > _LARGEST:
        raise file.refuse(f"has {file.nbytes} bytes, more than the {_LARGEST} that are read")
    try:
        text = file.stream.read().decode("utf-8")
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        return found, text  # noqa: TRY300
    except (ValueError, RecursionError) as error:
        raise file.refuse(f"expected a JSON document: {error}") from error


def load_dataset(file: ForeignFile) -> Dataset:
    """Return what a ``dataset_info.json`` says; errors as `load_json`."""
    found, text = load_json(file)
    if not isinstance(found, dict):
        raise file.refuse(f"expected a JSON object, got {type(found).__name__}")
    samples = found.get(SAMPLES) or []
    if not isinstance(samples, list) or not all(isinstance(one, dict) for one in samples):
        raise file.refuse("expected a list of objects at 'samples'")
    head = {key: None if key in (SAMPLES, CLASS_LABELS) else found[key] for key in found}
    return Dataset(head, samples, _labels(file, found.get(CLASS_LABELS) or {}), text)


def sidecar_samples(file: ForeignFile) -> tuple[list[Sample], str]:
    """Return the samples that the JSON beside activations names, and its text."""
    found, text = load_json(file)
    samples = found.get(SAMPLES, [found]) if isinstance(found, dict) else None
    if not isinstance(samples, list) or not all(isinstance(one, dict) for one in samples):
        raise file.refuse("expected an object that tells of one sample, or a list of them")
    return samples, text


def row_of(sample: Mapping[str, Any], model: str) -> tuple[str, int]:
    """Return file and row that a sample names; older lists name none, but the sample's file."""
    path = sample.get(ACTIVATION_PATH) or f"activations/{model}/{sample.get(SAMPLE_ID)}"
    index = sample.get(BATCH_INDEX, 0)
    return str(path), index if type(index) is int else -1


def match(
    dataset: Dataset,
    model: str,
    rows: Sequence[Row],
    known: Mapping[int, Sample],
) -> Claims:
    """Decide which sample is in which row; where the files do not tell, nobody is.

    A row may be claimed several times: upstream's resume writes over the files of the samples
    before. As many contents as claims, seen one after another, belong to them in their order;
    otherwise the JSON beside the file may tell whose the row is.

    Parameters
    ----------
    known
        What the JSON beside the file says, by position of the row.
    """
    contents: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        contents[row.path, row.index].append(position)
    claimed: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for number, sample in enumerate(dataset.samples):
        claimed[row_of(sample, model)].append(number)
    claims = Claims()
    lost: list[int] = []
    disputed: list[int] = []
    for place, numbers in claimed.items():
        positions = contents.get(place, [])
        found = _settle(dataset, numbers, positions, known)
        claims.of_row |= found
        left = sorted(set(numbers) - set(found.values()))
        if found or not positions:
            lost += left
        else:
            disputed += left
    seen = {row.path for row in rows}
    absent = [n for n in lost if row_of(dataset.samples[n], model)[0] not in seen]
    lost = sorted(set(lost) - set(absent))
    if absent:
        claims.missing.append(
            f"the files with the activations of {len(absent)} samples: {_named(dataset, absent)}"
        )
    if lost:
        claims.odd.append(
            f"the activations of {len(lost)} samples were written over by a resumed run, and are"
            f" lost; what is told of them is kept: {_named(dataset, lost)}"
        )
    if disputed:
        claims.odd.append(
            f"{len(disputed)} samples name rows that others name too, or that the JSON beside them"
            " gives to others: a resumed run wrote over the files. Nothing tells whose activations"
            f" they are, so those rows have no names: {_named(dataset, disputed)}"
        )
    return claims


def _settle(
    dataset: Dataset, numbers: list[int], positions: list[int], known: Mapping[int, Sample]
) -> dict[int, int]:
    """Return which of the samples *numbers* is in which of the rows *positions*."""
    agreeing = [
        [n for n in numbers if _agree(dataset.samples[n], known.get(at, {}))] for at in positions
    ]
    pairs = list(zip(positions, numbers, agreeing, strict=False))
    if len(positions) == len(numbers) and all(n in ones for _, n, ones in pairs):
        return {at: n for at, n, _ in pairs}
    return {
        at: ones[0]
        for at, ones in zip(positions, agreeing, strict=True)
        if len(ones) == 1 and _TELLING & known.get(at, {}).keys()
    }


def _agree(sample: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
    """Return whether what the JSON beside the file says contradicts nothing of a sample."""
    told = {coordinate_of(key): value for key, value in sample.items()}
    return all(told.get(name, value) == value for name, value in beside.items() if name in _TELLING)


def _named(dataset: Dataset, numbers: list[int]) -> str:
    names = [str(dataset.samples[n].get(SAMPLE_ID, f"number {n}")) for n in sorted(numbers)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")  # noqa: PLR2004


def _labels(file: ForeignFile, labels: Any) -> dict[int, tuple[str, str]]:
    """Return the codebook, ``{"0": ["n01440764", "tench"], …}``."""
    if not isinstance(labels, dict):
        raise file.refuse("expected an object at 'class_labels'")
    try:
        return {int(key): (str(one[0]), str(one[1])) for key, one in labels.items()}
    except (ValueError, TypeError, LookupError) as error:
        message = f"expected class_labels such as {{'0': ['n01440764', 'tench']}}: {error}"
        raise file.refuse(message) from error
