"""The documents of a run in a store: created, read, and kept up to date while it is recorded.

Order of creation is what readers rely on: a field's declaration and a tile's object are
there before the commit that names them, and an index before the seal that names it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import orjson
from crc32c import crc32c
from pydantic import ValidationError

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    FormatError,
    NotFoundError,
)
from archive_schema.layout import (
    RUNS,
    claim_key,
    commit_key,
    commits_prefix,
    field_key,
    field_path,
    heartbeat_key,
    manifest_key,
    run_prefix,
    seal_key,
)
from archive_schema.ledger import Ledger
from archive_schema.models import (
    FORMAT_VERSION,
    Claim,
    Commit,
    Document,
    FieldSpec,
    Heartbeat,
    Index,
    RunManifest,
    RunStatus,
    Seal,
    check_run_id,
)

if TYPE_CHECKING:
    from archive_schema.store import Store

STALE_AFTER_S: Final = 60.0
"""A writer that has not been heard of for so long is taken for gone."""

_D = TypeVar("_D", bound=Document)


def read_document(store: Store, key: str, model: type[_D]) -> _D:
    """Read one JSON document.

    Raises
    ------
    NotFoundError
        ``object-not-found``.
    FormatError
        ``record-damaged`` if the object is no such document, and
        ``format-version-unsupported`` if a newer version wrote it.
    """
    return parse_document(store.read(key), f"{store.url}/{key}", model)


def parse_document(data: bytes, where: str, model: type[_D]) -> _D:
    """Validate one JSON document; errors as `read_document`."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"{where} is no JSON document: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error
    version = values.get("format_version", FORMAT_VERSION) if isinstance(values, dict) else None
    if version != FORMAT_VERSION and isinstance(version, int):
        message = f"{where} has format version {version}; this version reads {FORMAT_VERSION}"
        raise FormatError(ErrorKind.FORMAT_VERSION_UNSUPPORTED, message)
    try:
        return model.model_validate(values)
    except (ValidationError, ArchiveError) as error:
        message = f"{where} is no {model.__name__}: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error


def document_bytes(document: Document) -> bytes:
    """Return *document* as it is stored."""
    return document.model_dump_json(exclude_defaults=False).encode()


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


class RunRecords:
    """One run as readers see it: what it declares and what is recorded, kept by `refresh`.

    Raises
    ------
    NotFoundError
        ``run-not-found``.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.manifest = read_manifest(store, run_id)
        self.seal: Seal | None = None
        self.ledger = Ledger()
        self._next: dict[tuple[str, int], int] = {}
        self.refresh()

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.manifest.id

    @property
    def marks(self) -> dict[tuple[str, int], int]:
        """Commits read so far, by writer and epoch; none of a run that was sealed when opened."""
        return dict(self._next)

    def refresh(self) -> bool:
        """Read what was committed since the last call; return whether there was anything.

        Reading never waits: what is committed while it runs may be seen by the next call.
        """
        if self.seal is not None:
            return False
        try:
            seal = read_document(self.store, seal_key(self.run_id), Seal)
        except NotFoundError:
            return self._read_commits()
        self.ledger = self._sealed_ledger(seal)
        self.seal = seal
        return True

    def add(self, commit: Commit) -> None:
        """Take note of a commit that this process put, so that it is not read back.

        The fields it names must have been declared in the ledger.
        """
        self.ledger.add(commit)
        self._next[commit.writer, commit.epoch] = commit.sequence + 1

    def status(self) -> RunStatus:
        """Return whether the run is sealed, being recorded, or left by its writers."""
        if self.seal is not None:
            return RunStatus.SEALED
        latest_s = self.manifest.created.timestamp()
        states = set()
        for found in self.store.objects(f"{run_prefix(self.run_id)}/heartbeats"):
            states.add(read_document(self.store, found.key, Heartbeat).state)
            latest_s = max(latest_s, found.modified_s)
        if states and "recording" not in states:
            return RunStatus.INCOMPLETE
        gone = time.time() - latest_s > STALE_AFTER_S
        return RunStatus.INCOMPLETE if gone else RunStatus.RECORDING

    def _read_commits(self) -> bool:
        found = False
        prefix = commits_prefix(self.run_id)
        for writer in self.store.folders(prefix):
            for folder in self.store.folders(f"{prefix}/{writer}"):
                while self._read_next(writer, int(folder)):
                    found = True
        return found

    def _read_next(self, writer: str, epoch: int) -> bool:
        sequence = self._next.get((writer, epoch), 0)
        key = commit_key(self.run_id, writer, epoch, sequence)
        try:
            commit = read_document(self.store, key, Commit)
        except NotFoundError:
            return False
        for tiles in commit.tiles:
            if tiles.field not in self.ledger.fields:
                self.ledger.declare(tiles.field, self._declaration(tiles.field))
        self.ledger.add(commit)
        self._next[writer, epoch] = sequence + 1
        return True

    def _declaration(self, path: str) -> FieldSpec:
        key = field_key(self.run_id, path)
        try:
            return read_document(self.store, key, FieldSpec)
        except NotFoundError as error:
            message = f"the declaration {key} of a committed field is lost"
            raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error

    def _sealed_ledger(self, seal: Seal) -> Ledger:
        key = f"{run_prefix(self.run_id)}/{seal.index}"
        try:
            data = self.store.read(key)
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
