"""What server and clients say to each other: JSON documents, header names, media types.

Clients tolerate members that they do not know, so that a newer server can say more.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from archive_schema.models import Codec, Place, RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPE_HEADER: Final = "X-Trace-Dtype"
SHAPE_HEADER: Final = "X-Trace-Shape"
DIMS_HEADER: Final = "X-Trace-Dims"
STEPS_HEADER: Final = "X-Trace-Steps"
"""The step numbers along the step axis of an answer, as `ranges_text` writes them."""
LAYERS_HEADER: Final = "X-Trace-Layers"
"""The layers along the layer axis of an answer: percent-encoded, with commas between them."""
SCALE_HEADER: Final = "X-Trace-Scale"
OFFSET_HEADER: Final = "X-Trace-Offset"
"""Of quantised values: what was recorded is offset + scale x integer."""
TOP_COLUMNS: Final = frozenset({"row", "column", "value", "rows", "columns", "values"})
"""Columns of every answer to `top`; an axis called so has ``_`` after its name there."""
KIND_HEADER: Final = "X-Trace-Kind"
"""The kind of a problem, also where the answer has no body: `Problem.kind`."""
CONTENT_DIGEST_HEADER: Final = "Content-Digest"
"""The CRC32C of a body, after RFC 9530; bodies of objects have it both ways."""
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


_CRC32C: Final = re.compile(r"(?:^|[,\s])crc32c=:([A-Za-z0-9+/]{6}==):")


class SliceFormat(StrEnum):
    """Formats of a slice."""

    JSON = "json"
    NPY = "npy"
    RAW = "raw"
    NPZ = "npz"
    CSV = "csv"
    ARROW = "arrow"


MEDIA_TYPES: Final[dict[SliceFormat, str]] = {
    SliceFormat.JSON: "application/json",
    SliceFormat.NPY: "application/x-npy",
    SliceFormat.RAW: "application/octet-stream",
    SliceFormat.NPZ: "application/x-npz",
    SliceFormat.CSV: "text/csv",
    SliceFormat.ARROW: "application/vnd.apache.arrow.stream",
}

StepRange: TypeAlias = tuple[int, int, int]
"""Step numbers ``range(start, stop, stride)``."""


class WireDocument(BaseModel):
    """A JSON answer."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class FieldSummary(WireDocument):
    """One field as it is recorded at one step."""

    name: str
    layer: str | None = None
    dims: tuple[str, ...]
    shape: tuple[int | None, ...]
    """None on the axes of a ragged field whose length changes from step to step."""
    dtype: str


class FieldDocument(FieldSummary):
    """One field of a run, over all its recorded steps."""

    place: str
    source_dtype: str
    ragged: bool = False
    steps: tuple[StepRange, ...] = ()
    """Steps at which anything of the field is recorded; empty for inputs and outputs."""
    bytes: int
    """Bytes of the recorded values, as the API gives them."""
    stored_bytes: int
    complete: bool
    """Whether every sample is recorded at every recorded step."""
    attributes: dict[str, JsonValue] = {}


class FieldTable(WireDocument):
    """The fields of one place: trace, inputs or outputs."""

    fields: tuple[FieldDocument, ...]


class LayerDocument(WireDocument):
    """One layer and the fields recorded for it."""

    name: str
    fields: tuple[FieldDocument, ...]


class LayerTable(WireDocument):
    """Every layer of a run."""

    layers: tuple[LayerDocument, ...]


class RunSummary(WireDocument):
    """One run in a list."""

    id: str
    system: str
    status: RunStatus
    created: AwareDatetime
    tags: tuple[str, ...] = ()
    note: str = ""
    """What somebody wrote about it, at any time."""
    metadata: dict[str, JsonValue] = {}
    steps: int
    """Recorded steps."""
    samples: int
    stored_bytes: int


class RunPage(WireDocument):
    """A page of runs; *next* is the cursor of the page after it, if there is one."""

    runs: tuple[RunSummary, ...]
    next: str | None = None
    pending: int = 0
    """Runs that the server has yet to read before it can list them."""


