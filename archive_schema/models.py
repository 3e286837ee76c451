"""The documents of a run: what lies beside its Zarr, as frozen, validated values.

A run is declared once (`RunManifest`), each of its fields once (`FieldSpec`), and
every tile becomes visible through a `Commit`. A `Seal` ends the run.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from archive_schema.errors import ErrorKind, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

FORMAT_VERSION: Final = 1
"""Version of everything that `docs/format.md` describes."""

RESERVED_ENDINGS: Final = (
    ".h5", ".hdf5", ".npz", ".npy", ".json", ".csv", ".arrow", ".fasta", ".txt", ".zip", ".zarr",
)  # fmt: skip
"""Endings that a run id must not have: ``/runs/{id}.h5`` is the run's file."""

_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME: Final = re.compile(r"(?!__)[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")


def check_run_id(run_id: str) -> str:
    """Return *run_id* if it may name a run.

    Raises
    ------
    InvalidInputError
        ``invalid-name``.
    """
    if not _RUN_ID.fullmatch(run_id) or run_id.lower().endswith(RESERVED_ENDINGS):
        shown = run_id if len(run_id) <= 140 else f"{run_id[:140]}… ({len(run_id)} characters)"  # noqa: PLR2004
        message = (
            "expected a run id of 1 to 128 letters, digits, '.', '_' or '-' that begins with a"
            f" letter or digit and does not end in {', '.join(RESERVED_ENDINGS)}; got {shown!r}"
        )
        raise InvalidInputError(ErrorKind.INVALID_NAME, message)
    return run_id


def check_name(name: str) -> str:
    """Return *name* if it may name a field, a coordinate, a dimension or a writer.

    Raises
    ------
    InvalidInputError
        ``invalid-name``.
    """
    if not _NAME.fullmatch(name):
        message = (
            "expected a name of 1 to 128 letters, digits, '_' or '-' that begins with a letter,"
            f" a digit or one '_'; got {name[:140]!r}"
        )
        raise InvalidInputError(ErrorKind.INVALID_NAME, message)
    return name


RunId: TypeAlias = Annotated[str, AfterValidator(check_run_id)]
Name: TypeAlias = Annotated[str, AfterValidator(check_name)]
NonNegative: TypeAlias = Annotated[int, Field(ge=0)]
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Scalar: TypeAlias = bool | int | float | str


class Document(BaseModel):
    """A frozen JSON document with no unknown members; NaN and ±inf are written as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    # Hidden from type checkers, which know the arguments of each document better.
    if not TYPE_CHECKING:

        def __init__(self, **values: object) -> None:
            """Raise the archive's own error for an argument that breaks a rule."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _first_error(error) from error


class RunStatus(StrEnum):
    """What may still happen to a run."""

    RECORDING = "recording"
    SEALED = "sealed"
    INCOMPLETE = "incomplete"
    """Not sealed, and its writer failed or has not been heard of for a while."""


class Place(StrEnum):
    """Where a field lies in the run, which is also the first part of its path."""

    TRACE = "trace"
    LAYERS = "layers"
    INPUTS = "inputs"
    OUTPUTS = "outputs"

    @property
    def stepped(self) -> bool:
        """Whether fields here have a step axis."""
        return self in (Place.TRACE, Place.LAYERS)


class RunManifest(Document):
    """What a run declares when it is created; it never changes.

    ``steps`` is the number of steps 0..steps-1, or the step numbers themselves when
    they are sparse, or None when it is not known beforehand; ``samples`` likewise.
    """

    format: Literal["trace-archive"] = "trace-archive"
    format_version: int = FORMAT_VERSION
    id: RunId
    uid: str
    """Tells this run from another that later has the same id."""
    system: str = "generic"
    created: AwareDatetime
    metadata: dict[str, JsonValue] = {}
    tags: tuple[str, ...] = ()
    steps: NonNegative | tuple[NonNegative, ...] | None = None
    samples: NonNegative | None = None
    writers: Positive | None = None
    """How many writers record the run: it is whole when as many have closed; None if not known."""
    software: str = ""

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if isinstance(self.steps, tuple) and any(
            later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)
        ):
            message = f"expected rising step numbers, got {self.steps}"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        return self


