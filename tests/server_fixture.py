"""The service on a real socket, for every test that speaks HTTP: `pytest_plugins` or import it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest
import uvicorn

from server.app import create_app
from server.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store

_START_TIMEOUT_S = 30.0


class Serve(Protocol):
    """Starts a service over a store and returns its base URL, without a slash at the end."""

    def __call__(self, store: Store | str, **settings: Any) -> str:
        """Serve *store* with these settings until the test ends."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start services that end with the test."""
    with ExitStack() as stack:

        def start(store: Store | str, **settings: Any) -> str:
            url = store if isinstance(store, str) else store.url
            return stack.enter_context(served(url, **settings))

        yield start


@contextmanager
def served(store_url: str, **settings: Any) -> Iterator[str]:
    """Serve a store on a free port of this machine, in a thread of this process."""
    app = create_app(load_settings(store=store_url, **settings))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, name="test-server"
        )
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.start()
        try:
            _await_answer(f"{base}/healthz", thread)
            yield base
        finally:
            server.should_exit = True
            thread.join()


def _await_answer(url: str, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            if httpx.get(url, timeout=1).is_success:
                return
        except httpx.TransportError:
            pass
        if not thread.is_alive() or time.monotonic() > deadline:
            message = f"the service did not answer at {url}"
            raise RuntimeError(message)
        time.sleep(0.01)