class WriterDocument(WireDocument):
    """One writer of a run, as its latest opening of it goes."""

    name: str
    state: str
    """``recording``, ``lost`` (not heard of for a minute), or how it ended: ``closed``,
    ``failed``, ``refused`` or ``replaced``."""
    reason: str = ""
    host: str = ""
    process: int = 0
    samples: tuple[int, int] | None = None
    """The part that it owns, ``[start, stop)``."""
    opened: AwareDatetime
    heard: AwareDatetime
    """When it was last heard of."""
    tiles: int = 0
    """Tiles that it committed, in all its openings."""


class RunDocument(RunSummary):
    """Everything about a run but its values."""

    uid: str
    step_ranges: tuple[StepRange, ...]
    declared_steps: int | tuple[int, ...] | None = None
    declared_samples: int | None = None
    declared_writers: int | None = None
    writers: tuple[WriterDocument, ...] = ()
    """None of a sealed run, which nobody records any more."""
    step_coordinates: dict[str, str] = {}
    """Name to dtype."""
    sample_coordinates: dict[str, str] = {}
    fields: tuple[FieldDocument, ...] = ()
    layers: tuple[LayerDocument, ...] = ()
    inputs: tuple[FieldDocument, ...] = ()
    outputs: tuple[FieldDocument, ...] = ()
    sealed: AwareDatetime | None = None
    version: str
    """Changes with everything that is recorded; give it to ``changes?since=``."""


class AnnotationsDocument(WireDocument):
    """What of a run may change at any time."""

    tags: tuple[str, ...] = ()
    note: str = ""
    changed: AwareDatetime | None = None
    """None if the tags are the declared ones and there was never a note."""


class AnnotationsPatch(WireDocument):
    """What is to become of a run's annotations; members that are left out stay as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: tuple[str, ...] | None = None
    """In place of all tags; null brings the declared ones back."""
    note: str | None = None
    """null removes it."""


class SyncRequest(WireDocument):
    """Objects of a run that must survive a power cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[tuple[str, ...], Field(max_length=10_000)]
    """Below the run."""


class RunDeclaration(WireDocument):
    """A run that is to be; what is left out is filled in, so that a manifest is one, too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    system: str = "generic"
    steps: int | tuple[int, ...] | None = None
    """Number of steps, or their numbers, or null where it is not known."""
    samples: int | None = None
    metadata: dict[str, JsonValue] = {}
    tags: tuple[str, ...] = ()
    writers: int | None = None
    """How many writers record the run, if that is known."""
    uid: str | None = None
    created: AwareDatetime | None = None
    software: str | None = None
    format: Literal["trace-archive"] = "trace-archive"
    format_version: Literal[1] = 1


class FieldDeclarationDocument(WireDocument):
    """What a field is, before its first values; what is left out follows from dtype and shape."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    """Name of the dtype of its values: ``float32``, ``bfloat16``, ``U8``."""
    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=32)]
    """Of the values that come first, as they will be sent: a batch of samples."""
    place: Literal["trace", "inputs", "outputs"] = "trace"
    dims: tuple[str, ...] | None = None
    """Names of all axes but step; the sample axis, if there is one, is the first."""
    tokens: bool | None = None
    """Whether the values are ids in a vocabulary of at most 256."""
    every: Annotated[int, Field(ge=1)] = 1
    first: Annotated[int, Field(ge=0)] = 0
    """Recorded at positions first, first + every, … of the run's step axis."""
    ragged: bool | None = None
    """Whether the shape differs from step to step."""
    tile: Annotated[int, Field(ge=1)] | None = None
    """Samples in a tile; as many as *shape* has by default."""
    storage: Literal["widen", "bits"] = "widen"
    codec: Codec | None = None
    block: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    attributes: dict[str, JsonValue] = {}


class RemovedDocument(WireDocument):
    """A run that was removed."""

    run: str
    objects: int


class StepDocument(WireDocument):
    """One step: its coordinates and the fields recorded at it."""

    step: int
    coordinates: dict[str, Any]
    fields: tuple[FieldSummary, ...]


class CoordinateTable(WireDocument):
    """Coordinates along the step or the sample axis; *index* numbers the rows."""

    axis: str
    index: tuple[int, ...]
    coordinates: dict[str, tuple[Any, ...]]


class SliceDocument(WireDocument):
    """A slice as JSON; non-finite values are null."""

    run: str
    field: str
    layer: str | None = None
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    steps: tuple[int, ...] = ()
    """Step numbers that were chosen, also by an integer, which drops the axis."""
    layers: tuple[str, ...] = ()
    """Names along the first axis, `layer`, of an answer about several layers."""
    data: Any


