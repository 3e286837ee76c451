"""The best entries of a parameter sweep: each is a step, each file that it holds a layer."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.systems.kept_file import CONTENT
from archive_schema.systems.vizfold import IMPORTED
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from recorder.importers.source import Progress, Sink
    from recorder.importers.vizfold_archives.arrays import ForeignArchive, ForeignArray

_ENTRIES: Final = "best_entries"
_ENTRY: Final = re.compile(rf"{_ENTRIES}/(?P<entry>[^/]+)/(?:artifacts/)?(?P<rest>.+)")
_BYTES: Final = "bytes"
"""Array of the bytes of a file, in a group of the file's path."""
_COORDINATES: Final = ("score", "score_delta", "step_index")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def is_sweep(archive: ForeignArchive) -> bool:
    """Return whether *archive* holds the best entries of a sweep."""
    return any(path.startswith(f"{_ENTRIES}/") for path in (*archive.attributes, *archive.arrays))


class SweepSource:
    """A sweep as the import takes it over."""

    samples = 0
    tile: int | None = None

    def __init__(self, archive: ForeignArchive) -> None:
        self._entries: dict[str, Mapping[str, JsonValue]] = {}
        self._arrays: dict[str, list[tuple[str, ForeignArray]]] = {}
        self.findings = Findings(
            f"sweep ({archive.container})", list(archive.missing), list(archive.odd)
        )
        for path, said in archive.attributes.items():
            prefix, _, entry = path.partition("/")
            if prefix == _ENTRIES and entry and "/" not in entry:
                self._entries[entry] = said
        for path, array in archive.arrays.items():
            match = _ENTRY.fullmatch(path)
            if match is None:
                self.findings.odd.append(f"{path} {array.shape} has no place: left out")
                continue
            self._entries.setdefault(match["entry"], {})
            self._arrays.setdefault(match["entry"], []).append((match["rest"], array))
        self._order = sorted(self._entries, key=self._rank)
        self.steps: tuple[int, ...] = tuple(range(len(self._order)))
        about: dict[str, JsonValue] = {"format": self.findings.generation}
        best: dict[str, JsonValue] = {
            name: dict(said) for name, said in self._entries.items() if said
        }
        self.metadata: Mapping[str, JsonValue] = {_ENTRIES: best, IMPORTED: about}

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand over one entry after the other."""
        total = sum(array.nbytes for arrays in self._arrays.values() for _, array in arrays)
        done = 0
        for step, entry in enumerate(self._order):
            said = self._entries[entry]
            numbers = {name: said.get(name) for name in _COORDINATES}
            known = {
                name: float(value)
                for name, value in numbers.items()
                if isinstance(value, (int, float)) and math.isfinite(value)
            }
            sink.record(step, None, None, entry=entry, **known)
            for path, array in self._arrays.get(entry, []):
                self._feed_array(sink, step, path, array)
                done += array.nbytes
                progress(done, total)

    def _feed_array(self, sink: Sink, step: int, path: str, array: ForeignArray) -> None:
        folder, _, name = path.rpartition("/")
        layer, field = folder.replace("files/", "", 1) or "artifacts", name
        dims = tuple(f"axis_{at}" for at in range(len(array.shape)))
        if name == _BYTES:
            field, dims = CONTENT, ("byte",)
        if not _NAME.fullmatch(field) or len(dims) != len(array.shape):
            sentence = f"{array.path} {array.shape} has no place: left out"
            if sentence not in self.findings.odd:
                self.findings.odd.append(sentence)
            return
        sink.declare(field, layer=layer, dims=dims, ragged=True)
        values: Any = np.asarray(array.read(None, None))
        sink.record(step, None, layer, **{field: values})

    def _rank(self, entry: str) -> tuple[float, str]:
        index = self._entries[entry].get("step_index")
        return (float(index) if isinstance(index, (int, float)) else math.inf, entry)
