"""What a real S3 server is asked for, counted by a proxy: each request is a round trip."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archive_schema.models import Codec
from archive_schema.records import RunRecords
from archive_schema.store import StoreOptions, open_store
from recorder.compaction import compact_run
from server.exporters import export
from server.query import Archive
from tests.faults.proxy import Action, Fault, FaultProxy
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.s3_server import S3Server

STEPS, SAMPLES, BLOCK = 30, 12, 2
VALUES = np.arange(STEPS * SAMPLES * 8, dtype=np.float32).reshape(STEPS, SAMPLES, 8)


@dataclass(frozen=True)
class Requests:
    """What passed, by what it was for."""

    tiles: Fault
    """Objects of the Zarr."""
    confirming: Fault
    """Whether a run is there still and has another generation; asked for once in a while."""
    others: Fault

    def clear(self) -> None:
        """Count from now."""
        for one in (self.tiles, self.confirming, self.others):
            one.hits = 0


@contextmanager
def counted(
    s3: S3Server, url: str, *faults: Fault, **reading: int
) -> Iterator[tuple[Archive, Requests]]:
    """Open an archive behind a proxy that counts what no fault takes."""
    with FaultProxy(s3.endpoint_url) as proxy:
        for fault in faults:
            proxy.add(fault)
        requests = Requests(
            proxy.add(Fault(Action.DELAY, key=r"/c\.")),
            proxy.add(Fault(Action.DELAY, key=r"/run\.json|/generation")),
            proxy.add(Fault(Action.DELAY)),
        )
        store = open_store(url, StoreOptions(endpoint_url=proxy.url))
        with Archive(store, cache_bytes=0, refresh_s=0, **reading) as archive:
            yield archive, requests


def sealed_run(s3: S3Server) -> str:
    """Return the store of a sealed run: a tile of 6 blocks at each step."""
    url = s3.fresh_url()
    run = Builder(open_store(url), steps=STEPS, samples=SAMPLES)
    run.declare(spec_of("x", VALUES[0], tile=SAMPLES, block=(BLOCK, 8), codec=Codec(name="raw")))
    run.zarr(steps=STEPS, samples=SAMPLES)
    run.commit(*(run.columns("trace/x", step, 0, VALUES[step]) for step in range(STEPS))).seal()
    return url


@pytest.fixture(scope="module")
def sealed_url(s3: S3Server) -> str:
    """Return a store that no test changes."""
    return sealed_run(s3)


def test_a_slice_is_one_range_get_a_block_range(s3: S3Server, sealed_url: str) -> None:
    """Metadata, plans and shard indexes are known; blocks with little between them are one."""
    with counted(s3, sealed_url) as (archive, requests):
        archive.run("run")
        for samples, ranges in (
            (slice(0, 2), 1),
            (5, 1),
            (slice(1, 9), 1),
            ((0, 11), 1),  # four blocks of 68 bytes between them
        ):
            requests.clear()

            chosen = archive.run("run").field("x").select({"step": 7, "sample": samples})
            values = chosen.array()

            assert np.array_equal(values, VALUES[7][np.array(range(SAMPLES))[samples,]])
            assert requests.tiles.hits == ranges
            assert requests.others.hits == 0
        requests.clear()
        assert np.array_equal(
            archive.run("run").field("x").select({"sample": 3}).array(), VALUES[:, 3]
        )
        assert requests.tiles.hits == STEPS


@pytest.mark.parametrize(("gap", "ranges"), [(0, 3), (67, 3), (68, 2), (136, 1)])
def test_what_is_read_in_vain_is_bounded(
    s3: S3Server, sealed_url: str, gap: int, ranges: int
) -> None:
    """Blocks 0, 2 and 5, of 68 bytes each, are wanted."""
    with counted(s3, sealed_url, gap_bytes=gap) as (archive, requests):
        chosen = archive.run("run").field("x").select({"step": 2, "sample": (0, 4, 5, 11)})

        assert np.array_equal(chosen.array(), VALUES[2, [0, 4, 5, 11]])
        assert requests.tiles.hits == ranges


def test_a_file_reads_each_tile_once_and_no_more_than_is_taken(
    s3: S3Server, sealed_url: str
) -> None:
    """Reading ahead must not read twice; and who goes away must not have a whole run read."""
    with counted(s3, sealed_url) as (archive, requests):
        expected = b"".join(export(archive.run("run"), "h5").file.read())
        assert requests.tiles.hits == STEPS
        requests.clear()
        pieces = list(archive.run("run").field("x").select({}).pieces(max_bytes=900))
        assert np.array_equal(np.concatenate(pieces), VALUES)
        assert requests.tiles.hits == STEPS
    with counted(s3, sealed_url, ahead_bytes=4 * 3 * VALUES[0].nbytes) as (archive, requests):
        file = export(archive.run("run"), "h5").file.read()
        first = next(file)
        del file  # as an answer does that nobody takes
        archive.close()
        assert expected.startswith(first)
        assert requests.tiles.hits <= 4


def test_opening_and_following_a_run_take_few_requests(s3: S3Server) -> None:
    """Whoever polls a live run pays for each look."""
    url = s3.fresh_url()
    run = Builder(open_store(url), steps=STEPS, samples=SAMPLES)
    run.declare(spec_of("x", VALUES[0], tile=SAMPLES))
    run.put("trace/x", VALUES[0], 0)
    with counted(s3, url) as (archive, requests):
        archive.run("run")
        requests.clear()

        assert archive.run("run").steps == (0,)

        # The seal, the writers, the epochs of the one, and its next commit.
        assert (requests.confirming.hits, requests.others.hits) == (1, 4)
        run.put("trace/x", VALUES[1], 1).put("trace/x", VALUES[2], 2)
        assert archive.run("run").steps == (0, 1, 2)
    run.seal()
    with counted(s3, url) as (archive, requests):
        archive.run("run")
        assert (requests.confirming.hits, requests.others.hits) == (2, 2)


def test_shards_of_a_compacted_run_are_read_at_once(s3: S3Server) -> None:
    """One sample through all steps takes as long as one shard, not as all of them in turn."""
    url = sealed_run(s3)
    store = open_store(url)
    compact_run(store, "run", shard_nbytes=10 * VALUES[0].nbytes)
    count = len(list(RunRecords(store, "run").shards["trace/x"].places))
    assert count > 1
    held = Fault(Action.HOLD, key=r"/c\.", times=1)
    with counted(s3, url, held) as (archive, requests), ThreadPoolExecutor(1) as pool:
        chosen = archive.run("run").field("x").select({"sample": 3})

        reading = pool.submit(chosen.array)
        until(lambda: requests.tiles.hits == count - 1)
        held.released.set()

        assert np.array_equal(reading.result(), VALUES[:, 3])


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that other threads do."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
