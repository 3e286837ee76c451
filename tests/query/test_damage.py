"""What is lost or damaged is an error that names it; it never passes for a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archive_schema.codecs import index_nbytes
from archive_schema.errors import ErrorKind, FormatError, NotFoundError
from archive_schema.layout import commit_key, field_key, manifest_key, run_prefix, seal_key
from archive_schema.models import Codec
from server.query import Archive
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from archive_schema.selection import Selector
    from archive_schema.store import Store

VALUES = np.arange(48, dtype=np.float32).reshape(8, 6)
CODECS = [Codec(name="raw"), Codec(name="zstd"), Codec(name="blosc")]


def recorded_run(store: Store, codec: Codec = CODECS[0]) -> Builder:
    """Write two steps of two tiles; a tile has two blocks of two samples."""
    run = Builder(store, samples=8)
    run.declare(spec_of("x", VALUES[:4], tile=4, block=(2, 6), codec=codec))
    return run.put_step("trace/x", VALUES, 0).put_step("trace/x", VALUES + 1, 1)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_flipped_bit_is_found_wherever_values_come_from_it(
    folder_store: Store, codec: Codec
) -> None:
    """Any byte of a block can rot. The shard index is not read, so it cannot mislead."""
    store = folder_store
    run = recorded_run(store, codec)
    key = run.key("trace/x", 1, 1)
    sound = store.read(key)
    ends = Archive(store).run("run").field("x").ledger.tile(1, 1)
    assert ends is not None
    blocks_nbytes = ends.ends[-1]
    assert len(sound) == blocks_nbytes + index_nbytes(2)
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        store.write(key, bytes(damaged))
        fresh = Archive(store)
        view = fresh.run("run").field("x")

        assert np.array_equal(view.select({"step": 0}).array(), VALUES)
        if at >= blocks_nbytes:
            assert np.array_equal(view.select({"step": 1}).array(), VALUES + 1)
            continue
        with pytest.raises(FormatError) as caught:
            view.select({"step": 1}).array()
        assert caught.value.kind is ErrorKind.TILE_DAMAGED
        assert "field 'trace/x' of run 'run', step 1, samples 4:8" in str(caught.value)
        assert key in str(caught.value)
        touched = slice(4, 6) if at < ends.ends[0] else slice(6, 8)
        other = slice(6, 8) if at < ends.ends[0] else slice(4, 6)
        with pytest.raises(FormatError):
            view.select({"step": 1, "sample": touched}).array()
        assert np.array_equal(view.select({"step": 1, "sample": other}).array(), VALUES[other] + 1)


def test_an_object_that_is_cut_short_is_damaged(store: Store, archive: Archive) -> None:
    """A disk that was full, or a copy that broke off."""
    run = recorded_run(store)
    key = run.key("trace/x", 0, 0)
    sound = store.read(key)
    for length in (0, 1, 51, 52, 53, 103):
        store.write(key, sound[:length])

        with pytest.raises(FormatError, match=f"cut short at {length} bytes") as caught:
            Archive(store).run("run").field("x").select({"step": 0}).array()

        assert caught.value.kind is ErrorKind.TILE_DAMAGED
    view = archive.run("run").field("x")
    with pytest.raises(FormatError, match="cut short"):
        view.select({"step": slice(None), "sample": 3}).array()
    assert np.array_equal(view.select({"sample": 0}).array(), [VALUES[0], VALUES[0] + 1])


def test_a_committed_object_that_is_gone_is_lost(store: Store, archive: Archive) -> None:
    """Zarr would read the fill value."""
    run = recorded_run(store)
    store.delete(run.key("trace/x", 1, 0))
    view = archive.run("run").field("x")

    selections: list[dict[str, Selector]] = [
        {"step": 1},
        {"sample": 2},
        {"step": 1, "sample": slice(0, 8, 2)},
    ]
    for chosen in selections:
        with pytest.raises(FormatError, match="step 1, samples 0:4 is lost") as caught:
            view.select(chosen).array()
        assert caught.value.kind is ErrorKind.TILE_LOST
    assert np.array_equal(view.select({"step": 1, "sample": 5}).array(), VALUES[5] + 1)


def test_an_object_without_a_commit_is_not_recorded(store: Store, archive: Archive) -> None:
    """A recorder that died between the object and its commit recorded nothing."""
    run = recorded_run(store)
    run.columns("trace/x", 2, 0, VALUES[:4])
    gap = run.columns("trace/x", 3, 0, VALUES[:4])
    run.commit(gap)
    store.delete(commit_key("run", "main", 0, 2))
    run.put("trace/x", VALUES[:4], 4)

    view = archive.run("run")

    assert view.steps == (0, 1)
    for step in (2, 3, 4):
        with pytest.raises(NotFoundError) as caught:
            view.field("x").select({"step": step})
        assert caught.value.kind is ErrorKind.STEP_NOT_RECORDED


@pytest.mark.parametrize("sealed", [False, True])
def test_lost_and_damaged_documents_are_named(store: Store, sealed: bool) -> None:  # noqa: FBT001
    """A run whose documents cannot be trusted is not read by guessing."""
    run = recorded_run(store)
    if sealed:
        run.seal()
    key = field_key("run", "trace/x")
    if sealed:
        (key,) = [o.key for o in store.objects(run_prefix("run")) if "/index-" in o.key]
    sound = store.read(key)

    for damaged in (None, b"", b"{}", sound[:-1], sound.replace(b'"x"', b'"y y"')):
        if damaged is None:
            store.delete(key)
        else:
            store.write(key, damaged)
        with pytest.raises(FormatError, match=re.escape(key)) as caught:
            Archive(store).run("run")
        assert caught.value.kind is ErrorKind.RECORD_DAMAGED
    store.delete(manifest_key("run"))
    with pytest.raises(NotFoundError) as missing:
        Archive(store).run("run")
    assert missing.value.kind is ErrorKind.RUN_NOT_FOUND


def test_a_newer_format_is_not_interpreted(store: Store) -> None:
    """A reader that guesses at a later format gives wrong values."""
    recorded_run(store)
    key = manifest_key("run")
    store.write(key, store.read(key).replace(b'"format_version":1', b'"format_version":2'))

    with pytest.raises(FormatError, match="format version 2; this version reads 1") as caught:
        Archive(store).run("run")

    assert caught.value.kind is ErrorKind.FORMAT_VERSION_UNSUPPORTED


def test_a_run_is_read_without_its_zarr_documents(store: Store, archive: Archive) -> None:
    """They can be rebuilt from the declarations; until then nobody has to wait."""
    run = recorded_run(store).zarr(steps=2, samples=8)
    for found in list(store.objects(f"{run_prefix('run')}/trace.zarr")):
        if found.key.endswith("zarr.json"):
            store.delete(found.key)

    values = archive.run("run").field("x").select({}).array()

    assert np.array_equal(values, [VALUES, VALUES + 1])
    assert run.manifest.uid


def test_a_damaged_seal_is_an_error(store: Store) -> None:
    """A run whose end cannot be read may lack anything."""
    recorded_run(store).seal()
    store.write(seal_key("run"), b"{")

    with pytest.raises(FormatError, match=re.escape("seal.json is no JSON document")):
        Archive(store).run("run")
