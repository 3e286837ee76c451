"""From an accepted tile to a stored object: declare its field, encode it, create it.

The tile is not visible yet: a commit does that. Who finds that the tile is there already

1. compares with what this process or a commit holds: the same values are nothing to do,
   other values a conflict, and the first stay;
2. otherwise has most likely met the object of a writer that died before it committed: a writer
   that is still heard of is given time to commit, and then the tile goes aside. No object is ever
   overwritten: whoever wakes up late can harm nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from archive_schema.codecs import EncodedTile, decode_tile, encode_tile
from archive_schema.documents import read_document
from archive_schema.dtypes import numpy_dtype, to_stored
from archive_schema.errors import (
    AccessError,
    ConflictError,
    ErrorKind,
    NotFoundError,
    StorageError,
)
from archive_schema.layout import (
    aside_key,
    choose_block,
    field_key,
    field_path,
    run_prefix,
    step_position,
    stored_keys,
)
from archive_schema.models import FieldSpec
from archive_schema.records import declare_field
from recorder.codec_choice import worthwhile_codec
from recorder.declaration import same_but_chosen
from recorder.presence import other_writers, overlap

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from numpy.typing import NDArray

    from archive_schema.models import Claim
    from archive_schema.records import RunRecords
    from archive_schema.store import Store
    from recorder.documents import ZarrDocuments
    from recorder.fields import RecordedField
    from recorder.snapshot import Snapshot

_OTHERS_COMMIT_S: Final = 5.0
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class AcceptedTile:
    """A tile that the caller handed over: copied, or being copied."""

    field: RecordedField
    step: int
    tile: int
    start: int
    stop: int
    snapshot: Snapshot
    cost: int
    """Bytes of the budget that it holds."""


@dataclass(frozen=True, slots=True)
class StoredTile:
    """A tile whose object is in the store."""

    spec: FieldSpec
    """The declaration under which it was encoded."""
    path: str
    key: str
    step: int
    tile: int
    samples: int
    nbytes: int
    crc32c: int
    crc32: int
    blocks: tuple[int, ...]
    shape: tuple[int, ...] | None
    """Ragged fields only, as `block`."""
    block: tuple[int, ...] | None
    aside: str = ""
    """Key of the object below the run, where *key* was taken."""


class TileEncoder:
    """Does the work of one tile; any number of threads may call it.

    Parameters
    ----------
    records
        What is committed; read and refreshed under *lock* only.
    """

    def __init__(
        self, records: RunRecords, documents: ZarrDocuments, claim: Claim, lock: threading.Lock
    ) -> None:
        self._records = records
        self._store: Store = records.store
        self._documents = documents
        self._claim = claim
        self._lock = lock
        self._uncommitted: dict[str, StoredTile] = {}
        self._keys: dict[str, Callable[[int, int], str]] = {}
        """By field's path, where its tiles have their home."""
        self.declares_late = False
        """Whether a tile may be encoded while its field cannot be declared: `put` does it then."""

    def encode(self, tile: AcceptedTile) -> tuple[StoredTile, bytes] | None:
        """Encode one tile, and declare its field; return None if an equal one is recorded.

        Raises
        ------
        ConflictError
            ``tile-differs``, or ``field-differs`` if another writer declared the field.
        InvalidInputError
            ``value-out-of-range`` for token ids that no byte holds.
        StorageError
            If the store did not take the declaration, unless it may come late.
        """
        stored_values, encoded, spec = self._encode(tile)
        shape = stored_values.shape if spec.ragged else None
        result = StoredTile(
            spec=spec,
            path=tile.field.path,
            key=self._key(tile.field.path, spec)(tile.step, tile.tile),
            step=tile.step,
            tile=tile.tile,
            samples=tile.stop - tile.start if spec.tile else 0,
            nbytes=len(encoded.data),
            crc32c=encoded.crc32c,
            crc32=encoded.crc32,
            blocks=encoded.blocks,
            shape=shape,
            block=None if shape is None else _block(spec, shape),
        )
        return (result, encoded.data) if self.expect(result) else None

    def expect(self, tile: StoredTile) -> bool:
        """Take note of a tile that will be put; return False if an equal one is recorded.

        Raises
        ------
        ConflictError
            ``tile-differs``.
        """
        with self._lock:
            if self._is_there(tile):
                return False
            self._uncommitted[tile.key] = tile
        return True

    def put(self, tile: StoredTile, data: bytes) -> StoredTile | None:
        """Create the object of one tile; after a failure it may be tried again.

        Returns
        -------
        StoredTile or None
            The tile and where its object lies; None if another writer recorded an equal one.

        Raises
        ------
        ConflictError
            ``tile-differs``, or ``field-differs`` if another writer declared the field.
        StorageError
            If the store did not take it.
        """
        spec = self.declared(tile.spec)
        if (spec.codec, spec.block) != (tile.spec.codec, tile.spec.block):
            tile, data = _encoded_again(tile, data, spec)
        if tile.shape is not None and tile.block is not None:
            self._documents.ensure_ragged(spec, tile.step, tile.shape, tile.block)
        else:
            stop = tile.tile * spec.tile + tile.samples
            self._documents.ensure(spec, self._position(spec, tile.step), stop)
        placed = self._create(tile, data) if data else tile
        with self._lock:
            if placed is None:
                self._uncommitted.pop(tile.key, None)
        return placed

    def store(self, tile: AcceptedTile) -> StoredTile | None:
        """Encode and create one tile; return None if an equal one was there."""
        encoded = self.encode(tile)
        return None if encoded is None else self.put(*encoded)

    def committed(self, tiles: list[StoredTile]) -> None:
        """Forget tiles that the ledger knows now, or that are not going to be committed."""
        with self._lock:
            for tile in tiles:
                self._uncommitted.pop(tile.key, None)

    def _encode(self, tile: AcceptedTile) -> tuple[NDArray[Any], EncodedTile, FieldSpec]:
        field = tile.field
        try:
            values = tile.snapshot.values()
            if not field.stored:
                with field.lock:
                    if not field.stored:
                        self._settle(field, to_stored(values, field.spec))
            spec = field.spec
            stored = to_stored(values, spec)
            block = _block(spec, stored.shape) if spec.ragged else spec.block
            return stored, encode_tile(stored, spec, block), spec
        finally:
            tile.snapshot.release()

    def _settle(self, field: RecordedField, stored: NDArray[Any]) -> None:
        """Choose the field's codec by its first tile, and declare it if the store is there."""
        if not field.probed:
            codec = worthwhile_codec(field.spec, stored)
            field.spec = field.spec.model_copy(update={"codec": codec})
            field.probed = True
        try:
            field.spec = self.declared(field.spec)
        except (StorageError, AccessError):
            if not self.declares_late:
                raise
        else:
            field.stored = True

    def declared(self, spec: FieldSpec) -> FieldSpec:
        """Declare a field, or return the declaration of who was first, whose choices hold.

        Raises
        ------
        ConflictError
            ``field-differs``.
        StorageError
            If the store did not take it.
        """
        path = field_path(*spec.address)
        with self._lock:
            known = self._records.ledger.fields.get(path)
        if known is not None and (known.spec is spec or same_but_chosen(known.spec, spec)):
            return known.spec
        run_id = self._records.run_id
        try:
            declare_field(self._store, run_id, spec)
        except ConflictError:
            theirs = read_document(self._store, field_key(run_id, path), FieldSpec)
            if not same_but_chosen(theirs, spec):
                raise
            spec = theirs
        with self._lock:
            return self._records.ledger.declare(path, spec).spec

    def _create(self, tile: StoredTile, data: bytes) -> StoredTile | None:
        if self._created(tile.key, data, shared=True):
            return tile
        deadline = time.monotonic() + _OTHERS_COMMIT_S
        while True:
            # Asked first: who closes in between has committed by then.
            awaited = self._may_be_committed(tile)
            with self._lock:
                self._records.refresh()
                if self._is_there(tile, uncommitted=False):
                    return None
            if not awaited or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        key = aside_key(self._records.run_id, tile.key, self._claim.writer, self._claim.epoch)
        if not self._created(key, data, shared=False):
            message = f"{self._store.url}/{key} holds something else than this writer put there"
            raise ConflictError(ErrorKind.TILE_DIFFERS, message)
        return replace(tile, aside=key.removeprefix(f"{run_prefix(self._records.run_id)}/"))

    def _created(self, key: str, data: bytes, *, shared: bool) -> bool:
        """Return whether the object at *key* was put by this epoch.

        Where only this epoch puts anything, that is whether it is this one: a put may land and
        lose its answer. Where others put too, an equal object may be what a dead writer left,
        which may be swept at any moment: no commit must name it.
        """
        while True:
            try:
                self._store.create(key, data)
            except ConflictError:
                try:
                    # The length first: what lies there may be somebody's large tile.
                    same = self._store.size(key) == len(data)
                    return not shared and same and self._store.read_range(key, 0, len(data)) == data
                except NotFoundError:  # a store may answer so although nothing was written
                    continue
            return True

    def _may_be_committed(self, tile: StoredTile) -> bool:
        """Return whether somebody who is heard of may have put what lies where *tile* should."""
        with self._lock:
            spec = self._records.ledger.fields[tile.path].spec
            others = other_writers(self._records, self._claim).recording
        start = tile.tile * spec.tile
        return any(
            one.claim.samples is None
            or not spec.tile
            or overlap(one.claim, start, start + tile.samples)
            for one in others
        )

    def _is_there(self, tile: StoredTile, *, uncommitted: bool = True) -> bool:
        """Return whether the tile is recorded with these values; to be called under the lock."""
        known: StoredTile | None = self._uncommitted.get(tile.key) if uncommitted else None
        if known is not None:
            same = (known.samples, known.crc32, known.shape)
        else:
            ledger = self._records.ledger.fields.get(tile.path)
            entry = None if ledger is None else ledger.tile(tile.step, tile.tile)
            if entry is None:
                return False
            same = (entry.samples, entry.crc32, None if tile.shape is None else entry.shape)
        if same == (tile.samples, tile.crc32, tile.shape):
            return True
        message = (
            f"field {tile.path}, step {tile.step}, tile {tile.tile}: other values are recorded"
            " already, and stay"
        )
        raise ConflictError(ErrorKind.TILE_DIFFERS, message)

    def _key(self, path: str, spec: FieldSpec) -> Callable[[int, int], str]:
        known = self._keys.get(path)
        if known is None:
            known = self._keys[path] = stored_keys(self._records.manifest, spec)
        return known

    def _position(self, spec: FieldSpec, step: int) -> int:
        if not spec.place.stepped:
            return 0
        position = step_position(self._records.manifest, spec, step)
        assert position is not None, "the caller's thread accepts no other step"  # noqa: S101
        return position


def _block(spec: FieldSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the extent of a block of a ragged field at a step where it has *shape*."""
    return choose_block(shape, numpy_dtype(spec.stored_dtype).itemsize)


def _encoded_again(tile: StoredTile, data: bytes, spec: FieldSpec) -> tuple[StoredTile, bytes]:
    """Return the tile as *spec* has it: another writer was first to choose codec and block."""
    if not data:
        return replace(tile, spec=spec), data
    had = tile.spec
    shape = tile.shape or ((tile.samples, *had.tail) if had.tile else had.tail)
    stored = decode_tile(data, had, tile.blocks, shape, tile.block or had.block)
    encoded = encode_tile(stored, spec, tile.block or spec.block)
    again = replace(
        tile,
        spec=spec,
        nbytes=len(encoded.data),
        crc32c=encoded.crc32c,
        blocks=encoded.blocks,
    )
    return again, encoded.data
