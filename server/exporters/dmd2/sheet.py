"""The rows of a data set's files: which sample of which step is in which row of which file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archive_schema.systems.dmd2 import (
    ACTIVATION_DIGEST,
    ACTIVATION_PATH,
    BATCH_INDEX,
    CLASS,
    CLASS_ID,
    CONDITIONING_SIGMA,
    IMAGE,
    IMAGE_PATH,
    ORIGINAL_PATH,
    RECONSTRUCTED,
    RECONSTRUCTED_PATH,
    SAMPLE_ID,
    SIGMA,
    TIMESTEP,
    UMAP_AXES,
)
from archive_schema.systems.dmd2_files import SAMPLES, KeptFiles, KeptInfo

if TYPE_CHECKING:
    from collections.abc import Collection

    from archive_schema.systems.dmd2_files import Record
    from server.systems.dmd2 import ImageSet

_KEYS = (
    SAMPLE_ID, "class_label", "synset_id", "class_name", "caption", IMAGE_PATH,
    RECONSTRUCTED_PATH, ACTIVATION_PATH, BATCH_INDEX, ORIGINAL_PATH, "source", TIMESTEP,
    CONDITIONING_SIGMA,
)  # fmt: skip
"""Of a sample in ``dataset_info.json``, in its order."""
_OURS = frozenset((ACTIVATION_DIGEST, CLASS, CLASS_ID, *UMAP_AXES))
_BESIDE = (BATCH_INDEX, CLASS_ID, "synset_id", "class_name", ORIGINAL_PATH)
_TILE = 64
"""Samples in a file where nothing says it."""


@dataclass(slots=True)
class SheetRow:
    """One row of a file of activations."""

    step: int
    position: int
    values: dict[str, Any]
    """Coordinates of the sample as the files tell them."""


@dataclass(slots=True)
class Sheet:
    """All rows, in the order of the files."""

    rows: list[SheetRow]
    info: KeptInfo | None
    files: KeptFiles
    notes: list[str] = field(default_factory=list)

    def batches(self) -> dict[str, list[SheetRow]]:
        """Return the rows of each file, by its path."""
        found: defaultdict[str, list[SheetRow]] = defaultdict(list)
        for row in self.rows:
            found[str(row.values[ACTIVATION_PATH])].append(row)
        return dict(found)


def sheet_of(dataset: ImageSet, steps: Collection[int], *, as_told: bool) -> Sheet:
    """Return the rows of the files of *dataset*.

    Parameters
    ----------
    as_told
        Whether samples whose activations were written over are listed as upstream lists them,
        though their paths lead to the activations of others.
    """
    recorded = _recorded(dataset, steps)
    samples = dataset.samples
    if all(ACTIVATION_PATH in samples[position] for _, position in recorded) and recorded:
        rows = [SheetRow(step, at, dict(samples[at])) for step, at in recorded]
        sheet = Sheet(rows, dataset.info, dataset.files or _files(dataset))
        _separate(sheet)
        _list(sheet, as_told=as_told)
        return sheet
    return _made(dataset, recorded)


def _recorded(dataset: ImageSet, steps: Collection[int]) -> list[tuple[int, int]]:
    """Return steps and positions at which all layers are recorded."""
    count = dataset.run.samples
    found = []
    for step in sorted(steps):
        masks = [one.ledger.recorded(count, [step])[0] for one in dataset.layers]
        found += [(step, at) for at in range(count) if masks and all(mask[at] for mask in masks)]
    return found


def _separate(sheet: Sheet) -> None:
    """Give the contents of a file that was written over files of their own."""
    contents = {(row.values[ACTIVATION_PATH], row.values.get(ACTIVATION_DIGEST)): 0
                for row in sheet.rows}  # fmt: skip
    if len({path for path, _ in contents}) == len(contents):
        return
    for row in sheet.rows:
        key = (row.values[ACTIVATION_PATH], row.values.get(ACTIVATION_DIGEST))
        folder = str(key[0]).rpartition("/")[0]
        row.values[ACTIVATION_PATH] = f"{folder}/batch_{list(contents).index(key):06d}"
    sheet.notes.append("files that a resumed run wrote over have numbers of their own")


def _list(sheet: Sheet, *, as_told: bool) -> None:
    """Make the list of samples one that the visualizer can follow."""
    if sheet.info is None or as_told:
        return
    named = [row for row in sheet.rows if SAMPLE_ID in row.values]
    without = len(sheet.info.without)
    if without:
        sheet.notes.append(f"{without} samples without activations are not listed")
    if not sheet.info.keys and named:
        sheet.notes.append("dataset_info.json has a list of samples, which it lacked")
    if without or not sheet.info.keys:
        order = [at for at in sheet.info.order or () if at is not None]
        places = {row.position: n for n, row in enumerate(sheet.rows)}
        listed = [places[at] for at in order] or [places[row.position] for row in named]
        keys = sheet.info.keys or _keys(named)
        head = {**sheet.info.head, "num_samples": len(listed), SAMPLES: None}
        sheet.info = sheet.info.model_copy(
            update={"head": head, "keys": keys, "order": tuple(listed), "without": ()}
        )


def _made(dataset: ImageSet, recorded: list[tuple[int, int]]) -> Sheet:
    """Return rows for a run that was recorded, and never was files."""
    several = len({step for step, _ in recorded}) > 1
    size = dataset.layers[0].spec.tile if dataset.layers else _TILE
    numbers: dict[tuple[int, int], int] = {}
    rows = []
    for step, at in recorded:
        batch = numbers.setdefault((step, at // size), len(numbers))
        values = dict(dataset.samples[at])
        values.setdefault(SAMPLE_ID, f"sample_{at:06d}")
        plain = str(values[SAMPLE_ID])
        told = {
            name: coordinate.values[step]
            for name, coordinate in list(dataset.run.ledger.step_coordinates.items())
            if step in coordinate.values
        }
        for name, picture in ((IMAGE_PATH, IMAGE), (RECONSTRUCTED_PATH, RECONSTRUCTED)):
            if dataset.pictures(picture) is not None:
                folder = dataset.model + ("_reconstructed" if picture == RECONSTRUCTED else "")
                values.setdefault(name, f"images/{folder}/{plain}.png")
        if several:
            values[SAMPLE_ID] = f"{plain}_t{told.get(TIMESTEP, step)}"
        if TIMESTEP in told:
            values[TIMESTEP] = told[TIMESTEP]
        if SIGMA in told:
            values[CONDITIONING_SIGMA] = told[SIGMA]
        values[ACTIVATION_PATH] = f"activations/{dataset.model}/batch_{batch:06d}"
        values[BATCH_INDEX] = at % size
        rows.append(SheetRow(step, at, values))
    notes = ["each step of a sample is a sample of its own, sample_…_t<step>"] if several else []
    if any("guidance" in one.dims for one in dataset.layers):
        notes.append("of guided layers the conditional half is given")
    sheet = Sheet(rows, None, _files(dataset), notes)
    head: Record = {
        "model_type": dataset.model,
        **{key: value for key, value in dataset.run.manifest.metadata.items() if key != "model"},
        "num_samples": len(rows),
        "layers": [str(one.spec.layer) for one in dataset.layers],
        "layer_shapes": {str(one.spec.layer): list(one.spec.tail[-3:]) for one in dataset.layers},
        **({"class_labels": None} if dataset.classes else {}),
        SAMPLES: None,
    }
    sheet.info = KeptInfo(head=head, keys=_keys(rows))
    return sheet


def _keys(rows: list[SheetRow]) -> tuple[str, ...]:
    """Return the keys of samples, in the order of upstream's, others behind them."""
    known = {name for row in rows for name in row.values}
    renamed = {"class_label": CLASS_ID, "class_name": CLASS}
    plain = [key for key in _KEYS if renamed.get(key, key) in known]
    return (*plain, *sorted(known - {renamed.get(key, key) for key in _KEYS} - _OURS))


def _files(dataset: ImageSet) -> KeptFiles:
    layers = tuple(str(one.spec.layer) for one in dataset.layers)
    told = any(ORIGINAL_PATH in one for one in dataset.samples)
    return KeptFiles(layout="batch", layers=layers, keys=_BESIDE if told else ())
