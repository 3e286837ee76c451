"""The documents of a run, rebuilt from one another.

| what | from what |
|---|---|
| manifest | the attributes of the Zarr root |
| declaration of a field | the index of a sealed run, or the attributes of the field's array |
| claim, heartbeat | the commits of the epoch |
| commit | the index, or the objects that no other commit names |
| index | the commits, or an index that is there and fits the seal |
| seal | the index |
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fastcrc.crc32 import iscsi as crc32c

from archive_schema.documents import document_bytes
from archive_schema.errors import ArchiveError
from archive_schema.layout import (
    claim_key,
    commit_key,
    field_key,
    heartbeat_key,
    manifest_key,
    run_prefix,
    seal_key,
    sealing_key,
)
from archive_schema.models import Claim, Heartbeat, Seal, Sealing
from archive_schema.records import RunRecords
from recorder.maintenance.findings import Action, Finding, Found
from recorder.maintenance.lost_commits import rebuilt_commits
from recorder.maintenance.survey import Survey, index_of, ledger_of

if TYPE_CHECKING:
    from archive_schema.ledger import Ledger
    from archive_schema.models import Document
    from archive_schema.store import Store
    from recorder.maintenance.survey import EpochSurvey
    from recorder.repair_lock import RepairLock

_INDEX: Final = re.compile(r"index-([0-9a-f]{8})\.json")
_MOST_NAMED: Final = 10


def rebuild_documents(
    store: Store, run_id: str, lock: RepairLock
) -> tuple[list[Action], list[Found]]:
    """Put again the documents that are lost or damaged; return what was done, and what is lost."""
    rebuilding = _Rebuilding(store, run_id, lock)
    survey = Survey(store, run_id)
    for step in (
        rebuilding.manifest,
        rebuilding.fields,
        rebuilding.epochs,
        rebuilding.commits,
        rebuilding.ends,
        rebuilding.seal,
    ):
        before = len(rebuilding.done)
        step(survey)
        if len(rebuilding.done) > before:
            # The next relies on what this one put right.
            survey = Survey(store, run_id)
    return rebuilding.done, rebuilding.lost


class _Rebuilding:
    def __init__(self, store: Store, run_id: str, lock: RepairLock) -> None:
        self._store = store
        self._run_id = run_id
        self._lock = lock
        self.done: list[Action] = []
        self.lost: list[Found] = []

    def manifest(self, survey: Survey) -> None:
        """Put the manifest again as the Zarr root has it."""
        for found in _of(survey, Finding.MANIFEST_LOST, Finding.MANIFEST_DAMAGED):
            if survey.manifest is None:
                self.lost.append(found)
            else:
                detail = "rebuilt from the attributes of the Zarr root"
                self._put(found, manifest_key(self._run_id), survey.manifest, detail)

    def fields(self, survey: Survey) -> None:
        """Put declarations again as the index or their arrays have them."""
        for found in _of(survey, Finding.FIELD_LOST, Finding.FIELD_DAMAGED):
            prefix = field_key(self._run_id, "").removesuffix(".json")
            spec = survey.fields.get(found.key.removeprefix(prefix).removesuffix(".json"))
            if spec is None:
                self.lost.append(found)
            else:
                told = "the index" if survey.index else "the attributes of its array"
                self._put(found, found.key, spec, f"rebuilt from {told}")

    def epochs(self, survey: Survey) -> None:
        """Put claims, heartbeats and the beginning of a sealing again."""
        for epoch in survey.epochs.values():
            key = claim_key(self._run_id, epoch.writer, epoch.epoch)
            for found in _of(survey, Finding.CLAIM_LOST, Finding.CLAIM_DAMAGED):
                if found.key == key:
                    claim = _claim(survey, epoch)
                    self._put(found, key, claim, "rebuilt; its host and process are not known")
        for found in _of(survey, Finding.HEARTBEAT_LOST, Finding.HEARTBEAT_DAMAGED):
            own = [
                e
                for e in survey.epochs.values()
                if heartbeat_key(self._run_id, e.writer) == found.key
            ]
            if own:
                detail = "rebuilt from the commits of its writer"
                self._put(found, found.key, _last_word(own[-1]), detail)
            else:
                self._lock.check()
                self._store.delete(found.key)
                self.done.append(Action(found.finding, found.key, "removed: nobody's word"))
        for found in _of(survey, Finding.SEALING_LOST, Finding.SEALING_DAMAGED):
            time = datetime.now(UTC) if survey.seal is None else survey.seal.time
            self._put(found, sealing_key(self._run_id), Sealing(time=time), "put again")

    def commits(self, survey: Survey) -> None:
        """Put a commit at every number of which the content is not known."""
        if survey.manifest is None or not survey.broken:
            return
        known = {found.key: found for found in survey.found}
        hidden = [
            (epoch, epoch.ends[number])
            for epoch in survey.epochs.values()
            for number in epoch.hiding
        ]
        for commit in rebuilt_commits(survey, survey.manifest):
            key = commit_key(self._run_id, commit.writer, commit.epoch, commit.sequence)
            tiles = sum(len(columns.step) for columns in commit.tiles)
            detail = f"put again, with {tiles} tiles that no other commit names"
            self._put(known[key], key, commit, detail)
        for epoch, end in hidden:
            records = RunRecords(self._store, self._run_id)
            if end.end is not None:
                records.fence(epoch.writer, epoch.epoch, end.end, end.reason)
        self._tell_gaps(Survey(self._store, self._run_id).ledger)

    def ends(self, survey: Survey) -> None:
        """End the epochs of which the writer said that it closed."""
        for epoch in survey.epochs.values():
            key = commit_key(self._run_id, epoch.writer, epoch.epoch, epoch.length)
            for found in _of(survey, Finding.COMMIT_LOST):
                if found.key == key:
                    self._lock.check()
                    records = RunRecords(self._store, self._run_id)
                    records.fence(epoch.writer, epoch.epoch, "closed", "its writer said so")
                    self.done.append(Action(found.finding, key, "the end was put again"))

    def seal(self, survey: Survey) -> None:
        """Put the index and the seal again, from each other or from the commits."""
        for found in _of(survey, Finding.INDEX_LOST, Finding.INDEX_DAMAGED):
            seal = survey.seal
            if seal is None:
                continue
            totals = _totals(survey.ledger)
            if totals != (seal.tiles, seal.nbytes) or survey.broken:
                detail = (
                    f"the seal counts {seal.tiles} tiles of {seal.nbytes} bytes, the commits"
                    f" {totals[0]} of {totals[1]}"
                )
                self.lost.append(Found(found.finding, found.key, detail))
                continue
            name, checksum = self._put_index(survey.ledger, survey.prefix)
            self.done.append(
                Action(found.finding, found.key, f"rebuilt from the commits as {name}")
            )
            if name != seal.index:
                self._store.write(
                    seal_key(self._run_id),
                    document_bytes(
                        seal.model_copy(update={"index": name, "index_crc32c": checksum})
                    ),
                )
                # A commit that was rebuilt may name its fields in another order, and so this
                # index another content. Nothing leads to the damaged one any more.
                self._lock.check()
                self._store.delete(found.key)
        for found in _of(survey, Finding.SEAL_DAMAGED):
            self._rebuild_seal(survey, found)

    def _rebuild_seal(self, survey: Survey, found: Found) -> None:
        best: tuple[Ledger, str, int] | None = None
        for one in self._store.objects(survey.prefix):
            name = one.key.removeprefix(f"{survey.prefix}/")
            named = _INDEX.fullmatch(name)
            if named is None:
                continue
            checksum = int(named[1], 16)
            try:
                index = index_of(self._store.read(one.key), checksum, one.key)
            except ArchiveError:
                continue
            # What an earlier attempt to seal left may be there too, and has fewer tiles.
            ledger = ledger_of(index)
            if best is None or _totals(ledger) > _totals(best[0]):
                best = (ledger, name, checksum)
        if best is None:
            # As it was before the seal: whoever began to seal died, and sealing is finished.
            self._lock.check()
            self._store.delete(found.key)
            self.done.append(Action(found.finding, found.key, "removed: the run is sealed anew"))
            return
        ledger, name, checksum = best
        declared = None if survey.manifest is None else survey.manifest.samples
        tiles, nbytes = _totals(ledger)
        seal = Seal(
            time=datetime.now(UTC) if survey.sealing is None else survey.sealing.time,
            index=name,
            index_crc32c=checksum,
            samples=ledger.samples if declared is None else declared,
            tiles=tiles,
            nbytes=nbytes,
        )
        self._put(found, found.key, seal, f"rebuilt from {name}")

    def _put_index(self, ledger: Ledger, prefix: str) -> tuple[str, int]:
        data = document_bytes(ledger.index())
        checksum = crc32c(data)
        name = f"index-{checksum:08x}.json"
        self._lock.check()
        self._store.write(f"{prefix}/{name}", data)
        return name, checksum

    def _tell_gaps(self, ledger: Ledger) -> None:
        """Name the coordinates that a lost commit may have held."""
        recorded = {
            step for f in ledger.fields.values() if f.spec.place.stepped for step in f.steps
        }
        axes = (
            ("step", ledger.step_coordinates, recorded),
            ("sample", ledger.sample_coordinates, set(range(ledger.samples))),
        )
        for axis, coordinates, positions in axes:
            for coordinate in coordinates.values():
                gaps = sorted(positions - coordinate.values.keys())
                if gaps:
                    shown = ", ".join(map(str, gaps[:_MOST_NAMED]))
                    more = f" and {len(gaps) - _MOST_NAMED} more" if len(gaps) > _MOST_NAMED else ""
                    detail = (
                        f"no commit holds coordinate {coordinate.name!r} of {axis} {shown}{more}"
                    )
                    key = run_prefix(self._run_id)
                    self.lost.append(Found(Finding.COMMIT_LOST, key, detail))

    def _put(self, found: Found, key: str, document: Document, detail: str) -> None:
        self._lock.check()
        self._store.write(key, document_bytes(document))
        self.done.append(Action(found.finding, found.key, detail))


def _of(survey: Survey, *findings: Finding) -> list[Found]:
    return [found for found in survey.found if found.finding in findings]


def _totals(ledger: Ledger) -> tuple[int, int]:
    fields = ledger.fields.values()
    return sum(field.count for field in fields), sum(field.nbytes for field in fields)


def _claim(survey: Survey, epoch: EpochSurvey) -> Claim:
    """Return a claim of the samples that the epoch recorded, if other writers own parts."""
    claims = [one.claim for one in survey.epochs.values() if one.claim is not None]
    parts = []
    times = []
    for commit in survey.commits():
        if (commit.writer, commit.epoch) != (epoch.writer, epoch.epoch):
            continue
        times.append(commit.time)
        for tiles in commit.tiles:
            size = survey.fields[tiles.field].tile if tiles.field in survey.fields else 0
            parts += [
                (tile * size, tile * size + count)
                for tile, count in zip(tiles.tile, tiles.samples, strict=True)
                if size
            ]
    owned = any(claim.samples is not None for claim in claims) and parts
    return Claim(
        writer=epoch.writer,
        epoch=epoch.epoch,
        nonce="",
        time=min(times, default=datetime.now(UTC)),
        samples=(min(parts)[0], max(stop for _, stop in parts)) if owned else None,
    )


def _last_word(epoch: EpochSurvey) -> Heartbeat:
    end = epoch.ends.get(epoch.length - 1)
    closed = end is not None and end.end == "closed"
    return Heartbeat(
        writer=epoch.writer,
        epoch=epoch.epoch,
        time=datetime.now(UTC) if end is None else end.time,
        state="closed" if closed else "failed",
        error="" if closed else "its last word was lost",
    )
