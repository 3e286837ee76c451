"""What lies between a system's importer and the archive: a source of values, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike
    from pydantic import JsonValue

    from archive_schema.models import Place
    from recorder.recorded import Recorded

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many values' bytes have been taken over, and how many there are."""


class Sink(Protocol):
    """Takes what an importer reads. `TraceRecorder` is one."""

    def declare(
        self,
        name: str,
        *,
        layer: str | None = ...,
        place: Place | None = ...,
        dims: tuple[str, ...] | None = ...,
        tokens: bool | None = ...,
        ragged: bool | None = ...,
        tile: int | None = ...,
    ) -> None:
        """Say what a field is before its values come."""

    def record(
        self, n: int, samples: slice | None = ..., layer: str | None = ..., **values: Any
    ) -> None:
        """Take scalars and arrays of step *n*; arrays are fields of *layer*, if it is given."""

    def inputs(self, samples: slice | None = ..., **arrays: ArrayLike) -> None:
        """Take inputs, of *samples* or as a whole."""

    def outputs(self, samples: slice | None = ..., **arrays: ArrayLike) -> None:
        """Take outputs, of *samples* or as a whole."""

    def sample_coordinates(self, samples: slice | None = ..., **values: ArrayLike) -> None:
        """Take one value a sample."""

    def recorded(self) -> Recorded:
        """Return which tiles are there already, and need not be read again."""


@dataclass(slots=True)
class Findings:
    """What an importer has to say about a file; it grows while the file is read."""

    generation: str
    missing: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    files: int = 1
    """How many files were understood."""


class Source(Protocol):
    """One foreign file, or tree of files, understood as a run."""

    @property
    def metadata(self) -> Mapping[str, JsonValue]:
        """The run's metadata."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Step numbers, rising."""

    @property
    def samples(self) -> int:
        """Length of the sample axis."""

    @property
    def tile(self) -> int | None:
        """Samples in a tile, as `feed` hands them over."""

    @property
    def findings(self) -> Findings:
        """What is missing or odd."""

    def feed(self, sink: Sink, progress: Progress) -> None:
        """Hand everything over, always in the same pieces and with bounded memory."""
