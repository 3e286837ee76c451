"""Remove what dead writers left, and nothing that a live one may still name in a commit.

An object that no commit names may go when no commit of it can come:

- In a sealed run nothing can be committed.
- Otherwise an epoch names only objects that it put itself, after its claim (`recorder.encoder`).
  So an object may go that was stored before every open epoch was claimed, by the store's clock.
- What lies aside was put by the epoch in its key; that one has to be ended.

The commits are read after the objects were listed. An epoch that is claimed after that names no
object that was there before. Sealing brings tiles home to where an orphan may lie: who seals
waits for who sweeps, and nothing there is swept once a sealing was begun.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from archive_schema.layout import claim_key
from archive_schema.records import RunRecords
from archive_schema.store import LocalStore
from archive_schema.store.interface import is_remote
from recorder.maintenance.findings import Action, Finding
from recorder.maintenance.reading import mapped
from recorder.maintenance.rehearsal import RehearsalStore
from recorder.maintenance.survey import Survey
from recorder.maintenance.verification import orphans
from recorder.repair_lock import REPAIRER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store, StoredObject
    from recorder.repair_lock import RepairLock

_ASIDE: Final = re.compile(r"/displaced/([^/]+)/([0-9]{6})/.+")
_CLOCK_S: Final = 2.0
"""A bucket tells the times of its objects to the second."""


def fence_lost_writers(
    store: Store, run_id: str, lock: RepairLock, grace_s: float | None
) -> list[Action]:
    """End the epochs of repairers that died, and of writers silent for longer than *grace_s*.

    Parameters
    ----------
    grace_s : float, seconds
        None to let all other writers be.
    """
    survey = Survey(store, run_id)
    if survey.sealed:
        return []
    records = RunRecords(store, run_id)
    done = []
    for epoch in survey.open_epochs:
        silent_s = lock.stored_s - epoch.heard_s
        if epoch.writer != REPAIRER and (grace_s is None or silent_s < grace_s):
            continue
        silence = timedelta(seconds=round(silent_s))
        records.fence(epoch.writer, epoch.epoch, "replaced", f"it was silent for {silence}")
        key = claim_key(run_id, epoch.writer, epoch.epoch)
        done.append(Action(Finding.WRITER_LOST, key, f"ended, after {silence} of silence"))
    return done


def sweep(store: Store, run_id: str, lock: RepairLock, grace_s: float) -> list[Action]:
    """Remove the objects that nothing names and that nothing can name any more.

    Parameters
    ----------
    grace_s : float, seconds
        Nothing younger goes, but in a sealed run.
    """
    survey = Survey(store, run_id)
    manifest = survey.manifest
    if manifest is None or survey.broken:
        return []
    leftovers = list(_leftovers(store, survey.prefix))
    found, survey = orphans(survey, manifest)
    found += leftovers
    coarse_s = _CLOCK_S if is_remote(store) else 0.0
    before_s = lock.stored_s - grace_s
    going = [one for one in found if _may_go(survey, one, before_s, coarse_s)]

    def remove(one: StoredObject) -> StoredObject:
        store.delete(one.key)
        return one

    def permitted() -> Iterator[StoredObject]:
        for one in going:
            lock.check()
            yield one

    return [
        Action(Finding.ORPHAN, one.key, f"{one.nbytes} bytes removed")
        for one in mapped(store, remove, permitted())
    ]


def _leftovers(store: Store, prefix: str) -> Iterator[StoredObject]:
    """Yield what killed processes left of unfinished writes."""
    if isinstance(store, RehearsalStore):
        store = store.beneath
    if isinstance(store, LocalStore):
        yield from store.leftovers(prefix)


def _may_go(survey: Survey, one: StoredObject, before_s: float, coarse_s: float) -> bool:
    if survey.sealed:
        return one.key.rpartition("/")[2][:1] != "." or one.modified_s <= before_s
    aside = _ASIDE.fullmatch(one.key.removeprefix(survey.prefix))
    if aside is not None:
        epoch = survey.epochs.get((aside[1], int(aside[2])))
        return epoch is not None and epoch.ended and one.modified_s <= before_s
    if survey.sealing is not None:
        return False  # tiles are being brought home
    return one.modified_s <= before_s and all(
        epoch.claimed_s is not None and one.modified_s < epoch.claimed_s - coarse_s
        for epoch in survey.open_epochs
    )
