"""A reader sees whole commits, in any state of the run, or is told what is wrong."""

from datetime import UTC, datetime
from typing import Final

import orjson
import pytest
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    FormatError,
    NotFoundError,
)
from archive_schema.layout import commit_key, field_key, manifest_key
from archive_schema.models import (
    Claim,
    Commit,
    FieldSpec,
    Heartbeat,
    RunManifest,
    RunStatus,
    StepColumn,
    TileColumns,
)
from archive_schema.records import (
    RunRecords,
    claim_epoch,
    create_run,
    declare_field,
    put_commit,
    put_heartbeat,
    read_manifest,
    run_ids,
)
from archive_schema.store import Store

NOW: Final = datetime.now(UTC)
MANIFEST: Final = RunManifest(id="run", uid="u", created=NOW, steps=10, samples=4)
SPEC: Final = FieldSpec(
    name="x", dims=("step", "sample"), tile=4, block=(4,), dtype="float32",
    stored_dtype="float32", source_dtype="float32",
)  # fmt: skip


def commit_of(step: int, sequence: int, epoch: int = 0) -> Commit:
    tiles = TileColumns(
        field="trace/x", step=(step,), tile=(0,), samples=(4,), nbytes=(9,), crc32c=(step,),
        crc32=(step,), blocks=((5,),),
    )  # fmt: skip
    column = StepColumn(name="t", dtype="float64", step=(step,), value=(step / 10,))
    return Commit(
        writer="main", epoch=epoch, sequence=sequence, time=NOW, tiles=(tiles,), steps=(column,)
    )


@pytest.fixture
def declared(store: Store) -> Store:
    create_run(store, MANIFEST)
    declare_field(store, "run", SPEC)
    claim_epoch(store, "run", Claim(writer="main", epoch=0, nonce="n", time=NOW))
    return store


def test_a_run_is_created_once(declared: Store) -> None:
    with pytest.raises(ConflictError) as caught:
        create_run(declared, MANIFEST)

    assert caught.value.kind is ErrorKind.RUN_EXISTS
    assert read_manifest(declared, "run") == MANIFEST
    assert run_ids(declared) == ["run"]


def test_a_field_is_declared_once_or_equally(declared: Store) -> None:
    declare_field(declared, "run", SPEC)

    with pytest.raises(ConflictError, match="dtype 'float32', now 'float64'") as caught:
        declare_field(declared, "run", SPEC.model_copy(update={"dtype": "float64"}))

    assert caught.value.kind is ErrorKind.FIELD_DIFFERS


def test_each_opening_has_an_epoch_of_its_own(declared: Store) -> None:
    claim = Claim(writer="main", epoch=0, nonce="m", time=NOW)

    assert claim_epoch(declared, "run", claim).epoch == 1
    assert claim_epoch(declared, "run", claim).epoch == 2
    other = claim.model_copy(update={"writer": "other"})
    assert claim_epoch(declared, "run", other).epoch == 0


def test_a_reader_follows_the_commits(declared: Store) -> None:
    records = RunRecords(declared, "run")
    assert not records.ledger.steps

    put_commit(declared, "run", commit_of(3, 0))
    assert records.refresh()
    put_commit(declared, "run", commit_of(1, 1))
    put_commit(declared, "run", commit_of(7, 2))
    assert records.refresh()

    assert records.ledger.steps == (1, 3, 7)
    assert records.ledger.step_coordinates["t"].values == {3: 0.3, 1: 0.1, 7: 0.7}
    assert not records.refresh()


def test_commits_of_a_later_epoch_are_read_too(declared: Store) -> None:
    put_commit(declared, "run", commit_of(0, 0))
    records = RunRecords(declared, "run")
    claim_epoch(declared, "run", Claim(writer="main", epoch=1, nonce="m", time=NOW))

    put_commit(declared, "run", commit_of(1, 0, epoch=1))

    assert records.refresh()
    assert records.ledger.steps == (0, 1)


def test_an_unknown_run_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no run 'nobody'") as caught:
        RunRecords(store, "nobody")

    assert caught.value.kind is ErrorKind.RUN_NOT_FOUND


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ErrorKind.RECORD_DAMAGED),
        (b"{", ErrorKind.RECORD_DAMAGED),
        (b"[]", ErrorKind.RECORD_DAMAGED),
        (b'{"format": "other"}', ErrorKind.RECORD_DAMAGED),
        (b'{"format_version": 2, "new": 1}', ErrorKind.FORMAT_VERSION_UNSUPPORTED),
    ],
)
def test_a_manifest_that_is_none_is_named(store: Store, data: bytes, kind: ErrorKind) -> None:
    store.write(manifest_key("run"), data)

    with pytest.raises(FormatError, match=r"run\.json") as caught:
        RunRecords(store, "run")

    assert caught.value.kind is kind


