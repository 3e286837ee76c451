"""What the documents of a run say, read around whatever of them is lost or damaged.

`RunRecords` refuses a run of which anything cannot be trusted; who checks or repairs one has to
know everything else. What is wrong is kept as findings, and what the rest says is the ledger.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastcrc.crc32 import iscsi as crc32c

from archive_schema.documents import parse_document
from archive_schema.errors import ArchiveError, ErrorKind, FormatError, NotFoundError
from archive_schema.generations import Generation
from archive_schema.hierarchy import declared_field, declared_run
from archive_schema.layout import (
    ZARR,
    claim_key,
    commit_key,
    commits_prefix,
    field_key,
    field_path,
    generation_key,
    heartbeat_key,
    manifest_key,
    run_prefix,
    seal_key,
    sealing_key,
    zarr_key,
)
from archive_schema.ledger import Ledger
from archive_schema.models import (
    Claim,
    Commit,
    FieldSpec,
    Heartbeat,
    Index,
    RunManifest,
    Seal,
    Sealing,
    check_run_id,
)
from archive_schema.records import STALE_AFTER_S, shard_tables
from archive_schema.withdrawn import Withdrawn
from recorder.maintenance.findings import Finding, Found
from recorder.maintenance.names import commit_named
from recorder.maintenance.reading import document_at, mapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from archive_schema.generations import ShardTable
    from archive_schema.store import Store


@dataclass(slots=True)
class EpochSurvey:
    """One opening of the run by one writer."""

    writer: str
    epoch: int
    claim: Claim | None = None
    claimed_s: float | None = None
    """When the claim was stored: seconds since the epoch, by the store's clock."""
    commits: set[int] = field(default_factory=set)
    """Numbers of the commits that could be read."""
    damaged: set[int] = field(default_factory=set)
    ends: dict[int, Commit] = field(default_factory=dict)
    """The commits that end the epoch, by their numbers; one, unless something is wrong."""
    heard_s: float = 0.0
    """When its writer was last heard of, by the store's clock; 0 if that is not known."""

    @property
    def length(self) -> int:
        """One more than the last number that is there."""
        return max((*self.commits, *self.damaged), default=-1) + 1

    @property
    def lost(self) -> list[int]:
        """Numbers that must have been there."""
        return sorted({*range(self.length)} - self.commits - self.damaged)

    @property
    def hiding(self) -> list[int]:
        """Numbers of ends that were put in place of a lost commit: later commits are there."""
        return sorted(end for end in self.ends if end + 1 < self.length)

    @property
    def broken(self) -> list[int]:
        """Numbers of commits whose content is not known."""
        return sorted((*self.lost, *self.damaged, *self.hiding))

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.length - 1 in self.ends


