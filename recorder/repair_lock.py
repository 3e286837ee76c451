"""One repairer of a run at a time, and never one that believes so by mistake.

Whoever wants the run puts an object of its own and then looks: if another's is there, it takes
its own away and gives up. Of two who put, at least one sees the other. An object that was not
renewed for long belongs to a dead repairer; and who could not renew its own in time stops.

Recorders do not ask for the lock. Only who seals waits for a repairer that may be sweeping the
places to which tiles are about to be brought home.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from archive_schema.documents import document_bytes
from archive_schema.errors import ConflictError, ErrorKind
from archive_schema.layout import run_prefix
from archive_schema.models import Claim

if TYPE_CHECKING:
    from types import TracebackType

    from archive_schema.store import Store

MAINTENANCE: Final = "maintenance"
"""Folder below a run for who repairs it."""
REPAIRER: Final = "repair"
"""Name of the writer of what repairing commits."""
_STALE_AFTER_S: Final = 120.0
_RENEW_AFTER_S: Final = 15.0
_GLANCE_S: Final = 0.2


class RepairLock:
    """The right to repair a run, for as long as the block runs.

    Raises
    ------
    ConflictError
        ``writer-active`` if another repairs the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._folder = f"{run_prefix(run_id)}/{MAINTENANCE}"
        self._nonce = secrets.token_hex(16)
        self._key = f"{self._folder}/{self._nonce}.json"
        self._renewed_s = 0.0
        self.stored_s = 0.0
        """When the lock was put: seconds since the epoch, by the store's clock."""

    def __enter__(self) -> Self:
        self._put()
        try:
            self.stored_s = self._look()
        except BaseException:
            self._store.delete(self._key)
            raise
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._store.delete(self._key)

    def check(self) -> None:
        """Renew the lock if it is time; to be called before anything is changed.

        Raises
        ------
        ConflictError
            ``writer-active`` if this process slept so long that another may have begun.
        """
        # The wall clock, because a machine that sleeps stops the other one.
        slept_s = time.time() - self._renewed_s
        if slept_s > _STALE_AFTER_S / 2:
            message = (
                f"run {self._run_id!r}: this repairer stood still for {slept_s:.0f} s, so that"
                " another may have begun; start again"
            )
            raise ConflictError(ErrorKind.WRITER_ACTIVE, message)
        if slept_s > _RENEW_AFTER_S:
            self._put()
            self._look()

    def _put(self) -> None:
        holder = Claim(
            writer=REPAIRER,
            epoch=0,
            nonce=self._nonce,
            time=datetime.now(UTC),
            host=socket.gethostname(),
            process=os.getpid(),
        )
        self._store.write(self._key, document_bytes(holder))
        self._renewed_s = time.time()

    def _look(self) -> float:
        """Return the store's time; raise if somebody else holds the lock."""
        found = {one.key: one.modified_s for one in self._store.objects(self._folder)}
        now_s = found.pop(self._key)
        for key, modified_s in found.items():
            if now_s - modified_s < _STALE_AFTER_S:
                message = f"run {self._run_id!r} is being repaired by another process: {key}"
                raise ConflictError(ErrorKind.WRITER_ACTIVE, message)
            self._store.delete(key)
        return now_s


def await_repairers(store: Store, run_id: str) -> None:
    """Return once nobody repairs the run; who did not renew its lock for long is dead.

    To be called after `begin_sealing`: a repairer that begins later sees that, and sweeps nothing
    to which a tile may be brought.
    """
    folder = f"{run_prefix(run_id)}/{MAINTENANCE}"
    known: dict[str, tuple[float, float]] = {}
    while True:
        now_s = time.monotonic()
        found = {one.key: one.modified_s for one in store.objects(folder)}
        # By our own clock, since each was last seen to be renewed.
        for key, modified_s in found.items():
            if key not in known or known[key][0] != modified_s:
                known[key] = (modified_s, now_s)
        if not any(now_s - known[key][1] < _STALE_AFTER_S for key in found):
            return
        time.sleep(_GLANCE_S)
