"""Samples that were generated in the visualizer: their way through the projection, and pictures.

The app keeps where each denoising step lies in the projection, its noise level and its picture, and
throws the activations away. A run of them has a step for each denoising step.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.systems.dmd2 import (
    CLASS,
    CLASS_ID,
    IMAGE,
    IMAGE_PATH,
    MODEL,
    PROJECTION,
    SAMPLE_ID,
    SIGMA,
    SYNSET,
)
from archive_schema.systems.imagenet import class_book
from recorder.importers.dmd2.columns import Columns
from recorder.importers.dmd2.dataset import load_json
from recorder.importers.dmd2.pictures import Pictures
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from pydantic import JsonValue

    from archive_schema.systems.imagenet import ClassOrder
    from recorder.importers.foreign_tree import ForeignTree
    from recorder.importers.source import Progress, Sink

GENERATED: Final = "generated"
_RECORD: Final = re.compile(r"sample_[0-9]+_generated\.json")
_STEPS: Final = "trajectory"


def has_generated(tree: ForeignTree, model: str) -> bool:
    """Return whether anything was generated beside the data set of *model*."""
    return any(map(_RECORD.fullmatch, tree.files(f"activations/{model}", lambda _: False)))


class GeneratedTree:
    """Everything that was generated beside one data set; a sample is one of them."""

    def __init__(self, tree: ForeignTree, model: str, order: ClassOrder | None) -> None:
        self._tree = tree
        self._model = model
        self._book = None if order is None else class_book(order)
        self._columns = Columns()
        self._findings = Findings("generated in the app")
        self._pictures = Pictures(tree, "pictures")
        self._records: list[dict[str, Any]] = []
        self.metadata: dict[str, JsonValue] = {
            MODEL: model,
            "imported": {"format": "tree", "part": GENERATED},
        }
        self.ended = False
        """Somebody may always generate another."""

    @property
    def steps(self) -> list[int]:
        """Denoising steps."""
        return sorted({at for one in self._records for at in range(len(one.get(_STEPS) or ()))})

    @property
    def samples(self) -> int:
        """Samples that were generated."""
        return len(self._records)

    @property
    def files(self) -> int:
        """Records of them."""
        return len(self._records)

    def findings(self) -> Findings:
        """Return what is missing or odd."""
        odd = [*self._findings.odd, *self._columns.odd, *self._pictures.sentences()]
        if self._records:
            odd.append("the app keeps no activations of what it generates: there are no layers")
        return Findings(self._findings.generation, list(self._findings.missing), odd)

    def look(self, sink: Sink, progress: Progress, *, settled: bool) -> bool:
        """Take over records that are new, in the order of their numbers."""
        del settled  # a record is written at once, and is no JSON before that
        folder = f"activations/{self._model}"
        names = sorted(filter(_RECORD.fullmatch, self._tree.files(folder, lambda _: False)))
        before = len(self._records)
        for name in names[before:]:
            try:
                with self._tree.open(f"{folder}/{name}") as file:
                    record, _ = load_json(file)
                    if not isinstance(record, dict):
                        raise file.refuse("expected an object")
            except InvalidInputError as error:
                # Those behind it have to wait: a sample's number is that of its file.
                self._findings.odd = [f"{name} is not whole, and those behind it wait: {error}"]
                break
            self._records.append(record)
            self._hand_over(sink, len(self._records) - 1, record)
            progress(len(self._records), len(names))
        return len(self._records) > before

    def compare(self, sink: Sink, progress: Progress) -> None:
        """Hand over everything that is there."""
        self._records = []
        self.look(sink, progress, settled=True)

    def _hand_over(self, sink: Sink, at: int, record: dict[str, Any]) -> None:
        here = slice(at, at + 1)
        steps = record.get(_STEPS) or []
        told = self._columns.coordinates({k: v for k, v in record.items() if k != _STEPS})
        told[IMAGE_PATH] = f"images/{self._model}/{record.get(SAMPLE_ID)}.png"
        told[_STEPS] = json.dumps(steps)
        if self._book is not None and 0 <= told.get(CLASS_ID, -1) < len(self._book):
            told[SYNSET] = self._book.synsets[told[CLASS_ID]]
            told[CLASS] = self._book.names[told[CLASS_ID]]
        self._columns.put(sink, {at: told})
        for number, step in enumerate(steps):
            place = np.array([[step["x"], step["y"], *([step["z"]] if "z" in step else ())]], float)
            sink.record(number, here, None, **{PROJECTION: place})
            if isinstance(step.get(SIGMA), float):
                sigma = np.array([step[SIGMA]])
                sink.record(number, here, None, sample_sigma=sigma)
            self._put_picture(sink, step.get("image_path"), number, here)
        self._put_picture(sink, told[IMAGE_PATH], None, here)

    def _put_picture(self, sink: Sink, path: str | None, step: int | None, here: slice) -> None:
        pixels = self._pictures.read([path])[0]
        if pixels is None:
            return
        if step is None:
            sink.outputs(here, **{IMAGE: pixels[None]})
        else:
            sink.record(step, here, None, **{IMAGE: pixels[None]})
