"""One commit for all requests that are ready at the same time, and the word to each of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archive_schema.errors import ArchiveError, ErrorKind, NotFoundError
from archive_schema.records import read_manifest

if TYPE_CHECKING:
    from recorder.encoder import StoredTile
    from recorder.opened import OpenedRun


class SessionOverError(Exception):
    """The session came to its end under a request, which another session can take."""


@dataclass(slots=True)
class _Batch:
    tiles: list[StoredTile] = field(default_factory=list)
    done: bool = False
    error: BaseException | None = None


class GroupCommit:
    """Commits what any number of threads have stored: as long as one commit takes, others gather.

    The first failure ends it. What is true of the store then is only known by opening the run
    again, and a commit that was not answered may still land: the next opening fences it off.
    """

    def __init__(self, run: OpenedRun) -> None:
        self._run = run
        self._next = _Batch()
        self._gathering = threading.Lock()
        """Held while a batch is added to, or taken."""
        self._committing = threading.Lock()
        """Held by who commits, so that the others gather."""
        self._over = False

    @property
    def over(self) -> bool:
        """Whether nothing can be committed any more."""
        return self._over

    def give_up(self) -> None:
        """Commit nothing any more."""
        self._over = True

    def commit(self, tiles: list[StoredTile]) -> None:
        """Return once *tiles*, and every coordinate that was accepted, are committed.

        Raises
        ------
        SessionOverError
            If an earlier commit failed, or another writer replaced this one.
        ConflictError
            ``run-sealed``.
        NotFoundError
            ``run-not-found`` if the run was removed meanwhile.
        StorageError
            If the store did not take the commit, as far as is known.
        """
        with self._gathering:
            batch = self._next
            batch.tiles += tiles
        with self._committing:
            if self._over and not batch.done:
                raise SessionOverError
            if not batch.done:
                with self._gathering:
                    self._next = _Batch()
                self._make(batch)
        if batch.error is not None:
            raise again(batch.error) from batch.error

    def end(self) -> None:
        """End the epoch: this writer has nothing more to commit."""
        with self._committing:
            if not self._over:
                self._over = True
                self._run.committer.end("closed")
                self._run.committer.beat("closed")

    def _make(self, batch: _Batch) -> None:
        try:
            self._put(batch.tiles)
        except BaseException as error:  # noqa: BLE001  kept for every request of the batch
            self._over = True
            replaced = isinstance(error, ArchiveError) and error.kind is ErrorKind.WRITER_REPLACED
            batch.error = SessionOverError() if replaced else error
        batch.done = True

    def _put(self, tiles: list[StoredTile]) -> None:
        run = self._run
        steps, samples = run.coordinates.take()
        if not (tiles or steps or samples):
            return
        run.committer.put(run.committer.next(tiles, steps, samples), tiles)
        run.encoder.committed(tiles)
        # Nobody may be told that values are safe in a run that another process has removed.
        manifest = run.manifest
        if read_manifest(run.records.store, manifest.id).uid != manifest.uid:
            message = f"run {manifest.id!r} was removed, and another has its id now"
            raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message)


def again(error: BaseException) -> BaseException:
    """Return a new error like *error*: one that several threads raise mixes their tracebacks."""
    if isinstance(error, ArchiveError):
        return type(error)(error.kind, str(error))
    return SessionOverError() if isinstance(error, SessionOverError) else error
