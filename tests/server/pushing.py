"""Values as requests, without any help of a client library."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from archive_schema.store import Store

PROGRAM: Final = str(Path(sys.executable).with_name("trace-archive"))


def npy(array: ArrayLike) -> bytes:
    """Return *array* as a `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, np.asanyarray(array), allow_pickle=False)
    return stream.getvalue()


def npz(**arrays: ArrayLike) -> bytes:
    """Return arrays as an `.npz` file."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **{n: np.asarray(a) for n, a in arrays.items()})
    return stream.getvalue()


def put(
    client: httpx.Client, path: str, body: bytes | Iterator[bytes], **headers: str
) -> httpx.Response:
    """Put *body* at *path* below the tiles of the run ``r``."""
    return client.put(f"/runs/r/tiles/{path}", content=body, headers=headers)


def json_put(client: httpx.Client, path: str, document: dict[str, Any]) -> httpx.Response:
    """Put JSON at *path* below the tiles of the run ``r``."""
    return client.put(f"/runs/r/tiles/{path}", json=document)


class Process:
    """A process ``trace-archive serve`` that takes values from this machine."""

    def __init__(self, store: Store, port: int, workers: int = 1) -> None:
        self._store = store
        self._port = port
        self._workers = workers
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        """Start the process, and return once it answers."""
        self._process = subprocess.Popen(
            [
                PROGRAM, "serve", "--store", self._store.url, "--port", str(self._port),
                "--workers", str(self._workers), "--allow-push",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while True:
            try:
                httpx.get(f"{self.url}/healthz", timeout=5).raise_for_status()
            except httpx.TransportError:
                assert self._process.poll() is None, "the service did not start"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End the process and its workers, as an operator does."""
        self._process.terminate()
        self._process.wait(100)