def test_a_damaged_commit_is_named(declared: Store) -> None:
    put_commit(declared, "run", commit_of(0, 0))
    declared.write(commit_key("run", "main", 0, 1), b'{"writer": "main"')

    with pytest.raises(FormatError, match=r"00000001\.json") as caught:
        RunRecords(declared, "run")

    assert caught.value.kind is ErrorKind.RECORD_DAMAGED


def test_a_lost_declaration_is_damage_not_absence(declared: Store) -> None:
    put_commit(declared, "run", commit_of(0, 0))
    declared.delete(field_key("run", "trace/x"))

    with pytest.raises(FormatError, match="declaration") as caught:
        RunRecords(declared, "run")

    assert caught.value.kind is ErrorKind.RECORD_DAMAGED


def test_an_unknown_member_is_refused(declared: Store) -> None:
    """A reader that skipped it could read the run wrongly."""
    values = orjson.loads(declared.read(manifest_key("run"))) | {"more": 1}
    del values["crc32c"]
    body = orjson.dumps(values)[:-1]
    declared.write(manifest_key("run"), b'%b,"crc32c":%d}' % (body, crc32c(body)))

    with pytest.raises(ArchiveError, match="more"):
        RunRecords(declared, "run")


@pytest.mark.parametrize("at", range(0, 320, 40))
def test_a_flipped_bit_in_a_document_is_damage(declared: Store, at: int) -> None:
    """Also where it turns a number into another number."""
    put_commit(declared, "run", commit_of(3, 0))
    key = commit_key("run", "main", 0, 0)
    data = bytearray(declared.read(key))
    data[at] ^= 1
    declared.write(key, bytes(data))

    with pytest.raises(FormatError, match=r"00000000\.json") as caught:
        RunRecords(declared, "run")

    assert caught.value.kind is ErrorKind.RECORD_DAMAGED


def test_long_chains_of_many_writers_are_read_whole(declared: Store) -> None:
    """In windows that double, in parallel where an answer takes a round trip."""
    for writer in ("main", "other"):
        for epoch in range(2):
            claim = Claim(writer=writer, epoch=epoch, nonce="n", time=NOW)
            for sequence in range(20 * epoch + 3):
                step = 100 * (writer == "other") + 50 * epoch + sequence
                commit = commit_of(step, sequence, epoch).model_copy(update={"writer": writer})
                put_commit(declared, "run", commit)
            assert claim.epoch == epoch

    records = RunRecords(declared, "run")

    assert len(records.ledger.steps) == 2 * (3 + 23)
    assert records.marks == {(w, e): 20 * e + 3 for w in ("main", "other") for e in range(2)}


def test_a_fence_ends_an_epoch_after_what_it_committed(declared: Store) -> None:
    """The writer may be alive: its next number is taken, and nothing can follow."""
    reader = RunRecords(declared, "run")
    put_commit(declared, "run", commit_of(0, 0))
    put_commit(declared, "run", commit_of(1, 1))
    assert reader.open_epochs == [("main", 0)]

    reader.fence("main", 0, "replaced", "by somebody")
    reader.fence("main", 0, "sealed", "once is enough")

    assert reader.ledger.steps == (0, 1)
    assert reader.open_epochs == []
    with pytest.raises(ConflictError):
        put_commit(declared, "run", commit_of(2, 2))
    again = RunRecords(declared, "run")
    assert again.ledger.steps == (0, 1)
    assert again.marks == {("main", 0): 3}
    put_commit(declared, "run", commit_of(3, 3))
    assert not again.refresh()
    assert RunRecords(declared, "run").ledger.steps == (0, 1)


def test_a_run_whose_writers_have_gone_is_incomplete(declared: Store) -> None:
    # Made now: how long ago the other tests' manifest was made depends on what ran before.
    fresh = MANIFEST.model_copy(update={"id": "fresh", "created": datetime.now(UTC)})
    create_run(declared, fresh)
    assert RunRecords(declared, "fresh").status() is RunStatus.RECORDING
    records = RunRecords(declared, "run")
    heartbeat = Heartbeat(writer="main", epoch=0, time=NOW)

    put_heartbeat(declared, "run", heartbeat)
    assert records.status() is RunStatus.RECORDING
    failed = heartbeat.model_copy(update={"state": "failed", "error": "disk full"})
    put_heartbeat(declared, "run", failed)
    assert records.status() is RunStatus.INCOMPLETE
    put_heartbeat(declared, "run", heartbeat.model_copy(update={"writer": "other"}))
    assert records.status() is RunStatus.RECORDING