class Codec(Document):
    """How one block is compressed: a Zarr v3 codec and its settings."""

    name: Literal["raw", "zstd", "blosc"] = "zstd"
    level: int = 1
    compressor: Literal["zstd", "lz4"] = "zstd"
    """Blosc only: what it runs inside."""
    shuffle: Literal["noshuffle", "shuffle", "bitshuffle"] = "shuffle"
    """Blosc only."""


class Encoding(StrEnum):
    """How the values that a user sees become the values in the Zarr array."""

    PLAIN = "plain"
    TOKENS = "tokens"
    """int64 for the user, uint8 in the array."""
    BITS = "bits"
    """The bit pattern of a bfloat16 or float8, as an unsigned integer."""


class FieldSpec(Document):
    """The declaration of one field.

    ``dims`` begins with ``step`` for trace and layer fields, then ``sample`` where the
    field has a sample axis. ``tail`` holds the lengths of the other dims. A *ragged*
    field has another shape at each step; its ``tail`` and ``block`` are empty, and its
    tiles carry both.
    """

    place: Place = Place.TRACE
    layer: str | None = None
    name: Name
    dims: tuple[Name, ...]
    tail: tuple[NonNegative, ...] = ()
    dtype: str
    """NumPy name of what the API, the client and exports give."""
    stored_dtype: str
    """NumPy name of what the Zarr array holds."""
    source_dtype: str
    """What the sampler handed over, which may be no NumPy type (``bfloat16``)."""
    encoding: Encoding = Encoding.PLAIN
    tile: NonNegative = 0
    """Samples in a tile; 0 for a field without a sample axis."""
    block: tuple[Positive, ...] = ()
    """Extent of a block along sample (if any) and the tail; it divides a tile evenly."""
    codec: Codec = Codec()
    every: Positive = 1
    """Recorded at positions ``first``, ``first + every``, … of the run's step axis."""
    first: NonNegative = 0
    ragged: bool = False
    attributes: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for holds, expected in self._rules():
            if not holds:
                message = f"field {self.name!r}: expected {expected}; got {self!r}"
                raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, message)
        return self

    def _rules(self) -> Iterator[tuple[bool, str]]:
        leading = (("step",) if self.place.stepped else ()) + (("sample",) if self.tile else ())
        rest = self.dims[len(leading) :]
        yield self.dims[: len(leading)] == leading, f"dims that begin with {leading}"
        yield not {"step", "sample"} & set(rest), f"dims that begin with {leading}"
        yield len(set(self.dims)) == len(self.dims), "dims with distinct names"
        yield (self.layer is None) != (self.place is Place.LAYERS), "a layer for a layer's field"
        if self.ragged:
            yield not (self.tail or self.block or self.tile), "a ragged field without a shape"
            return
        within = self.tile_shape
        yield len(rest) == len(self.tail), f"{len(rest)} lengths for {rest}"
        yield len(self.block) == len(within), f"a block of {len(within)} extents"
        evenly = all(max(n, 1) % b == 0 for n, b in zip(within, self.block, strict=False))
        yield evenly, f"blocks that divide tiles of {within} evenly"

    @property
    def sampled(self) -> bool:
        """Whether the field has a sample axis."""
        return self.tile > 0

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Extent of a whole tile along sample (if any) and the tail."""
        return (self.tile, *self.tail) if self.tile else self.tail

    @property
    def address(self) -> tuple[Place, str | None, str]:
        """What names the field within its run."""
        return (self.place, self.layer, self.name)


class TileColumns(Document):
    """The tiles of one field in a commit or an index, one entry a tile in every column."""

    field: str
    """Path of the field's declaration, as `layout.field_path` gives it."""
    step: tuple[int, ...]
    """Step numbers; 0 for inputs and outputs."""
    tile: tuple[int, ...]
    """Position on the tile grid of the sample axis; 0 without one."""
    samples: tuple[int, ...]
    """Samples in the tile: fewer than the field's ``tile`` only in the last tile."""
    nbytes: tuple[int, ...]
    """Length of the stored object; 0 where nothing is stored, as for an empty array."""
    aside: tuple[str, ...] | None = None
    """Keys, below the run, of objects that lie aside, ``""`` for those at home; None if all do."""
    crc32c: tuple[int, ...]
    """CRC32C of the stored object."""
    crc32: tuple[int, ...]
    """CRC-32 (zlib's) of the values as the API gives them, little-endian, C order, no padding."""
    blocks: tuple[tuple[int, ...], ...]
    """Stored length of each block in C order; they lie back to back from offset 0."""
    shape: tuple[tuple[int, ...], ...] | None = None
    """Ragged fields only: the shape at that step."""
    block: tuple[tuple[int, ...], ...] | None = None
    """Ragged fields only: the extent of a block at that step."""

    def without(self, gone: Collection[tuple[int, int]]) -> Self:
        """Return the columns without the tiles in *gone*, each a step and a tile."""
        kept = [
            at for at, tile in enumerate(zip(self.step, self.tile, strict=True)) if tile not in gone
        ]
        columns = {name: getattr(self, name) for name in type(self).model_fields if name != "field"}
        return self.model_copy(
            update={
                name: None if column is None else tuple(column[at] for at in kept)
                for name, column in columns.items()
            }
        )


