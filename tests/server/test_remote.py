"""A service over a real S3 server: what is read for answers, and for clients that go away."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import numpy as np

from archive_schema.models import Place
from archive_schema.store import open_store
from tests.faults.proxy import Action, Fault, FaultProxy
from tests.query.builder import Builder, spec_of
from tests.server.test_live import until
from tests.server_fixture import served

if TYPE_CHECKING:
    from tests.s3_server import S3Server

STEPS = 160
VALUES = np.arange(8, dtype=np.float64)[:, None, None] + np.zeros((8, 64, 32))
"""Of a step: 128 kB, which take few bytes in the store."""


def recorded_url(s3: S3Server) -> str:
    """Return the store of a sealed run whose file is larger than what sockets hold."""
    url = s3.fresh_url()
    run = Builder(open_store(url), steps=STEPS, samples=8)
    run.declare(spec_of("x", VALUES, tile=8, block=(8, 64, 32)))
    run.commit(*(run.columns("trace/x", step, 0, VALUES) for step in range(STEPS))).seal()
    return url


def test_nothing_is_read_any_more_for_a_client_that_went_away(s3: S3Server) -> None:
    """A reader who closes a page must not cost a run's worth of requests, each paid for."""
    url = recorded_url(s3)
    with FaultProxy(s3.endpoint_url) as proxy:
        tiles = proxy.add(Fault(Action.DELAY, key=r"/c\."))
        asked = {"store_endpoint_url": proxy.url, "read_ahead_bytes": 4 << 20, "cache_bytes": 0}
        with served(url, **asked) as base, socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.connect(("127.0.0.1", int(base.rpartition(":")[2])))
            client.sendall(b"GET /runs/run.npz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            client.close()
        # The service has ended, and waited for what it had begun.
        assert 0 < tiles.hits < STEPS
        tiles.hits = 0

        with served(url, **asked) as base:
            whole = httpx.get(f"{base}/runs/run.npz")

        assert len(whole.content) > STEPS * VALUES.nbytes
        assert tiles.hits == STEPS


def test_a_hierarchy_is_described_by_requests_that_overlap(s3: S3Server) -> None:
    """A run of 200 layers has 400 documents; one after another they take as many round trips."""
    url = s3.fresh_url()
    run = Builder(open_store(url), steps=1, samples=8)
    layers = [f"blocks.{number}" for number in range(6)]
    run.declare(*(spec_of("x", VALUES, place=Place.LAYERS, layer=name, tile=8) for name in layers))
    run.zarr(steps=1, samples=8).put(f"layers/{layers[0]}/x", VALUES)
    with FaultProxy(s3.endpoint_url) as proxy, ThreadPoolExecutor(1) as pool:
        held = proxy.add(Fault(Action.HOLD, key=r"blocks\.0/zarr", times=1))
        others = proxy.add(Fault(Action.DELAY, key=r"blocks\.[1-5]/zarr"))
        with served(url, store_endpoint_url=proxy.url) as base:
            asking = pool.submit(httpx.get, f"{base}/runs/run/zarr/zarr.json", timeout=60)
            until(lambda: others.hits == len(layers) - 1)
            held.released.set()

            found = asking.result().json()["consolidated_metadata"]["metadata"]

    assert {name for name in found if name.endswith("/x")} == {
        f"layers/{name}/x" for name in layers
    }


def test_a_small_answer_is_asked_for_once_and_kept(s3: S3Server) -> None:
    """Also of a remote store; the same slice again costs no request."""
    url = recorded_url(s3)
    with FaultProxy(s3.endpoint_url) as proxy:
        tiles = proxy.add(Fault(Action.DELAY, key=r"/c\."))
        with served(url, store_endpoint_url=proxy.url, cache_bytes=0) as base:
            path = f"{base}/runs/run/steps/5/x?samples=2:4&axis0=0:4&format=raw"
            answers = [httpx.get(path) for _ in range(3)]

    assert [answer.content for answer in answers] == [VALUES[2:4, :4].tobytes()] * 3
    assert tiles.hits == 1
