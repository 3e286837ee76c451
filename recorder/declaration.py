"""From a field's first values to its declaration: axes, dtypes, tile, block and codec.

Pure, and deterministic but for what the caller settles: two writers that see equal batches
declare a field equally.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from archive_schema.dtypes import is_text, numpy_dtype, storage_of
from archive_schema.errors import ConflictError, ErrorKind, invalid
from archive_schema.layout import choose_block, encode_layer
from archive_schema.models import Codec, FieldSpec, Place
from recorder.codec_choice import default_codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from archive_schema.systems.declaration import FieldDeclaration

Address: TypeAlias = tuple[Place, str | None, str]

RESERVED: Final = ("step", "sample", "recorded")
MASK_ENDING: Final = "_recorded"
_LONGEST_LAYER: Final = 240
"""A file's name has at most 255 bytes, on disk and behind most object stores."""


@dataclass(frozen=True, slots=True)
class FieldOptions:
    """What a caller settles about a field before its first values; the rest follows from them.

    *dims* name all axes but step; *first* and *every* count positions of the run's step axis.
    """

    dims: tuple[str, ...] | None = None
    tokens: bool | None = None
    every: int = 1
    first: int = 0
    ragged: bool | None = None
    tile: int | None = None
    storage: Literal["widen", "bits"] = "widen"
    codec: Codec | None = None
    block: tuple[int, ...] | None = None
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)

    def within(self, declared: FieldDeclaration | None) -> FieldOptions:
        """Fill in what the caller left open and the system declares."""
        if declared is None:
            return self
        return replace(
            self,
            dims=declared.dims if self.dims is None else self.dims,
            tokens=declared.tokens if self.tokens is None else self.tokens,
            ragged=declared.ragged if self.ragged is None else self.ragged,
        )


def first_declaration(
    address: Address,
    options: FieldOptions,
    source: str,
    shape: tuple[int, ...],
    *,
    sampled: bool,
    tile: int,
) -> FieldSpec:
    """Declare a field from its first values.

    Parameters
    ----------
    source
        Name of the dtype.
    shape
        All axes but step.
    sampled : bool
        Whether the first axis is the sample axis, where *options* do not name the axes.
    tile : int, samples
        Size of a tile if the field has a sample axis and *options* set none.

    Raises
    ------
    InvalidInputError
        ``dtype-mismatch``, ``shape-mismatch`` or ``invalid-name``.
    """
    place, layer, name = address
    tile = options.tile or tile
    check_free(name)
    _check_layer(layer)
    storage = storage_of(source, tokens=bool(options.tokens), narrow=options.storage)
    ragged = bool(options.ragged) and place.stepped
    dims = options.dims
    if dims is None:
        dims = _default_dims(shape, sampled=sampled, ragged=ragged)
    if len(dims) != len(shape):
        message = f"field {name!r}: expected axes {dims}, got shape {shape}"
        raise invalid(ErrorKind.SHAPE_MISMATCH, message)
    has_samples = not ragged and dims[:1] == ("sample",)
    tail = () if ragged else shape[1:] if has_samples else shape
    block: tuple[int, ...] = ()
    if not ragged:
        within = (tile, *tail) if has_samples else tail
        block = options.block or choose_block(within, numpy_dtype(storage.stored).itemsize)
    return FieldSpec(
        place=place,
        layer=layer,
        name=name,
        dims=(("step",) if place.stepped else ()) + dims,
        tail=tail,
        dtype=storage.dtype,
        stored_dtype=storage.stored,
        source_dtype=storage.source,
        encoding=storage.encoding,
        tile=tile if has_samples else 0,
        block=block,
        codec=options.codec or default_codec(storage, block),
        every=options.every,
        first=options.first,
        ragged=ragged,
        attributes=dict(options.attributes),
    )


def check_agrees(spec: FieldSpec, options: FieldOptions) -> None:
    """Refuse options that contradict a declaration which is there already.

    Raises
    ------
    ConflictError
        ``field-differs``.
    """
    storage = storage_of(spec.source_dtype, tokens=bool(options.tokens), narrow=options.storage)
    now: dict[str, tuple[object, object]] = {
        "dims": (spec.dims[1:] if spec.place.stepped else spec.dims, options.dims),
        "every": (spec.every, options.every),
        "first": (spec.first, options.first),
        "ragged": (spec.ragged, options.ragged),
        "codec": (spec.codec, options.codec),
        "block": (spec.block, options.block),
        "encoding": (spec.encoding, storage.encoding),
    }
    differing = [
        f"{name} {known!r}, now {wanted!r}"
        for name, (known, wanted) in now.items()
        if wanted is not None and wanted != known
    ]
    if differing:
        message = f"field {spec.name!r} is declared otherwise: {'; '.join(differing)}"
        raise ConflictError(ErrorKind.FIELD_DIFFERS, message)


def same_but_chosen(first: FieldSpec, second: FieldSpec) -> bool:
    """Return whether two declarations differ in nothing but what a recorder chooses freely."""
    chosen = {"codec": second.codec, "block": second.block, "attributes": second.attributes}
    return first.model_copy(update=chosen) == second


def check_free(name: str) -> None:
    """Refuse a name that an index coordinate or a mask has.

    Raises
    ------
    InvalidInputError
        ``invalid-name``.
    """
    if name in RESERVED or name.endswith(MASK_ENDING):
        message = (
            f"expected a name other than {', '.join(RESERVED)} and without the ending"
            f" {MASK_ENDING!r}, which index coordinates and masks have; got {name!r}"
        )
        raise invalid(ErrorKind.INVALID_NAME, message)


def _check_layer(layer: str | None) -> None:
    """Refuse a layer whose name is no name of a folder."""
    if layer is not None and not 1 <= len(encode_layer(layer)) <= _LONGEST_LAYER:
        message = (
            f"expected a layer with a name of 1 to {_LONGEST_LAYER} characters, where all but"
            f" letters, digits, '.', '_' and '-' count as three or more; got {layer!r:.100}"
        )
        raise invalid(ErrorKind.INVALID_NAME, message)


def text_fits(source: str, declared: str) -> bool:
    """Return whether *source* is a text dtype no longer than the declared one."""
    return (
        is_text(source)
        and is_text(declared)
        and source[0] == declared[0]
        and int(source[1:]) <= int(declared[1:])
    )


def _default_dims(shape: tuple[int, ...], *, sampled: bool, ragged: bool) -> tuple[str, ...]:
    """Name axes by their lengths, so that arrays of a group agree on every name's length."""
    if ragged:
        return tuple(f"axis_{at}" for at in range(len(shape)))
    lead = ("sample",) if sampled and shape else ()
    seen: Counter[int] = Counter()
    names: list[str] = []
    for length in shape[len(lead) :]:
        seen[length] += 1
        names.append(f"dim_{length}" + (f"_{seen[length]}" if seen[length] > 1 else ""))
    return (*lead, *names)
