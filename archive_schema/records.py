"""The documents of a run in a store: created, read, and kept up to date while it is recorded.

Order of creation is what readers rely on: a field's declaration and a tile's object are
there before the commit that names them, and an index before the seal that names it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fastcrc.crc32 import iscsi as crc32c

from archive_schema.asked import Asked
from archive_schema.chain import Chain
from archive_schema.documents import document_bytes, parse_document, read_bytes, read_document
from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    NotFoundError,
)
from archive_schema.generations import Generation, ShardTable
from archive_schema.layout import (
    RUNS,
    ZARR,
    claim_key,
    commit_key,
    commits_prefix,
    epoch_prefix,
    field_key,
    field_path,
    generation_key,
    heartbeat_key,
    manifest_key,
    run_prefix,
    seal_key,
    sealing_key,
)
from archive_schema.ledger import Ledger
from archive_schema.models import (
    Claim,
    Commit,
    End,
    FieldSpec,
    Heartbeat,
    Index,
    RunManifest,
    RunStatus,
    Seal,
    Sealing,
    check_run_id,
)
from archive_schema.withdrawn import Withdrawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from archive_schema.store import Store

STALE_AFTER_S: Final = 60.0
"""A writer that has not been heard of for so long is taken for gone."""


def run_ids(store: Store) -> list[str]:
    """Return the ids of all runs in *store*, sorted."""
    return store.folders(RUNS)


def create_run(store: Store, manifest: RunManifest) -> None:
    """Declare a run.

    Raises
    ------
    ConflictError
        ``run-exists``.
    """
    try:
        store.create(manifest_key(manifest.id), document_bytes(manifest))
    except ConflictError as error:
        message = f"{store.url} already has a run {manifest.id!r}"
        raise ConflictError(ErrorKind.RUN_EXISTS, message) from error


def read_manifest(store: Store, run_id: str) -> RunManifest:
    """Return what the run declares.

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    """
    try:
        return read_document(store, manifest_key(check_run_id(run_id)), RunManifest)
    except NotFoundError as error:
        message = f"{store.url} has no run {run_id!r}"
        raise NotFoundError(ErrorKind.RUN_NOT_FOUND, message) from error


def declare_field(store: Store, run_id: str, spec: FieldSpec) -> None:
    """Declare a field; nothing happens if it is declared equally already.

    Raises
    ------
    ConflictError
        ``field-differs``.
    """
    key = field_key(run_id, field_path(*spec.address))
    try:
        store.create(key, document_bytes(spec))
    except ConflictError as error:
        known = read_document(store, key, FieldSpec)
        if known != spec:
            differing = [
                f"{name} {getattr(known, name)!r}, now {getattr(spec, name)!r}"
                for name in FieldSpec.model_fields
                if getattr(known, name) != getattr(spec, name)
            ]
            message = f"field {spec.name!r} is declared otherwise: {'; '.join(differing)}"
            raise ConflictError(ErrorKind.FIELD_DIFFERS, message) from error


def claim_epoch(store: Store, run_id: str, claim: Claim) -> Claim:
    """Claim the next free epoch of the writer, so that no two processes share a key."""
    taken = store.folders(f"{commits_prefix(run_id)}/{claim.writer}")
    epoch = int(taken[-1]) + 1 if taken else 0
    while True:
        claimed = claim.model_copy(update={"epoch": epoch})
        try:
            store.create(claim_key(run_id, claim.writer, epoch), document_bytes(claimed))
        except ConflictError:
            epoch += 1
        else:
            return claimed


def put_commit(store: Store, run_id: str, commit: Commit) -> str:
    """Make tiles and coordinates visible; return the commit's key."""
    key = commit_key(run_id, commit.writer, commit.epoch, commit.sequence)
    store.create(key, document_bytes(commit))
    return key


def put_heartbeat(store: Store, run_id: str, heartbeat: Heartbeat) -> None:
    """Tell readers that the writer is there, or why it has gone."""
    store.write(heartbeat_key(run_id, heartbeat.writer), document_bytes(heartbeat))


