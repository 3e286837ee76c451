"""Rebuild of a run what can be rebuilt, from what is left of it, and say what cannot.

1. The documents, each from what repeats it (`recorder.maintenance.rebuilding`).
2. The tiles: bytes that were appended are cut off, an index is written again, and a tile that
   lies elsewhere in the run is brought back. What is lost can be withdrawn, if that is wanted:
   it counts as not recorded then, and can be recorded again.
3. A sealing that was begun by who died is finished.
4. The Zarr documents, the coordinates and the masks.
5. Objects that nothing names are swept, if that is wanted.

Everything is written whole and says nothing that is not known, so repairing may be cut off
anywhere and done again. One process at a time repairs a run; recorders go on meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, FormatError, NotFoundError, invalid
from archive_schema.layout import run_prefix, zarr_key
from archive_schema.records import RunRecords
from recorder.maintenance.findings import Action, Finding, Found, Repair
from recorder.maintenance.hierarchy import check_documents, expected_documents
from recorder.maintenance.reading import patient
from recorder.maintenance.rebuilding import rebuild_documents
from recorder.maintenance.rehearsal import RehearsalStore
from recorder.maintenance.shards import checked_shards
from recorder.maintenance.superseded import sweep_superseded
from recorder.maintenance.survey import Survey
from recorder.maintenance.sweeping import fence_lost_writers, sweep
from recorder.maintenance.tiles import is_tile, restored
from recorder.maintenance.verification import checked_tiles, orphans
from recorder.maintenance.withdrawal import withdraw_tiles
from recorder.repair_lock import MAINTENANCE, RepairLock
from recorder.sealing import seal_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archive_schema.models import RunManifest
    from archive_schema.store import Store
    from recorder.maintenance.names import RecordedTile

GRACE_S: Final = 3600.0
"""How old what is swept must be, and how long a writer that is ended must have been silent."""


def repair_run(
    store: Store,
    run_id: str,
    *,
    dry_run: bool = False,
    withdraw: bool = False,
    sweep_orphans: bool = False,
    fence: bool = False,
    grace_s: float = GRACE_S,
    progress: Callable[[int, int], object] | None = None,
) -> Repair:
    """Rebuild what can be rebuilt of run *run_id*, and say what is lost for good.

    Parameters
    ----------
    dry_run : bool
        Change nothing, and say what would be done.
    withdraw : bool
        Let tiles of an unsealed run that are lost or damaged count as not recorded, so that
        they can be recorded again; also what is still readable of them.
    sweep_orphans : bool
        Remove objects that nothing names and that no live writer may still name.
    fence : bool
        End epochs whose writers were silent for longer than *grace_s*; a writer that comes
        back is told so, and what it did not commit is lost.
    grace_s : float, seconds
    progress : callable of (tiles done, tiles in all), optional

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    ConflictError
        ``writer-active`` while another process repairs the run.
    InvalidInputError
        ``invalid-parameter`` for a negative grace.
    """
    if grace_s < 0:
        message = f"expected a grace of at least 0 s, got {grace_s:g}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    store = patient(store)
    if dry_run:
        store = RehearsalStore(store)
    Survey(store, run_id)  # refuses a run that is not there before anything is put into it
    with RepairLock(store, run_id) as lock:
        repairer = _Repairer(store, run_id, lock)
        if repairer.documents():
            repairer.tiles(progress, withdraw=withdraw)
            repairer.done += fence_lost_writers(store, run_id, lock, grace_s if fence else None)
            repairer.hierarchy()
            if sweep_orphans:
                repairer.done += sweep(store, run_id, lock, grace_s)
                repairer.done += sweep_superseded(store, run_id, lock, grace_s)
    return Repair(run_id, dry_run, tuple(repairer.done), tuple(repairer.lost))


class _Repairer:
    """Puts one run right, step by step; each looks at the run anew."""

    def __init__(self, store: Store, run_id: str, lock: RepairLock) -> None:
        self._store = store
        self._run_id = run_id
        self._lock = lock
        self.done: list[Action] = []
        self.lost: list[Found] = []

    def documents(self) -> bool:
        """Rebuild the documents; return whether the run can be read by anybody now."""
        done, self.lost = rebuild_documents(self._store, self._run_id, self._lock)
        self.done += done
        try:
            RunRecords(self._store, self._run_id)
        except (FormatError, NotFoundError) as error:
            if not self.lost:
                found = Found(Finding.COMMIT_DAMAGED, run_prefix(self._run_id), str(error))
                self.lost.append(found)
            return False
        return True

    def tiles(self, progress: Callable[[int, int], object] | None, *, withdraw: bool) -> None:
        """Restore the tiles that can be restored, and withdraw the others if that is wanted."""
        survey, manifest = self._survey()
        total = sum(field.count for field in survey.ledger.fields.values())
        for shard in checked_shards(survey, manifest):
            self.lost += shard.found
        wrong: list[tuple[RecordedTile, Found]] = []
        for done, (tile, problem) in enumerate(checked_tiles(survey, manifest), 1):
            if problem is not None:
                wrong.append((tile, problem))
            if progress is not None:
                progress(done, total)
        wrong = [one for one in wrong if not self._restore(*one)]
        if wrong:
            wrong = list(self._bring_back(survey, manifest, wrong))
        if withdraw and wrong and not survey.sealed and survey.sealing is None:
            self._lock.check()
            self.done += withdraw_tiles(survey, wrong)
        else:
            self.lost += [problem for _, problem in wrong]

    def hierarchy(self) -> None:
        """Finish a sealing, and write the Zarr documents that do not say what they should."""
        survey, manifest = self._survey()
        if survey.sealing is not None and not survey.sealed:
            self._lock.check()
            seal = seal_run(RunRecords(self._store, self._run_id), repairing=True)
            key = next(one.key for one in survey.found if _is_unfinished(one))
            detail = f"the run is sealed: {seal.tiles} tiles"
            self.done.append(Action(Finding.SEALING_UNFINISHED, key, detail))
            survey, manifest = self._survey()
        documents = expected_documents(survey, manifest)
        root = zarr_key(self._run_id, "", survey.zarr)
        # Taken together: an array's metadata and its values follow from one length.
        for found in list(check_documents(survey, manifest, documents)):
            self._lock.check()
            self._store.write(found.key, documents[found.key.removeprefix(root)])
            self.done.append(Action(found.finding, found.key, "written again from the records"))

    def _survey(self) -> tuple[Survey, RunManifest]:
        survey = Survey(self._store, self._run_id)
        assert survey.manifest is not None, "the run can be read"  # noqa: S101
        return survey, survey.manifest

    def _restore(self, tile: RecordedTile, problem: Found) -> bool:
        """Put right what is known anyway: the object's length, and the index in it."""
        with suppress(NotFoundError):
            data = restored(self._store.read(tile.key), tile.spec, tile.entry)
            if data is not None:
                self._lock.check()
                self._store.write(tile.key, data)
                detail = "its length and index were put right: all its blocks are sound"
                self.done.append(Action(problem.finding, tile.key, detail))
                return True
        return False

    def _bring_back(
        self, survey: Survey, manifest: RunManifest, wrong: list[tuple[RecordedTile, Found]]
    ) -> Iterator[tuple[RecordedTile, Found]]:
        """Look for tiles among what lies in other places; yield those that are nowhere."""
        kept = f"{run_prefix(self._run_id)}/{MAINTENANCE}/kept-"
        pool = {tile.key for tile, _ in wrong} | {one.key for one in orphans(survey, manifest)[0]}
        pool |= {one.key for one in self._store.objects(survey.prefix) if kept in one.key}
        sizes = {o.key: o.nbytes for o in self._store.objects(survey.prefix) if o.key in pool}
        sources: dict[int, str] = {}
        for at, (tile, problem) in enumerate(wrong):
            alike = [key for key, nbytes in sizes.items() if nbytes == tile.entry.nbytes]
            source = next((key for key in alike if self._is_at(key, tile)), None)
            if source is None:
                yield tile, problem
                continue
            # A copy first: the place that it was found in may be another's, to be put right next.
            self._lock.check()
            self._store.write(f"{kept}{at}", self._store.read(source))
            sources[at] = source
        for at, source in sources.items():
            tile, problem = wrong[at]
            self._lock.check()
            self._store.write(tile.key, self._store.read(f"{kept}{at}"))
            self._store.delete(f"{kept}{at}")
            self.done.append(Action(problem.finding, tile.key, f"brought back from {source}"))

    def _is_at(self, key: str, tile: RecordedTile) -> bool:
        try:
            return is_tile(self._store.read(key), tile.spec, tile.entry)
        except NotFoundError:
            return False


def _is_unfinished(found: Found) -> bool:
    return found.finding is Finding.SEALING_UNFINISHED
