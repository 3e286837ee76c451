"""Puts objects of runs into the store for those who have no credentials for it.

What a store promises, and no more, is passed on: `create` is atomic and exclusive, `write` is
atomic. The order in which objects are put, epochs and fences are the recorder's business, which
is the same one whatever store it has.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fastcrc.crc32 import iscsi as crc32c

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from archive_schema.layout import field_key, manifest_key, run_prefix, seal_key, sealing_key
from archive_schema.store.interface import exists
from server.push.keys import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archive_schema.store import Store
    from server.push.keys import ObjectKey

_BELIEVED_S: Final = 5.0
"""How long a run that was there is believed to be there still."""
_MOST_BELIEVED: Final = 1024


class Gateway:
    """Writes to *store*, from any number of threads; its methods block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._declared: OrderedDict[str, float] = OrderedDict()

    def put(self, at: ObjectKey, data: bytes, digest: int | None, *, exclusive: bool) -> None:
        """Store one object.

        Parameters
        ----------
        digest
            CRC32C that the sender computed, if it says one.
        exclusive
            Whether it must not be there yet.

        Raises
        ------
        StorageError
            ``body-damaged`` if the bytes are not those that were sent.
        ConflictError
            ``object-exists``.
        NotFoundError
            ``run-not-found`` if nobody declared the run.
        InvalidInputError
            ``invalid-parameter`` for a document that does not belong there, and
            ``method-not-allowed`` for another object that is never replaced.
        """
        if digest is not None and crc32c(data) != digest:
            message = (
                f"the body was damaged on its way here: its CRC32C is {crc32c(data):08x}, the"
                f" sender computed {digest:08x}; send it again"
            )
            raise StorageError(ErrorKind.BODY_DAMAGED, message)
        at.check(data)
        if at.key != manifest_key(at.run_id):
            self._check_declared(at.run_id)
        if exclusive:
            self._create(at, data)
        else:
            self._check_replaceable(at)
            self._store.write(at.key, data)

    def sync(self, run_id: str, paths: Iterable[str]) -> None:
        """Return once the objects at *paths*, below the run, survive a power cut."""
        self._store.sync([f"{run_prefix(run_id)}/{path}" for path in paths])

    def forget(self, run_id: str) -> None:
        """Believe no longer that the run is there."""
        self._declared.pop(run_id, None)

    def _create(self, at: ObjectKey, data: bytes) -> None:
        try:
            self._store.create(at.key, data)
        except ConflictError as error:
            raise exists(at.path, f"run {at.run_id!r}") from error

    def _check_declared(self, run_id: str) -> None:
        """Refuse an object of a run that is not there, which nobody would ever read."""
        now_s = time.monotonic()
        if now_s - self._declared.get(run_id, float("-inf")) < _BELIEVED_S:
            return
        if not self._is_there(manifest_key(run_id)):
            message = f"there is no run {run_id!r}: declare it first (POST /runs)"
            raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message)
        self._declared[run_id] = now_s
        while len(self._declared) > _MOST_BELIEVED:
            self._declared.popitem(last=False)

    def _check_replaceable(self, at: ObjectKey) -> None:
        if at.rule is Rule.REWRITTEN:
            return
        if at.rule is Rule.CHUNK and not self._is_there(field_key(at.run_id, at.field or "")):
            return
        if at.rule in (Rule.TILE, Rule.CHUNK) and self._is_being_sealed(at.run_id):
            return
        message = f"{at.path} is created once and never replaced: send If-None-Match: * with it"
        raise InvalidInputError(ErrorKind.METHOD_NOT_ALLOWED, message)

    def _is_being_sealed(self, run_id: str) -> bool:
        return self._is_there(sealing_key(run_id)) and not self._is_there(seal_key(run_id))

    def _is_there(self, key: str) -> bool:
        try:
            self._store.size(key)
        except NotFoundError:
            return False
        return True
