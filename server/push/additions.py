"""What one request adds to a run, taken from HTTP and not yet held against the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from archive_schema.models import Place, Scalar
    from archive_schema.wire import FieldDeclarationDocument
    from recorder.snapshot import HostArray

Array: TypeAlias = "HostArray"
"""Values that came, of any dtype that can be recorded."""
Coordinate: TypeAlias = "tuple[str, str, Scalar]"
"""Name, dtype and value."""


@dataclass(frozen=True, slots=True)
class Values:
    """Arrays and step coordinates of one step, or arrays that belong to the whole run."""

    place: Place
    arrays: Mapping[str, Array] = field(default_factory=dict)
    coordinates: tuple[Coordinate, ...] = ()
    step: int = 0
    samples: slice | None = None
    """Which samples of the run the arrays hold; None for all."""
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class SampleValues:
    """Sample coordinates."""

    columns: Mapping[str, NDArray[np.generic]]
    samples: slice | None = None
    """Which samples they belong to; None for samples 0, 1, …."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a field is."""

    place: Place
    layer: str | None
    name: str
    document: FieldDeclarationDocument


Addition: TypeAlias = Values | SampleValues | Declaration
