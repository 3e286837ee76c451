"""Where a run lives: a store, a service over it, and the ways to both, which can be disturbed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import httpx

from archive_schema.store import StoreOptions, open_store
from server.query import Archive
from tests.faults.proxy import FaultProxy
from tests.ports import unused_port

if TYPE_CHECKING:
    from archive_schema.store import Store
    from tests.s3_server import S3Server

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = str(Path(sys.executable).with_name("trace-archive"))
_CLOCK: Final = ROOT / "tests/faults/clock"
_START_TIMEOUT_S: Final = 60.0


class Kind(StrEnum):
    """How recorders reach the store."""

    DISK = "disk"
    S3 = "s3"
    HTTP = "http"
    """By a service over a folder."""


class Service:
    """A process ``trace-archive serve`` that takes pushes, and reads the store for each read."""

    def __init__(self, store_url: str, environment: dict[str, str], log: Path) -> None:
        self._store_url = store_url
        self._log = log
        self._environment = {
            **environment,
            "TRACE_ARCHIVE_CACHE_BYTES": "0",
            "TRACE_ARCHIVE_RECENT_BYTES": "0",
        }
        # Of its own, because it comes back there.
        self._process, self.url = self._started(unused_port())

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def restart(self) -> None:
        """Kill the process, and start another at the same address."""
        self.kill()
        self._process, _ = self._started(int(self.url.rpartition(":")[2]))

    def _started(self, port: int) -> tuple[subprocess.Popen[str], str]:
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [
                    PROGRAM,
                    "serve",
                    "--store",
                    self._store_url,
                    "--port",
                    str(port),
                    "--allow-push",
                ],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                _await_answer(f"{found[0]}/healthz", process)
                return process, found[0]
        raise RuntimeError("the service did not start; its log tells why")


class Clock:
    """The clock of some processes, which can be set wrong while they run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0.0)

    def set(self, shift_s: float) -> None:
        """Let the clock be wrong by *shift_s* seconds from now on."""
        # Renamed into place: a process that reads it sees the old shift or the new.
        self._file.with_suffix(".new").write_text(str(shift_s))
        self._file.with_suffix(".new").rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of a process that goes by this clock."""
        return {"FAULT_CLOCK": str(self._file), "PYTHONPATH": f"{_CLOCK}{os.pathsep}{ROOT}"}


class World:
    """A store and a service over it, while it is entered.

    Parameters
    ----------
    folder
        Of this world alone.
    s3
        The server that holds the store, if its kind is S3.
    """

    def __init__(self, kind: Kind, folder: Path, s3: S3Server | None) -> None:
        self.kind = kind
        self.folder = folder
        self.s3 = s3
        self.url = str(folder / "store") if s3 is None else s3.fresh_url()
        self.recorder_url = self.url
        self.for_recorders: FaultProxy | None = None
        self.for_readers: FaultProxy | None = None
        self.service_clock = Clock(folder / "service.clock")
        self.recorder_clock = Clock(folder / "recorder.clock")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.store: Store = open_store(self.url)
        """The store itself, by a way that nothing disturbs."""
        if self.s3 is not None:
            self.for_recorders = self._way(self.s3.endpoint_url)
            self.for_readers = self._way(self.s3.endpoint_url)
        variables = {**self.environment(self.for_readers), **self.service_clock.environment}
        self.service = Service(self.url, variables, self.folder / "service.log")
        self._stack.callback(self.service.kill)
        if self.kind is Kind.HTTP:
            self.for_recorders = self._way(self.service.url)
            self.recorder_url = self.for_recorders.url
        client = httpx.Client(base_url=self.service.url, timeout=60)
        self.client = self._stack.enter_context(client)
        self.archive = self._stack.enter_context(self.open_archive(self.for_readers))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def ways(self) -> list[FaultProxy]:
        """Return the ways that can be disturbed; a folder has none."""
        return [way for way in (self.for_recorders, self.for_readers) if way is not None]

    def open_archive(self, way: FaultProxy | None = None) -> Archive:
        """Return queries over the store that keep no values in memory."""
        options = StoreOptions() if way is None else StoreOptions(endpoint_url=way.url)
        return Archive(open_store(self.url, options), cache_bytes=0)

    def environment(self, way: FaultProxy | None) -> dict[str, str]:
        """Return the variables of a process that reaches the store by *way*."""
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        if way is None or self.kind is not Kind.S3:
            return variables
        return {**variables, "AWS_ENDPOINT_URL": way.url}

    def _way(self, upstream: str) -> FaultProxy:
        return self._stack.enter_context(FaultProxy(upstream))


def _await_answer(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