class TopDocument(WireDocument):
    """The largest values of a matrix, or of several, largest first."""

    run: str
    field: str
    layer: str | None = None
    dims: tuple[str, ...]
    """What *places* and then *rows* and *columns* number."""
    places: dict[str, tuple[Any, ...]] = {}
    """By axis before rows and columns, where there are several matrices."""
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    values: tuple[Any, ...]


class SliceQuery(WireDocument):
    """One slice among several that are asked for at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    """What the answer calls it; by default the layer and the field."""
    field: str
    layer: str | None = None
    """A glob, ``blocks.*.mlp``, asks for the slice of each layer that matches."""
    place: Place = Place.TRACE
    """Where the field lies; a layer alone says that it is a layer's."""
    select: dict[str, str] = {}
    """Selectors by dimension, its name or its plural, and what coordinates must be:
    ``{"samples": "0:8", "recycle": "3"}``."""


class QueryDocument(WireDocument):
    """Several slices that are wanted in one answer, which has the order in which they are asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slices: Annotated[tuple[SliceQuery, ...], Field(min_length=1, max_length=256)]
    missing: Literal["error", "mask"] = "error"


class PartDocument(WireDocument):
    """One slice in a stream of raw parts."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    steps: tuple[int, ...] = ()
    offset: int
    """Bytes from the end of the description to the first value."""
    nbytes: int


class PartsDocument(WireDocument):
    """What a stream of raw parts begins with, after its own length as a little-endian uint32."""

    parts: tuple[PartDocument, ...]


class Changes(WireDocument):
    """What is new in a run since a version."""

    version: str
    status: RunStatus
    steps: tuple[StepRange, ...]
    """Steps with something new."""
    samples: int
    fields: tuple[str, ...]
    """Fields with something new, as paths: ``trace/score_matrix``."""


class Problem(WireDocument):
    """What went wrong, after RFC 9457; *kind* is an `ErrorKind`."""

    type: str = "about:blank"
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    kind: str
    instance: str | None = None


def content_digest(crc32c: int) -> str:
    """Return ``Content-Digest`` of a body with this CRC32C.

    Examples
    --------
    >>> content_digest(0xE3069283)  # of b"123456789"
    'crc32c=:4waSgw==:'
    """
    return f"crc32c=:{b64encode(crc32c.to_bytes(4, 'big')).decode()}:"


def digested_crc32c(header: str | None) -> int | None:
    """Return the CRC32C that ``Content-Digest: header`` names; None where it names none.

    Examples
    --------
    >>> digested_crc32c("sha-256=:x:, crc32c=:4waSgw==:") == 0xE3069283
    True
    """
    found = _CRC32C.search(header or "")
    return None if found is None else int.from_bytes(b64decode(found[1]), "big")


def step_ranges(steps: Sequence[int]) -> tuple[StepRange, ...]:
    """Return rising *steps* as ranges.

    Examples
    --------
    >>> step_ranges([0, 1, 2, 10, 20, 30, 99])
    ((0, 3, 1), (10, 31, 10), (99, 100, 1))
    """
    ranges: list[StepRange] = []
    at = 0
    while at < len(steps):
        last = at + 1
        stride = steps[last] - steps[at] if last < len(steps) else 1
        while last < len(steps) and steps[last] - steps[last - 1] == stride:
            last += 1
        if last - at == 2 and stride > 1:  # noqa: PLR2004  two steps far apart are no range
            last, stride = at + 1, 1
        ranges.append((steps[at], steps[last - 1] + 1, stride if last - at > 1 else 1))
        at = last
    return tuple(ranges)


def steps_of(ranges: Sequence[StepRange]) -> tuple[int, ...]:
    """Return the steps in *ranges*; the inverse of `step_ranges`."""
    return tuple(step for start, stop, stride in ranges for step in range(start, stop, stride))


def ranges_text(ranges: Sequence[StepRange]) -> str:
    """Write *ranges* in one header line.

    Examples
    --------
    >>> ranges_text([(0, 3, 1), (10, 31, 10), (99, 100, 1)])
    '0:3,10:31:10,99'
    """
    return ",".join(
        str(start)
        if stop - start == 1
        else f"{start}:{stop}" + (f":{stride}" if stride > 1 else "")
        for start, stop, stride in ranges
    )
