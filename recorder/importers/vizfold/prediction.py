"""One prediction, understood as a run: pieces of it that are read when it is their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.vizfold import RECYCLE

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from recorder.importers.source import Findings, Progress, Sink


@dataclass(frozen=True, slots=True)
class Value:
    """Values of one field, at one step if it has steps."""

    place: Place
    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    layer: str | None = None
    step: int = 0


Piece: TypeAlias = Callable[[], Iterable[Value]]
"""Reads a file, or several that belong together."""


@dataclass(slots=True)
class Prediction:
    """The files of one prediction. A file that cannot be read is odd, and the others are taken."""

    metadata: dict[str, JsonValue]
    pieces: list[Piece]
    found: Findings
    files: int
    recycles: dict[int, int] = field(default_factory=dict)
    """The pass that each step is, where it is known."""
    samples: int = 0
    _steps: set[int] = field(default_factory=set)
    _taken: dict[tuple[Place, str | None, str, int], bytes] = field(default_factory=dict)
    """What tells the values that were handed over."""
    _broken: set[int] = field(default_factory=set)
    """Positions of pieces that could not be read."""

    @property
    def steps(self) -> Collection[int]:
        """Steps that anything was recorded at."""
        return self._steps

    @property
    def ended(self) -> bool:
        """Whether every file could be read: else a better one may still come."""
        return not self._broken

    def findings(self) -> Findings:
        """Return what is missing or odd."""
        return self.found

    def look(self, sink: Sink, progress: Progress, *, settled: bool) -> bool:
        """Hand over everything; return whether there was anything."""
        del settled
        self.compare(sink, progress)
        return bool(self._steps)

    def compare(self, sink: Sink, progress: Progress) -> None:
        """Hand over everything, with the axes of one name of one length in each layer."""
        lengths: dict[tuple[Place, str | None, str], int] = {}
        self._taken.clear()
        for at, piece in enumerate(self.pieces):
            progress(at, len(self.pieces))
            try:
                for value in piece():
                    if self._is_new(value):
                        self._hand_over(sink, value, lengths)
            except InvalidInputError as error:
                if at not in self._broken:
                    self._broken.add(at)
                    self.found.odd.append(f"{error}: left out")
        progress(len(self.pieces), len(self.pieces))

    def _is_new(self, value: Value) -> bool:
        """Return whether no other file held the same; say so if one held something else."""
        address = (value.place, value.layer, value.name, value.step)
        digest = blake2b(np.ascontiguousarray(value.values).data, digest_size=16).digest()
        known = self._taken.setdefault(address, digest)
        if known is digest:
            return True
        if known != digest:
            where = f"{value.layer or value.place} {value.name}"
            self.found.odd.append(f"two files hold {where}, and differ: the first is taken")
        return False

    def _hand_over(
        self, sink: Sink, value: Value, lengths: dict[tuple[Place, str | None, str], int]
    ) -> None:
        dims = []
        for dim, length in zip(value.dims, value.values.shape, strict=True):
            known = lengths.setdefault((value.place, value.layer, dim), length)
            dims.append(dim if known == length else f"{dim}_{length}")
        sink.declare(value.name, layer=value.layer, place=value.place, dims=tuple(dims))
        named = {value.name: value.values}
        if value.place is Place.INPUTS:
            sink.inputs(None, **named)
        elif value.place is Place.OUTPUTS:
            sink.outputs(None, **named)
        else:
            if value.step not in self._steps and value.step in self.recycles:
                sink.record(value.step, None, None, **{RECYCLE: self.recycles[value.step]})
            self._steps.add(value.step)
            sink.record(value.step, None, value.layer, **named)