class Survey:
    """The readable documents of a run, and what is wrong with the others.

    Raises
    ------
    NotFoundError
        ``run-not-found`` if the run has no object at all.
    FormatError
        ``format-version-unsupported``.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = check_run_id(run_id)
        self.prefix = run_prefix(run_id)
        self.found: list[Found] = []
        self.sealing: Sealing | None = None
        self.seal: Seal | None = None
        self.generation: Generation | None = None
        self.shards: Mapping[str, ShardTable] = {}
        self.index: Index | None = None
        self.ledger = Ledger()
        self.fields: dict[str, FieldSpec] = {}
        self.heartbeats: dict[str, Heartbeat] = {}
        self._heard_s: dict[str, float] = {}
        self.epochs: dict[tuple[str, int], EpochSurvey] = {}
        self._withdrawn = Withdrawn()
        self.manifest = self._manifest()
        self._read_fields()
        # In this order: a writer ends its epoch before it says that it closed.
        self._read_heartbeats()
        self._read_claims()
        self._read_seal()
        self._read_commits()
        self._check_claims()
        self._read_generations()
        self._judge_epochs()

    @property
    def sealed(self) -> bool:
        """Whether the run has a seal, be it damaged."""
        return self.seal is not None or any(f.finding is Finding.SEAL_DAMAGED for f in self.found)

    @property
    def zarr(self) -> str:
        """Return the folder of the run's current Zarr hierarchy."""
        return ZARR if self.generation is None else self.generation.zarr

    @property
    def broken(self) -> bool:
        """Whether the content of any commit is not known."""
        return any(epoch.broken for epoch in self.epochs.values())

    @property
    def open_epochs(self) -> list[EpochSurvey]:
        """Return the epochs that may still commit."""
        return [epoch for epoch in self.epochs.values() if not epoch.ended]

    def alive(self, epoch: EpochSurvey) -> bool:
        """Return whether the writer of an epoch was heard of within a minute; a hint for people."""
        now_s = max((time.time(), *(one.heard_s for one in self.epochs.values())))
        beat = self.heartbeats.get(epoch.writer)
        said_end = beat is not None and beat.epoch == epoch.epoch and beat.state != "recording"
        return not (epoch.ended or said_end) and now_s - epoch.heard_s <= STALE_AFTER_S

    def commits(self) -> Iterator[Commit]:
        """Read every readable commit again; those of one epoch in order."""
        keys = (
            self._commit_key(epoch, number)
            for epoch in self.epochs.values()
            for number in sorted(epoch.commits - {*epoch.hiding})
        )
        for commit in mapped(self.store, self._commit, keys):
            if isinstance(commit, Commit):
                yield self._withdrawn.left_of(commit)

    def report(self, finding: Finding, key: str, detail: object, *, repairable: bool) -> None:
        """Take note of something that is wrong."""
        self.found.append(Found(finding, key, str(detail), repairable))

    def _manifest(self) -> RunManifest | None:
        key = manifest_key(self.run_id)
        copy = self._declared_run()
        try:
            manifest = document_at(self.store, key, RunManifest)
        except FormatError as error:
            # Where the copy is of this version, it is the version's number that was damaged.
            if copy is None:
                raise
            manifest = error
        if isinstance(manifest, RunManifest) and manifest.id == self.run_id:
            return manifest
        if manifest is None:
            if copy is None and not any(True for _ in self.store.objects(self.prefix)):
                message = f"{self.store.url} has no run {self.run_id!r}"
                raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message)
            self.report(Finding.MANIFEST_LOST, key, "it is not there", repairable=copy is not None)
        else:
            wrong = (
                f"it declares run {manifest.id!r}"
                if isinstance(manifest, RunManifest)
                else manifest
            )
            self.report(Finding.MANIFEST_DAMAGED, key, wrong, repairable=copy is not None)
        return copy

    def _declared_run(self) -> RunManifest | None:
        try:
            manifest = declared_run(self.store.read(zarr_key(self.run_id, "zarr.json")))
        except (NotFoundError, FormatError):
            return None
        return manifest if manifest.id == self.run_id else None

    def _read_fields(self) -> None:
        keys = sorted(one.key for one in self.store.objects(f"{self.prefix}/fields"))
        found = mapped(self.store, lambda key: document_at(self.store, key, FieldSpec), keys)
        for key, spec in zip(keys, found, strict=True):
            path = key.removeprefix(f"{self.prefix}/fields/").removesuffix(".json")
            if isinstance(spec, FieldSpec) and field_path(*spec.address) == path:
                self.fields[path] = spec
            elif spec is not None:
                wrong = (
                    f"it declares {field_path(*spec.address)!r}"
                    if isinstance(spec, FieldSpec)
                    else str(spec)
                )
                self._stand_in(path, Finding.FIELD_DAMAGED, wrong)

    def _stand_in(self, path: str, finding: Finding, detail: str) -> None:
        """Take the declaration of a field from the metadata of its array."""
        spec = self._declared_field(path)
        if spec is not None:
            self.fields[path] = spec
        self.report(finding, field_key(self.run_id, path), detail, repairable=spec is not None)

    def _declared_field(self, path: str) -> FieldSpec | None:
        name = path.rpartition("/")[2]
        for one in self.store.objects(zarr_key(self.run_id, "").rstrip("/")):
            if one.key.endswith(f"/{name}/zarr.json"):
                try:
                    spec = declared_field(self.store.read(one.key))
                except (NotFoundError, FormatError):
                    continue
                if field_path(*spec.address) == path:
                    return spec
        return None

    def _read_heartbeats(self) -> None:
        for one in sorted(self.store.objects(f"{self.prefix}/heartbeats"), key=lambda o: o.key):
            writer = one.key.rpartition("/")[2].removesuffix(".json")
            self._heard_s[writer] = one.modified_s
            beat = document_at(self.store, one.key, Heartbeat)
            if isinstance(beat, Heartbeat) and beat.writer == writer:
                self.heartbeats[writer] = beat
            elif beat is not None:
                wrong = "it is another writer's" if isinstance(beat, Heartbeat) else beat
                self.report(Finding.HEARTBEAT_DAMAGED, one.key, wrong, repairable=True)

    def _read_claims(self) -> None:
        for one in sorted(self.store.objects(commits_prefix(self.run_id)), key=lambda o: o.key):
            named = commit_named(one.key)
            if named is None:
                continue
            writer, number, sequence = named
            epoch = self.epochs.setdefault((writer, number), EpochSurvey(writer, number))
            if sequence is None:
                epoch.claimed_s = epoch.heard_s = one.modified_s
            else:
                epoch.commits.add(sequence)
        keys = [claim_key(self.run_id, *at) for at in self.epochs]
        claims = mapped(self.store, lambda key: document_at(self.store, key, Claim), keys)
        for epoch, key, claim in zip(self.epochs.values(), keys, claims, strict=True):
            said = isinstance(claim, Claim) and (claim.writer, claim.epoch)
            if isinstance(claim, Claim) and said == (epoch.writer, epoch.epoch):
                epoch.claim = claim
            elif claim is not None:
                wrong = "it claims another epoch" if isinstance(claim, Claim) else claim
                self.report(Finding.CLAIM_DAMAGED, key, wrong, repairable=True)
            beat = self.heartbeats.get(epoch.writer)
            if beat is not None and beat.epoch == epoch.epoch:
                epoch.heard_s = self._heard_s[epoch.writer]

    def _check_claims(self) -> None:
        """Report claims that are not there, but for those of who was ended before it claimed."""
        reported = {one.key for one in self.found}
        for at, epoch in self.epochs.items():
            key = claim_key(self.run_id, *at)
            ended_unborn = epoch.length == 1 and 0 in epoch.ends
            if epoch.claim is None and key not in reported and not ended_unborn:
                self.report(Finding.CLAIM_LOST, key, "its epoch has commits", repairable=True)

    def _read_seal(self) -> None:
        sealing = document_at(self.store, sealing_key(self.run_id), Sealing)
        seal = document_at(self.store, seal_key(self.run_id), Seal)
        if isinstance(sealing, Sealing):
            self.sealing = sealing
        elif sealing is not None:
            self.report(Finding.SEALING_DAMAGED, sealing_key(self.run_id), sealing, repairable=True)
        elif seal is not None:
            detail = "the run has a seal"
            self.report(Finding.SEALING_LOST, sealing_key(self.run_id), detail, repairable=True)
        if isinstance(seal, Seal):
            self.seal = seal
            self._read_index(seal)
        elif seal is not None:
            self.report(Finding.SEAL_DAMAGED, seal_key(self.run_id), seal, repairable=True)

    def _read_index(self, seal: Seal) -> None:
        key = f"{self.prefix}/{seal.index}"
        try:
            data = self.store.read(key)
        except NotFoundError:
            self.report(Finding.INDEX_LOST, key, "the seal names it", repairable=True)
            return
        try:
            self.index = index_of(data, seal.index_crc32c, key)
        except ArchiveError as error:
            self.report(Finding.INDEX_DAMAGED, key, error, repairable=True)
            return
        for spec in self.index.fields:
            path = field_path(*spec.address)
            known = self.fields.get(path)
            if known is None:
                if not any(f.key == field_key(self.run_id, path) for f in self.found):
                    detail = "the index has its field"
                    key = field_key(self.run_id, path)
                    self.report(Finding.FIELD_LOST, key, detail, repairable=True)
                self._mark_repairable(field_key(self.run_id, path))
            elif known != spec:
                detail = "the index declares its field otherwise"
                key = field_key(self.run_id, path)
                self.report(Finding.FIELD_DAMAGED, key, detail, repairable=True)
            self.fields[path] = spec
        self.ledger = ledger_of(self.index)

    def _read_generations(self) -> None:
        number = 1
        while self.seal is not None and self.manifest is not None:
            key = generation_key(self.run_id, number)
            found = document_at(self.store, key, Generation)
            if found is None:
                return
            try:
                if isinstance(found, FormatError):
                    raise found
                self.shards = shard_tables(found, self.manifest, self.ledger)
                self.generation = found
            except FormatError as error:
                self.report(Finding.GENERATION_DAMAGED, key, error, repairable=False)
            number += 1

    def _mark_repairable(self, key: str) -> None:
        self.found = [
            Found(one.finding, one.key, one.detail, one.repairable or one.key == key)
            for one in self.found
        ]

    def _read_commits(self) -> None:
        """Read every commit, and anew once it is known which tiles are withdrawn."""
        # Numbers that were not listed too: a listing is not made in one moment.
        numbers = [(epoch, n) for epoch in self.epochs.values() for n in range(epoch.length)]
        keys = [self._commit_key(*one) for one in numbers]
        for (epoch, number), commit in zip(
            numbers, mapped(self.store, self._commit, keys), strict=True
        ):
            key = self._commit_key(epoch, number)
            said = (epoch.writer, epoch.epoch, number)
            if (
                isinstance(commit, Commit)
                and (commit.writer, commit.epoch, commit.sequence) == said
            ):
                epoch.commits.add(number)
                if commit.end:
                    epoch.ends[number] = commit
                self._withdrawn.add([commit])
                self._add(commit)
                continue
            epoch.commits.discard(number)
            if commit is not None:
                epoch.damaged.add(number)
                wrong = "it is another commit" if isinstance(commit, Commit) else commit
                self.report(Finding.COMMIT_DAMAGED, key, wrong, repairable=True)
        if self._withdrawn.count and self.index is None:
            fields = self.ledger.fields
            self.ledger = Ledger()
            for path, known in fields.items():
                self.ledger.declare(path, known.spec)
            for commit in self.commits():
                self._add(commit)

    def _add(self, commit: Commit) -> None:
        """Add to the ledger what can be: the index of a sealed run says all that counts."""
        for path in {tiles.field for tiles in commit.tiles}:
            if path not in self.fields and not any(
                one.key == field_key(self.run_id, path) for one in self.found
            ):
                self._stand_in(path, Finding.FIELD_LOST, "a commit names its tiles")
        if self.index is not None:
            return
        known = tuple(tiles for tiles in commit.tiles if tiles.field in self.fields)
        for tiles in known:
            self.ledger.declare(tiles.field, self.fields[tiles.field])
        self.ledger.add(commit.model_copy(update={"tiles": known}))

    def _judge_epochs(self) -> None:
        for epoch in self.epochs.values():
            for number in epoch.lost:
                detail = "later commits of its epoch are there"
                key = self._commit_key(epoch, number)
                self.report(Finding.COMMIT_LOST, key, detail, repairable=True)
            for number in epoch.hiding:
                detail = "it ends its epoch, and commits follow it: it was put where one was lost"
                key = self._commit_key(epoch, number)
                self.report(Finding.COMMIT_DAMAGED, key, detail, repairable=True)
            self._judge_end(epoch)
        for writer in {
            epoch.writer for epoch in self.epochs.values() if epoch.commits - {*epoch.ends}
        }:
            key = heartbeat_key(self.run_id, writer)
            if writer not in self.heartbeats and not any(one.key == key for one in self.found):
                detail = "its writer committed"
                self.report(Finding.HEARTBEAT_LOST, key, detail, repairable=True)
        if self.sealing is not None and not self.sealed:
            detail = f"begun at {self.sealing.time:%Y-%m-%d %H:%M:%S} UTC by {self.sealing.host}"
            key = sealing_key(self.run_id)
            self.report(Finding.SEALING_UNFINISHED, key, detail, repairable=True)

    def _judge_end(self, epoch: EpochSurvey) -> None:
        beat = self.heartbeats.get(epoch.writer)
        if epoch.ended:
            return
        if beat is not None and beat.epoch == epoch.epoch and beat.state == "closed":
            if not epoch.broken:
                key = self._commit_key(epoch, epoch.length)
                detail = "its writer said that it closed, and its epoch has no end"
                self.report(Finding.COMMIT_LOST, key, detail, repairable=True)
        elif not self.alive(epoch):
            key = claim_key(self.run_id, epoch.writer, epoch.epoch)
            detail = f"epoch {epoch.epoch} of writer {epoch.writer!r} has no end"
            self.report(Finding.WRITER_LOST, key, detail, repairable=False)

    def _commit(self, key: str) -> Commit | FormatError | None:
        return document_at(self.store, key, Commit)

    def _commit_key(self, epoch: EpochSurvey, number: int) -> str:
        return commit_key(self.run_id, epoch.writer, epoch.epoch, number)


def index_of(data: bytes, checksum: int, key: str) -> Index:
    """Return the index of a sealed run.

    Raises
    ------
    FormatError
        ``record-damaged``.
    """
    if crc32c(data) != checksum:
        message = "its CRC32C is not the one that the seal or its name says"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message)
    return parse_document(data, key, Index)


def ledger_of(index: Index) -> Ledger:
    """Return the ledger of a sealed run."""
    ledger = Ledger()
    for spec in index.fields:
        ledger.declare(field_path(*spec.address), spec)
    ledger.add(index)
    return ledger