def begin_sealing(store: Store, run_id: str, sealing: Sealing) -> None:
    """Let no opening of the run succeed from here; nothing happens if that is so already."""
    try:
        store.create(sealing_key(run_id), document_bytes(sealing))
    except ConflictError:
        return


class RunRecords:
    """One run as readers see it: what it declares and what is recorded, kept by `refresh`.

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self._asked = Asked(store)
        self.manifest = read_manifest(store, run_id)
        self.seal: Seal | None = None
        self.generation: Generation | None = None
        """Where the values of a sealed run lie since it was rewritten; None as recorded."""
        self.shards: Mapping[str, ShardTable] = {}
        """By field's path, those of fields that lie in shards."""
        self.ledger = Ledger()
        self._chains: dict[tuple[str, int], Chain] = {}
        self._claims: dict[tuple[str, int], Claim] = {}
        self._withdrawn = Withdrawn()
        self._heard: dict[str, tuple[Heartbeat, float]] = {}
        """The latest word of each writer, and when it was new, by this process's steady clock."""
        # Most runs that are opened are sealed.
        self._asked.begin([seal_key(run_id), generation_key(run_id, 1)])
        self.refresh()

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.manifest.id

    @property
    def zarr(self) -> str:
        """Return the folder of the run's current Zarr hierarchy."""
        return ZARR if self.generation is None else self.generation.zarr

    @property
    def marks(self) -> dict[tuple[str, int], int]:
        """Commits read so far, by writer and epoch; none of a run that was sealed when opened."""
        return {at: chain.length for at, chain in self._chains.items() if chain.length}

    @property
    def withdrawn(self) -> int:
        """Return how many tiles were withdrawn, so that others may be in their places."""
        return self._withdrawn.count

    @property
    def open_epochs(self) -> list[tuple[str, int]]:
        """Writer and epoch of those that may still commit, as the last `refresh` found them."""
        return sorted(at for at, chain in self._chains.items() if not chain.ended)

    def begin_refresh(self) -> None:
        """Ask a remote store at once for what `refresh`, which must follow, looks at first."""
        if self.seal is not None:
            self._asked.begin([generation_key(self.run_id, self._generation_number + 1)])
            return
        windows = (chain.window() for chain in self._chains.values() if not chain.ended)
        prefix = commits_prefix(self.run_id)
        writers = {f"{prefix}/{writer}" for writer, _ in self._chains}
        keys = [seal_key(self.run_id), *(key for window in windows for key in window)]
        self._asked.begin(keys, [prefix, *writers])

    def refresh(self) -> bool:
        """Read what was committed since the last call; return whether there was anything.

        Reading never waits: what is committed while it runs may be seen by the next call.
        """
        try:
            return self._refresh()
        finally:
            self._asked.forget()

    def _refresh(self) -> bool:
        if self.seal is not None:
            return self._read_generations()
        key = seal_key(self.run_id)
        data = self._asked.object(key)
        if data is None:
            return self._read_commits()
        seal = parse_document(data, f"{self.store.url}/{key}", Seal)
        self.ledger = self._sealed_ledger(seal)
        self._read_generations()
        self.seal = seal
        return True

    @property
    def epochs(self) -> list[Chain]:
        """Every opening of the run that the last `refresh` found; of a writer, in their order."""
        return [self._chains[at] for at in sorted(self._chains)]

    def claims(self) -> dict[tuple[str, int], Claim]:
        """Return the claims of `epochs`: who opened the run, and for which samples.

        An epoch without one is not open yet: a folder is there before the object in it.

        Raises
        ------
        FormatError
            ``record-damaged``.
        """
        unknown = [at for at in sorted(self._chains) if at not in self._claims]
        keys = [claim_key(self.run_id, *at) for at in unknown]
        for at, key, data in zip(unknown, keys, self._asked.objects(keys), strict=True):
            if data is not None:
                self._claims[at] = parse_document(data, f"{self.store.url}/{key}", Claim)
        return dict(self._claims)

    def heartbeats(self) -> dict[str, tuple[Heartbeat, float]]:
        """Return each writer's latest word, and when the store's clock says that it came.

        Raises
        ------
        FormatError
            ``record-damaged``.
        """
        found = list(self.store.objects(f"{run_prefix(self.run_id)}/heartbeats"))
        beats = {}
        for one, data in zip(found, self._asked.objects([one.key for one in found]), strict=True):
            if data is not None:
                beat = parse_document(data, f"{self.store.url}/{one.key}", Heartbeat)
                beats[beat.writer] = (beat, one.modified_s)
        return beats

    def is_sealing(self) -> bool:
        """Return whether somebody has begun to seal the run."""
        try:
            self.store.size(sealing_key(self.run_id))
        except NotFoundError:
            return False
        return True

    def add(self, commit: Commit) -> None:
        """Take note of a commit that this process put, so that it is not read back.

        The fields it names must have been declared in the ledger.
        """
        self._chain(commit.writer, commit.epoch).add([commit])
        self.ledger.add(commit)

    def fence(self, writer: str, epoch: int, end: End, reason: str) -> None:
        """End an epoch for good, after reading what it committed; its writer may be alive.

        Parameters
        ----------
        end, reason
            What the writer learns, should it try to commit once more.

        Raises
        ------
        FormatError
            ``record-damaged`` if a commit is lost before others: an end there would hide them.
        """
        chain = self._chain(writer, epoch)
        while True:
            self._read([chain])
            if chain.ended:
                return
            if self._is_followed(chain):
                if self._read([chain]):  # the writer was quicker than the listing
                    continue
                message = (
                    f"the commit {chain.key(chain.length)} is lost, and later ones are there:"
                    f" `trace-archive repair {self.run_id}` first"
                )
                raise FormatError(ErrorKind.RECORD_DAMAGED, message)
            last = Commit(
                writer=writer,
                epoch=epoch,
                sequence=chain.length,
                time=datetime.now(UTC),
                end=end,
                reason=reason,
            )
            try:
                put_commit(self.store, self.run_id, last)
            except ConflictError:  # the writer was quicker
                continue
            chain.add([last])
            return

    def status(self) -> RunStatus:
        """Return whether the run is sealed, being recorded, or left by its writers.

        Only the first look at a heartbeat compares this machine's clock with the store's. Who
        keeps looking goes by whether the word is a new one, so that a clock that jumps turns no
        live run into one that was left.
        """
        if self.seal is not None:
            return RunStatus.SEALED
        beats = self.heartbeats()
        recording = {name for name, (beat, _) in beats.items() if beat.state == "recording"}
        if beats and not recording:
            return RunStatus.INCOMPLETE
        if not beats:
            age_s = time.time() - self.manifest.created.timestamp()
        else:
            ages_s = self.ages_s(beats)
            age_s = min(ages_s[name] for name in recording)
        return RunStatus.INCOMPLETE if age_s > STALE_AFTER_S else RunStatus.RECORDING

    def ages_s(self, beats: Mapping[str, tuple[Heartbeat, float]]) -> dict[str, float]:
        """Return for how many seconds each writer had no new word, by `status`' clock."""
        return {name: self._age_s(name, *beat) for name, beat in beats.items()}

    def _age_s(self, writer: str, beat: Heartbeat, modified_s: float) -> float:
        """Return for how many seconds, as far as is known here, a writer had no new word."""
        now_s = time.monotonic()
        known = self._heard.get(writer)
        if known is None:
            known = self._heard[writer] = (beat, now_s - max(time.time() - modified_s, 0.0))
        elif known[0] != beat:
            known = self._heard[writer] = (beat, now_s)
        return now_s - known[1]

    def _read_commits(self) -> bool:
        prefix = commits_prefix(self.run_id)
        writers = self._asked.folders(prefix)
        listings = self._asked.listings([f"{prefix}/{writer}" for writer in writers])
        for writer, folders in zip(writers, listings, strict=True):
            for folder in folders:
                self._chain(writer, int(folder))
        return self._read([chain for chain in self._chains.values() if not chain.ended])

    def _read(self, chains: Sequence[Chain]) -> bool:
        """Read what is new in *chains*; return whether there was anything."""
        found = False
        while chains:
            windows = [chain.window() for chain in chains]
            objects = iter(self._asked.objects([key for window in windows for key in window]))
            new = [
                chain.parse([next(objects) for _ in window])
                for chain, window in zip(chains, windows, strict=True)
            ]
            # Whatever can fail comes first, so that nothing is taken in by halves.
            commits = [commit for part in new for commit in part]
            self._declare(tiles.field for commit in commits for tiles in commit.tiles)
            if self._withdrawn.add(commits):
                self._read_again()
                return True
            for commit in commits:
                self.ledger.add(self._withdrawn.left_of(commit))
            chains = [c for c, part in zip(chains, new, strict=True) if c.add(part)]
            found = found or bool(commits)
        return found

    def _read_again(self) -> None:
        """Read all commits anew, because some tiles that they name were withdrawn."""
        known = self.ledger.fields
        self.ledger = Ledger()
        for path, field in known.items():
            self.ledger.declare(path, field.spec)
        self._chains = {at: Chain(self.run_id, *at) for at in self._chains}
        self._read(list(self._chains.values()))

    def _is_followed(self, chain: Chain) -> bool:
        """Return whether there are later commits than the next to be read."""
        prefix = epoch_prefix(self.run_id, chain.writer, chain.epoch)
        numbers = (found.key.rpartition("/")[2] for found in self.store.objects(prefix))
        later = max((n for n in numbers if n[0].isdigit()), default="")
        return f"{chain.length:08d}.json" < later

    def _declare(self, paths: Iterable[str]) -> None:
        unknown = [path for path in dict.fromkeys(paths) if path not in self.ledger.fields]
        keys = [field_key(self.run_id, path) for path in unknown]
        for path, key, data in zip(unknown, keys, self._asked.objects(keys), strict=True):
            if data is None:
                message = f"the declaration {key} of a committed field is lost"
                raise FormatError(ErrorKind.RECORD_DAMAGED, message)
            spec = parse_document(data, f"{self.store.url}/{key}", FieldSpec)
            self.ledger.declare(path, spec)

    def _chain(self, writer: str, epoch: int) -> Chain:
        return self._chains.setdefault((writer, epoch), Chain(self.run_id, writer, epoch))

    @property
    def _generation_number(self) -> int:
        return 0 if self.generation is None else self.generation.number

    def _read_generations(self) -> bool:
        """Find the last generation; return whether it is a new one."""
        known = found = self._generation_number
        latest = None
        while (data := self._asked.object(generation_key(self.run_id, found + 1))) is not None:
            latest, found = data, found + 1
        if latest is None:
            return False
        where = f"{self.store.url}/{generation_key(self.run_id, found)}"
        generation = parse_document(latest, where, Generation)
        self.shards = shard_tables(generation, self.manifest, self.ledger)
        self.generation = generation
        return found != known

    def _sealed_ledger(self, seal: Seal) -> Ledger:
        key = f"{run_prefix(self.run_id)}/{seal.index}"
        try:
            data = read_bytes(self.store, key)
        except NotFoundError as error:
            message = f"the index {key} of a sealed run is lost"
            raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
        if crc32c(data) != seal.index_crc32c:
            message = f"the index {key} of a sealed run is damaged: its CRC32C does not fit"
            raise FormatError(ErrorKind.RECORD_DAMAGED, message)
        index = parse_document(data, key, Index)
        ledger = Ledger()
        for spec in index.fields:
            ledger.declare(field_path(*spec.address), spec)
        ledger.add(index)
        return ledger


def shard_tables(
    generation: Generation, manifest: RunManifest, ledger: Ledger
) -> dict[str, ShardTable]:
    """Return the shards of a sealed run by the paths of their fields.

    Raises
    ------
    FormatError
        ``record-damaged`` if the generation is not one of this run.
    """
    unknown = [one.field for one in generation.shards if one.field not in ledger.fields]
    if unknown or generation.uid != manifest.uid:
        message = f"generation {generation.number} in {generation.zarr} is another run's"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message)
    return {one.field: ShardTable(ledger.fields[one.field].spec, one) for one in generation.shards}
