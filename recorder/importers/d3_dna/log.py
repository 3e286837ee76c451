"""A logger's file as a source: what both formats have in common once they are understood."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.attributes import attribute_to_json
from archive_schema.systems.d3_dna import IMPORTED, NOISE_SCHEDULE
from recorder.importers.d3_dna.axes import Axes
from recorder.importers.d3_dna.generation import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from pydantic import JsonValue

    from archive_schema.systems.attributes import Attribute
    from recorder.importers.source import Findings, Progress, Sink

_LARGEST_TILE: Final = 128
_TILE_NBYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class LoggedField:
    """One array of the file: as it is at one step, or as an input."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    steps: frozenset[int] = frozenset()


@dataclass(slots=True)
class Log:
    """What a survey of a file finds, before any large array is read."""

    format: str
    steps: tuple[int, ...]
    samples: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    schedule: dict[str, Attribute] | None = None
    """None if the file has no noise schedule at all."""
    coordinates: dict[int, dict[str, Attribute]] = field(default_factory=dict)
    """Scalars of each step, by name."""
    traced: list[LoggedField] = field(default_factory=list)
    inputs: list[LoggedField] = field(default_factory=list)
    has_none: bool = False
    """Whether the split is there and is None, as only an NPZ file can say."""


class LogReader(Protocol):
    """Reads arrays of a surveyed file, in the order in which `LogSource.feed` asks for them."""

    def input(self, name: str, start: int | None, stop: int | None) -> NDArray[Any]:
        """Return entries ``[start, stop)`` of an input, or all of it."""

    def traced(self, name: str, step: int, start: int | None, stop: int | None) -> NDArray[Any]:
        """Return samples ``[start, stop)`` of a field at *step*, or all of it."""


class LogSource:
    """A logger's file as the import takes it over."""

    def __init__(self, log: Log, reader: LogReader, odd: list[str]) -> None:
        self._log = log
        self._reader = reader
        self.steps = log.steps
        self.samples = log.samples
        self.tile: int | None = _tile(log)
        self.findings: Findings = describe(log, odd)
        self.metadata: Mapping[str, JsonValue] = self._metadata()
        self._infinite = 0

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand everything over: inputs, then step after step, tile after tile."""
        axes = Axes(self.samples)
        sampled = {
            (place, one.name): self._declare(sink, axes, place, one)
            for place, fields in (
                (Place.INPUTS, self._log.inputs),
                (Place.TRACE, self._log.traced),
            )
            for one in fields
        }
        for one in self._log.inputs:
            self._feed_input(sink, one.name, sampled=sampled[Place.INPUTS, one.name])
        step_nbytes = [
            (one.steps, one.dtype.itemsize * math.prod(one.shape)) for one in self._log.traced
        ]
        total = sum(len(steps) * nbytes for steps, nbytes in step_nbytes)
        done = 0
        for step in self.steps:
            at = [one.name for one in self._log.traced if step in one.steps]
            self._feed_step(
                sink,
                step,
                [name for name in at if sampled[Place.TRACE, name]],
                [name for name in at if not sampled[Place.TRACE, name]],
            )
            done += sum(nbytes for steps, nbytes in step_nbytes if step in steps)
            progress(done, total)
        if self._infinite:
            self.findings.odd.append(
                f"score_matrix: {self._infinite} values are infinite; ratios above 65504 do not"
                " fit float16",
            )

    def _declare(self, sink: Sink, axes: Axes, place: Place, one: LoggedField) -> bool:
        dims = axes.dims(place, one.name, one.shape)
        tokens = axes.holds_tokens(place, one.name) and one.dtype == np.int64
        sink.declare(one.name, place=place, dims=dims, tokens=tokens)
        return dims[:1] == ("sample",)

    def _feed_input(self, sink: Sink, name: str, *, sampled: bool) -> None:
        if not sampled:
            sink.inputs(None, **{name: self._reader.input(name, None, None)})
            return
        for samples in self._tiles():
            values = self._reader.input(name, samples.start, samples.stop)
            sink.inputs(samples=samples, **{name: values})
            if name == "dataset_indices":
                sink.sample_coordinates(samples=samples, dataset_index=values)

    def _feed_step(self, sink: Sink, step: int, sampled: list[str], single: list[str]) -> None:
        sink.record(step, None, None, **self._log.coordinates.get(step, {}))
        if single:
            values = {name: self._reader.traced(name, step, None, None) for name in single}
            sink.record(step, None, None, **values)
        for samples in self._tiles() if sampled else ():
            tile = {
                name: self._reader.traced(name, step, samples.start, samples.stop)
                for name in sampled
            }
            self._infinite += int(np.isinf(tile.get("score_matrix", 0)).sum())
            sink.record(step, samples, None, **tile)

    def _tiles(self) -> list[slice]:
        size = self.tile or self.samples
        return [
            slice(start, min(start + size, self.samples)) for start in range(0, self.samples, size)
        ]

    def _metadata(self) -> dict[str, JsonValue]:
        metadata: dict[str, JsonValue] = {}
        dtypes: dict[str, JsonValue] = {}
        for name, value in self._log.attributes.items():
            metadata[name], dtype = attribute_to_json(value)
            if dtype is not None:
                dtypes[name] = dtype
        if self._log.has_none:
            metadata["split"] = None
        if self._log.schedule is not None:
            schedule: dict[str, JsonValue] = {}
            for name, value in self._log.schedule.items():
                schedule[name], dtype = attribute_to_json(value)
                if dtype is not None:
                    dtypes[f"{NOISE_SCHEDULE}.{name}"] = dtype
            metadata[NOISE_SCHEDULE] = schedule
        metadata[IMPORTED] = {
            "format": self._log.format,
            "generation": self.findings.generation,
            "dtypes": dtypes,
        }
        return metadata


def _tile(log: Log) -> int:
    """Return how many samples a tile holds: enough for few objects, few enough for memory."""
    widest = max(
        (f.dtype.itemsize * math.prod(f.shape[1:]) for f in log.traced if f.shape), default=1
    )
    return max(1, min(log.samples, _LARGEST_TILE, _TILE_NBYTES // max(widest, 1)))
