"""Workers share nothing but the store: what one takes, another gives at the next request."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.ports import unused_ports
from tests.server.pushing import Process, npz, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store

STEPS, SAMPLES = 3, 6


@pytest.fixture
def workers(folder_store: Store) -> Iterator[list[httpx.Client]]:
    """Two server processes over one store; as workers of one port, but each can be asked."""
    with ExitStack() as stack:
        clients = []
        for port in unused_ports(2):
            process = Process(folder_store, port)
            stack.callback(process.end)
            client = httpx.Client(base_url=process.url, timeout=60)
            clients.append(stack.enter_context(client))
        yield clients


def test_workers_of_one_store_see_each_others_writes(workers: list[httpx.Client]) -> None:
    """Also what both have answered from memory before, and with the same ETags."""
    created = workers[0].post("/runs", json={"id": "r", "steps": STEPS, "samples": SAMPLES})
    for step in range(STEPS):
        for part, writer in enumerate(workers):
            values = np.arange(3.0) + 10 * part + 100 * step
            path = f"steps/{step}?samples={3 * part}:{3 * part + 3}"

            written = put(writer, path, npz(x=values))

            seen = [
                one.get(f"/runs/r/steps/-1/x?samples={3 * part}:{3 * part + 3}") for one in workers
            ]
            whole = [one.get("/runs/r/fields/x?missing=mask&format=json").json() for one in workers]
            assert written.status_code == 201, written.text
            for answer in seen:
                assert answer.json()["data"] == values.tolist()
                assert answer.headers["ETag"] == seen[0].headers["ETag"]
                assert answer.headers["Cache-Control"] == "no-cache"
            assert whole[0] == whole[1]
            assert whole[0]["shape"] == [step + 1, SAMPLES]
    sealed = workers[1].post("/runs/r/seal")
    after = [one.get("/runs/r/steps/1/x") for one in workers]

    assert created.status_code == 201, created.text
    assert sealed.status_code == 200, sealed.text
    for answer in after:
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.json()["data"] == [100.0, 101.0, 102.0, 110.0, 111.0, 112.0]
