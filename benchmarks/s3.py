"""The S3 server that benchmarks record into, and one that is further away.

Both are processes of their own, so that their CPU time is not taken for a recorder's.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from tests.faults.proxy import Action, Fault, FaultProxy
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Start a server over an empty *folder*; its keys are in the environment meanwhile."""
    folder.mkdir()
    server = S3Server(folder)
    try:
        with patch.dict(os.environ, server.environment):
            server.await_ready()
            yield server.endpoint_url
    finally:
        server.kill()


@contextmanager
def far_away(endpoint: str, delay_s: float) -> Iterator[tuple[str, Callable[[], int]]]:
    """Give an address where each request to *endpoint* takes longer, and count the requests."""
    ours, its = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_proxy, args=(endpoint, delay_s, its), daemon=True)
    process.start()
    address: str = ours.recv()

    def requests() -> int:
        ours.send(None)
        return int(ours.recv())

    try:
        yield address, requests
    finally:
        process.kill()
        process.join()


def _proxy(endpoint: str, delay_s: float, pipe: Connection) -> None:
    with FaultProxy(endpoint) as proxy:
        proxy.add(Fault(Action.DELAY, seconds=delay_s))
        pipe.send(proxy.url)
        while True:
            pipe.recv()
            pipe.send(proxy.requests)
