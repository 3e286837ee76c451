"""A run's stored Zarr as its commits describe it, for clients that read it by key.

A plain Zarr reader takes a missing object for an empty chunk and cannot list over HTTP. So a
chunk is served only as its commit says, one that is committed and lost is an error and not
absent, and the document of a group carries those of everything below it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
)
from archive_schema.layout import array_path, declared_steps, tile_key, zarr_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from server.query import FieldView, RunView

DOCUMENT: Final = "zarr.json"
_CHUNK: Final = re.compile(r"c((?:\.[0-9]{1,18})*)")
_LONGEST_PART: Final = 255
_DOCUMENT_NBYTES: Final = 4096
"""About what a document has, or a listing."""


@dataclass(frozen=True, slots=True)
class StoredTile:
    """The object of one committed tile, or of the shard that holds many."""

    key: str
    """In the store."""
    name: str
    nbytes: int
    content: str
    """What tells its bytes from others at the same key."""


def check_key(key: str) -> Sequence[str]:
    """Return the parts of *key*, which may not leave the hierarchy nor name a folder of the host.

    Raises
    ------
    InvalidInputError
        ``invalid-name``.
    """
    parts = key.split("/")
    for part in parts:
        printable = part.isprintable() and len(part.encode()) <= _LONGEST_PART
        if part in ("", ".", "..") or "\\" in part or not printable:
            message = f"expected a key such as trace/score_matrix/zarr.json; got {key[:200]!r}"
            raise InvalidInputError(ErrorKind.INVALID_NAME, message)
    return parts


def is_chunk(key: str) -> bool:
    """Return whether *key* names a chunk of an array: ``trace/score/c.0.0.0``."""
    return _CHUNK.fullmatch(key.rpartition("/")[2]) is not None


def field_at(run: RunView, path: str) -> tuple[FieldView, int | None] | None:
    """Return the field whose Zarr array lies at *path*; of a ragged field, the step too."""
    folder, _, _ = path.rpartition("/")
    last = folder.rpartition("/")[2]
    step = int(last) if last.isascii() and last.isdecimal() and len(last) <= 18 else None  # noqa: PLR2004  int64
    for field in run.fields():
        if not field.spec.ragged:
            if array_path(field.spec) == path:
                return field, None
        elif step is not None and array_path(field.spec, step) == path:
            return field, step
    return None


def stored_tile(run: RunView, key: str) -> StoredTile | None:
    """Return the tile whose object has *key*; None if *key* is no chunk of a field.

    Raises
    ------
    NotFoundError
        ``object-not-found`` for a chunk that no commit made visible.
    ConflictError
        ``run-compacted`` for a tile that lies in a shard since: whoever asks for it knows the
        array as it was, and would take what is absent for a fill value.
    """
    path, _, chunk = key.rpartition("/")
    found, match = field_at(run, path), _CHUNK.fullmatch(chunk)
    if found is None or match is None:
        return None
    field, ragged_step = found
    spec = field.spec
    grid = [int(number) for number in match[1].split(".")[1:]]
    position = ragged_step or 0
    step: int | None = position
    if spec.place.stepped and not spec.ragged:
        position = grid.pop(0) if grid else 0
        step = _step_at(run, field, position)
    tile = grid.pop(0) if spec.sampled and grid else 0
    entry = None if step is None else field.ledger.tile(step, tile)
    where = zarr_key(run.manifest.id, key, run.zarr)
    expected = tile_key(run.manifest.id, spec, position, tile, run.zarr)
    if field.shards is not None and where == expected:
        shard = field.shards.entry(position, tile)
        if shard is not None:
            name = field.shards.tile_name(position, tile)
            # Folders of compacted runs are never written twice.
            return StoredTile(where, name, shard.nbytes, str(shard.crc32c))
        if entry is not None:
            message = f"run {run.manifest.id!r} was compacted: open its Zarr anew"
            raise ConflictError(ErrorKind.RUN_COMPACTED, message)
    if step is None or entry is None or where != expected or not entry.nbytes:
        message = f"run {run.manifest.id!r} has no chunk {key!r} that is recorded"
        raise NotFoundError(ErrorKind.OBJECT_NOT_FOUND, message)
    at = f", step {step}" if spec.place.stepped else ""
    name = f"field {field.path!r} of run {run.manifest.id!r}{at}, tile {tile}"
    # Not by CRC32C: of an object whose blocks end with theirs, it is the same whatever
    # the values are (ADR 3).
    return StoredTile(field.tile_key(step, tile), name, entry.nbytes, str(entry.crc32))


def lost(tile: StoredTile) -> FormatError:
    """Return the error for a tile that is committed and not there."""
    return FormatError(ErrorKind.TILE_LOST, f"the object of {tile.name} is lost: {tile.key}")


def cut_short(tile: StoredTile, nbytes: int) -> FormatError:
    """Return the error for a tile that is shorter than its commit says."""
    message = (
        f"the object of {tile.name} is damaged: it is cut short at {nbytes} bytes;"
        f" expected {tile.nbytes} bytes as committed: {tile.key}"
    )
    return FormatError(ErrorKind.TILE_DAMAGED, message)


def group_document(run: RunView, path: str, stored: bytes) -> bytes:
    """Return the document of the group at *path* with all documents below it (consolidated).

    Parameters
    ----------
    path
        Of the group; empty for the root.
    stored
        The document as it is stored. That of an array is returned as it is.
    """
    document = orjson.loads(stored)
    if document.get("node_type") != "group" or "consolidated_metadata" in document:
        return stored
    members = dict(_below(run, path))
    document["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": {name: members[name] for name in sorted(members)},
    }
    return orjson.dumps(document)


def _below(run: RunView, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the documents below a group by their path relative to it, level by level.

    What of a level is asked of a remote store is asked at once.
    """
    store, ahead = run.archive.store, run.archive.reader.ahead
    root = zarr_key(run.manifest.id, path, run.zarr).rstrip("/")
    groups = [root]
    while groups:
        listings = ahead.results((_DOCUMENT_NBYTES, partial(store.folders, at)) for at in groups)
        members = [
            f"{at}/{name}" for at, names in zip(groups, listings, strict=True) for name in names
        ]
        documents = ahead.results((_DOCUMENT_NBYTES, partial(_document, run, at)) for at in members)
        groups = []
        for at, document in zip(members, documents, strict=True):
            if document is None:
                continue
            document.pop("consolidated_metadata", None)
            yield at.removeprefix(f"{root}/"), document
            if document.get("node_type") == "group":
                groups.append(at)


def _document(run: RunView, folder: str) -> dict[str, Any] | None:
    """Return the document in a folder; None in that of an object that is being written."""
    try:
        document: dict[str, Any] = orjson.loads(run.archive.store.read(f"{folder}/{DOCUMENT}"))
    except NotFoundError:
        return None
    return document


def _step_at(run: RunView, field: FieldView, position: int) -> int | None:
    """Return the step at *position* of the field's own step axis; inverse of `step_position`."""
    at = position * field.spec.every + field.spec.first
    axis = declared_steps(run.manifest)
    if axis is None:
        return at
    return axis[at] if at < len(axis) else None
