"""What was recorded since a version of a run, told from the commits after it.

The version of a run that is being recorded names how many commits of each writer and
epoch it holds. Commits never change, so reading those after it tells what is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from archive_schema.documents import read_document
from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.layout import commit_key, commits_prefix
from archive_schema.models import Commit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from archive_schema.records import RunRecords
    from archive_schema.store import Store
    from server.query.run import RunView

MOST_COMMITS: Final = 256
"""Whoever is further behind is told that everything is new, which costs no reading."""

_SEALED: Final = "sealed"
_MARK_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What is new in a run."""

    version: str
    """Ask for what is new since this version next time."""
    steps: tuple[int, ...]
    """Steps with something new, rising."""
    samples: int
    """Samples of the run now."""
    fields: tuple[str, ...]
    """Paths of the fields with something new: ``trace/score_matrix``."""


def version_of(records: RunRecords) -> str:
    """Return a text that changes with everything that is committed to the run."""
    uid = blake2b(records.manifest.uid.encode(), digest_size=6).hexdigest()
    if records.seal is not None:
        return f"{uid}~{_SEALED}.{records.seal.index_crc32c:08x}"
    marks = sorted(records.marks.items())
    return "~".join((uid, *(f"{writer}.{epoch}.{count}" for (writer, epoch), count in marks)))


def changes_since(run: RunView, since: str) -> ChangeSet:
    """Return what *run* holds that it did not hold at the version *since*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a text that is no version.
    """
    uid, *marks = since.split("~")
    known = _marks(marks, since)
    if since == run.version:
        return ChangeSet(run.version, (), run.samples, ())
    if uid != run.version.partition("~")[0] or known is None:
        return _everything(run)
    steps: set[int] = set()
    fields: set[str] = set()
    declared = list(run.ledger.fields.items())
    stepped = {path for path, field in declared if field.spec.place.stepped}
    try:
        for read, commit in enumerate(_commits(run, known)):
            if read == MOST_COMMITS:
                return _everything(run)
            for tiles in commit.tiles:
                fields.add(tiles.field)
                steps.update(tiles.step if tiles.field in stepped else ())
            for column in commit.steps:
                steps.update(column.step)
            for gone in commit.withdrawn:
                fields.add(gone.field)
                steps.update(gone.step if gone.field in stepped else ())
    except NotFoundError:
        return _everything(run)
    return ChangeSet(run.version, tuple(sorted(steps)), run.samples, tuple(sorted(fields)))


def _everything(run: RunView) -> ChangeSet:
    return ChangeSet(run.version, run.steps, run.samples, tuple(sorted(run.ledger.fields)))


def _marks(marks: list[str], since: str) -> Mapping[tuple[str, int], int] | None:
    """Return commits by writer and epoch; None for the version of a sealed run."""
    known: dict[tuple[str, int], int] = {}
    for mark in marks:
        parts = mark.split(".")
        if parts[0] == _SEALED and len(parts) == _MARK_PARTS - 1:
            return None
        if len(parts) != _MARK_PARTS or not all(part.isdecimal() for part in parts[1:]):
            message = f"since={since!r} is no version of a run; give one that the server answered"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        known[parts[0], int(parts[1])] = int(parts[2])
    return known


def _commits(run: RunView, known: Mapping[tuple[str, int], int]) -> Iterator[Commit]:
    store, run_id = run.records.store, run.manifest.id
    if not run.sealed:
        for (writer, epoch), count in run.marks.items():
            for sequence in range(known.get((writer, epoch), 0), count):
                key = commit_key(run_id, writer, epoch, sequence)
                yield read_document(store, key, Commit)
        return
    # The commits of a sealed run may have been cleaned away, those before *known* too.
    for (writer, epoch), count in known.items():
        if count:
            store.size(commit_key(run_id, writer, epoch, count - 1))
    prefix = commits_prefix(run_id)
    for writer in store.folders(prefix):
        for folder in store.folders(f"{prefix}/{writer}"):
            epoch = int(folder)
            yield from _until_absent(store, run_id, writer, epoch, known.get((writer, epoch), 0))


def _until_absent(
    store: Store, run_id: str, writer: str, epoch: int, sequence: int
) -> Iterator[Commit]:
    while True:
        try:
            commit = read_document(store, commit_key(run_id, writer, epoch, sequence), Commit)
        except NotFoundError:
            return
        yield commit
        sequence += 1
