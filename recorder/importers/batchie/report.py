"""What is missing or odd in the plate folders of a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from archive_schema.systems.batchie import DISTANCES, EVALUATION, SCORES, THETAS, kind_of
from recorder.importers.batchie.loading import LoadedFile, path_of
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(slots=True)
class Folder:
    """What was found in one plate folder."""

    name: str
    complete: bool = False
    """Whether the file is there that is written last."""
    layers: dict[str, str] = field(default_factory=dict)
    """What is held, and what tells its rows from others."""
    pending: list[str] = field(default_factory=list)
    """Files that are there, and perhaps not whole yet."""
    broken: dict[str, str] = field(default_factory=dict)
    """Files that cannot be read, and why."""
    left_out: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    thetas: int = 0
    pairs: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def take(self, loaded: LoadedFile) -> None:
        """Take note of a file that was taken over."""
        self.layers[loaded.layer] = loaded.rows_digest
        self.broken.pop(path_of(loaded.layer), None)
        self.odd += [sentence for sentence in loaded.odd if sentence not in self.odd]
        if loaded.pairs is not None:
            self.thetas, self.pairs[loaded.layer] = loaded.pairs


def describe(folders: Mapping[tuple[int, int], Folder], redone: list[str]) -> Findings:
    """Return what is missing and odd in all folders."""
    findings = Findings("tree", odd=list(redone))
    training = {
        digest: f"{folder.name}/{layer}"
        for folder in folders.values()
        for layer, digest in folder.layers.items()
        if layer == "training.screen"
    }
    for (_, plate), folder in sorted(folders.items()):
        missing = [*_missing_files(folder, first=plate == 0), *_missing_pairs(folder)]
        findings.missing += [f"{folder.name}: {sentence}" for sentence in missing]
        odd = [*folder.odd, *_odd_files(folder)]
        rows = training.get(folder.layers.get("model_evaluation", ""))
        if rows is not None:
            odd.append(f"the model is evaluated on the rows of {rows}, which it was trained on")
        findings.odd += [f"{folder.name}: {sentence}" for sentence in odd]
    return findings


def _missing_files(folder: Folder, *, first: bool) -> list[str]:
    missing = [] if folder.complete else ["not finished: no screen_metadata.json"]
    wanted = {"selected_plate", "advanced_screen"} - set(folder.layers)
    missing += [f"no {layer}" for layer in sorted(wanted)]
    kinds = (THETAS, DISTANCES, EVALUATION, SCORES) if first else (SCORES,)
    for kind in kinds:
        numbers = sorted(kind.number(layer) for layer in folder.layers if kind_of(layer) is kind)
        if not numbers:
            missing.append(f"no {kind.name}")
        elif kind.parts and numbers != list(range(numbers[-1] + 1)):
            lacking = sorted(set(range(numbers[-1])) - set(numbers))
            missing.append(f"no {kind.name} {', '.join(map(str, lacking))}")
    return missing


def _missing_pairs(folder: Folder) -> list[str]:
    if not folder.pairs:
        return []
    rows, columns = np.divmod(np.concatenate(list(folder.pairs.values())), max(folder.thetas, 1))
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    found = len(np.unique((high * folder.thetas + low)[low < high]))
    wanted = folder.thetas * (folder.thetas - 1) // 2
    return [f"{wanted - found} of {wanted} distances"] if found < wanted else []


def _odd_files(folder: Folder) -> list[str]:
    odd = [f"{path} is not whole: {reason}" for path, reason in sorted(folder.broken.items())]
    if folder.left_out:
        odd.append(f"no files of BATCHIE, left out: {', '.join(folder.left_out)}")
    return odd