class StepColumn(Document):
    """Values of one step coordinate."""

    name: Name
    dtype: str
    step: tuple[int, ...]
    value: tuple[Any, ...]


class SampleColumn(Document):
    """Values of one sample coordinate, for samples ``[start, start + len(value))``."""

    name: Name
    dtype: str
    start: NonNegative
    value: tuple[Any, ...]


class Withdrawal(Document):
    """Tiles that one commit named and that count as not recorded since, because they are lost.

    It names the commit, so that the same tiles may be recorded again by a later one, and every
    reader knows which holds, in whatever order it reads.
    """

    writer: Name
    epoch: NonNegative
    sequence: NonNegative
    field: str
    step: tuple[int, ...]
    tile: tuple[int, ...]


End: TypeAlias = Literal["closed", "failed", "refused", "repaired", "replaced", "sealed"]
"""How an epoch ended: its writer closed, gave up, or was refused before it recorded anything; it
only repaired; it was replaced; or the run was sealed."""


class Commit(Document):
    """Makes tiles and coordinates visible. Commits of one epoch are numbered from 0, gapless.

    A commit with an ``end`` is the last of its epoch: the writer's own word, or that of somebody
    who took over its part or sealed the run. As its number is taken, nothing can follow it.
    """

    writer: Name
    epoch: NonNegative
    sequence: NonNegative
    time: AwareDatetime
    tiles: tuple[TileColumns, ...] = ()
    steps: tuple[StepColumn, ...] = ()
    samples: tuple[SampleColumn, ...] = ()
    withdrawn: tuple[Withdrawal, ...] = ()
    """Tiles of other commits that are lost or damaged; only repairing puts any."""
    end: End | None = None
    reason: str = ""
    """Of the end, for people."""


class Index(Document):
    """All commits of a sealed run in one document."""

    fields: tuple[FieldSpec, ...]
    tiles: tuple[TileColumns, ...]
    steps: tuple[StepColumn, ...] = ()
    samples: tuple[SampleColumn, ...] = ()


class Claim(Document):
    """One opening of a run by one writer."""

    writer: Name
    epoch: NonNegative
    nonce: str
    time: AwareDatetime
    host: str = ""
    process: int = 0
    samples: tuple[NonNegative, NonNegative] | None = None
    """The samples ``[start, stop)`` that this writer owns; None if it did not say."""


class Heartbeat(Document):
    """The latest word of one writer."""

    writer: Name
    epoch: NonNegative
    time: AwareDatetime
    state: Literal["recording", "closed", "failed"] = "recording"
    error: str = ""


class Sealing(Document):
    """Somebody has begun to seal the run: from here no opening of it succeeds."""

    time: AwareDatetime
    host: str = ""
    process: int = 0


class Seal(Document):
    """The end of a run: what is not in its index is not in the run."""

    time: AwareDatetime
    generation: NonNegative = 0
    """Which rewriting of the run's tiles is current; 0 is as recorded."""
    zarr: str = "trace.zarr"
    index: str
    """Key of the `Index`, relative to the run."""
    index_crc32c: NonNegative
    samples: NonNegative
    tiles: NonNegative
    nbytes: NonNegative


def _first_error(error: ValidationError) -> InvalidInputError:
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    where = ".".join(map(str, first["loc"]))
    message = f"{error.title}.{where}: {first['msg']}, got {first['input']!r:.200}"
    return InvalidInputError(ErrorKind.INVALID_PARAMETER, message)


def json_value(value: Scalar) -> Scalar:
    """Return *value* as JSON can hold it: a non-finite float becomes its name.

    Examples
    --------
    >>> json_value(float("inf")), json_value(1.5)
    ('Infinity', 1.5)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
