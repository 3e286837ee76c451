"""Metadata documents of foreign Zarr arrays, versions 2 and 3, checked before Zarr acts on them.

A codec is a program that a file names: ``pickle`` would run whatever the file says. So only codecs
that do no more than decode are let through.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

V2_ARRAY, V2_GROUP, V2_ATTRIBUTES = ".zarray", ".zgroup", ".zattrs"
V3_DOCUMENT: Final = "zarr.json"
DOCUMENTS: Final = frozenset((V2_ARRAY, V2_GROUP, V2_ATTRIBUTES, ".zmetadata", V3_DOCUMENT))
_V2_CODECS: Final = frozenset(
    ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "vlen-utf8")
)
_V3_CODECS: Final = frozenset(
    ("bytes", "blosc", "gzip", "zstd", "crc32c", "transpose", "sharding_indexed", "vlen-utf8")
)
_SHARDING: Final = "sharding_indexed"
_DIMENSIONS: Final = "_ARRAY_DIMENSIONS"
"""Where Zarr 2 files of xarray name their axes."""


class BadMetadataError(ValueError):
    """A document that is no metadata, or asks for more than decoding."""


@dataclass(frozen=True, slots=True)
class ZarrDocument:
    """What a group's or an array's metadata says, as far as an import asks."""

    version: Literal[2, 3]
    attributes: Mapping[str, JsonValue]
    shape: tuple[int, ...] | None = None
    """None of a group."""
    chunks: tuple[int, ...] = ()
    """What is one stored object: a chunk, or a shard."""
    decoded: tuple[int, ...] = ()
    """What is decoded at once: a chunk, within a shard too."""
    dims: tuple[str, ...] | None = None

    @property
    def objects(self) -> int:
        """How many objects hold the values, if all are stored."""
        pairs = zip(self.shape or (), self.chunks, strict=True)
        return math.prod(-(-length // chunk) for length, chunk in pairs)


def parse_v2(array: bytes | None, attributes: bytes | None) -> ZarrDocument:
    """Read ``.zarray`` (None of a group) and ``.zattrs`` of one folder.

    Raises
    ------
    BadMetadataError
        Saying what was expected.
    """
    said = {} if attributes is None else _object(attributes)
    if array is None:
        return ZarrDocument(2, said)
    found = _object(array)
    codecs = [found.get("compressor"), *(found.get("filters") or ())]
    named = [codec.get("id") if isinstance(codec, dict) else codec for codec in codecs if codec]
    _check_codecs(named, _V2_CODECS)
    if "O" in str(found.get("dtype")) and "vlen-utf8" not in named:
        raise BadMetadataError("expected numbers or text, got objects")
    shape, chunks = _lengths(found, "shape", 0), _lengths(found, "chunks", 1)
    if len(shape) != len(chunks):
        raise BadMetadataError(f"expected chunks with {len(shape)} axes, got {chunks}")
    return ZarrDocument(2, said, shape, chunks, chunks, _names(said.get(_DIMENSIONS), shape))


def parse_v3(document: bytes) -> ZarrDocument:
    """Read a ``zarr.json``; errors as `parse_v2`."""
    found = _object(document)
    said = found.get("attributes") or {}
    if not isinstance(said, dict) or found.get("zarr_format") != 3:  # noqa: PLR2004  its version
        raise BadMetadataError(f"expected zarr_format 3, got {found.get('zarr_format')!r}")
    if found.get("node_type") == "group":
        return ZarrDocument(3, said)
    grid = found.get("chunk_grid")
    if not isinstance(grid, dict) or grid.get("name") != "regular":
        raise BadMetadataError(f"expected a regular chunk grid, got {grid!r:.100}")
    shape = _lengths(found, "shape", 0)
    chunks = _lengths(grid.get("configuration") or {}, "chunk_shape", 1)
    if len(shape) != len(chunks):
        raise BadMetadataError(f"expected chunks with {len(shape)} axes, got {chunks}")
    decoded = _check_v3_codecs(found.get("codecs"), chunks)
    dims = _names(found.get("dimension_names"), shape)
    return ZarrDocument(
        3, said, shape, chunks, decoded, dims or _names(said.get(_DIMENSIONS), shape)
    )


def _check_v3_codecs(codecs: object, decoded: tuple[int, ...]) -> tuple[int, ...]:
    """Check the codecs, those inside a shard too; return what is decoded at once."""
    if not isinstance(codecs, list):
        raise BadMetadataError(f"expected a list of codecs, got {codecs!r:.100}")
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        _check_codecs([name], _V3_CODECS)
        if name == _SHARDING:
            inside = codec.get("configuration") or {}
            _check_v3_codecs(inside.get("index_codecs"), ())
            return _check_v3_codecs(inside.get("codecs"), _lengths(inside, "chunk_shape", 1))
    return decoded


def _check_codecs(names: list[Any], known: frozenset[str]) -> None:
    for name in names:
        if name not in known:
            expected = ", ".join(sorted(known))
            raise BadMetadataError(f"expected a codec of {expected}; got {name!r:.60}")


def _object(document: bytes) -> dict[str, Any]:
    try:
        # What JSON has no number for is told as everywhere in a manifest: "NaN", "Infinity".
        found = json.loads(document, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise BadMetadataError(f"expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadMetadataError(f"expected a JSON object, got {type(found).__name__}")
    return found


def _lengths(found: Mapping[str, Any], name: str, least: int) -> tuple[int, ...]:
    lengths = found.get(name)
    if not isinstance(lengths, list) or any(type(n) is not int or n < least for n in lengths):
        raise BadMetadataError(f"expected {name} as lengths, got {lengths!r:.100}")
    return tuple(lengths)


def _names(found: object, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    if not isinstance(found, list) or len(found) != len(shape):
        return None
    return tuple(map(str, found)) if all(isinstance(name, str) for name in found) else None
