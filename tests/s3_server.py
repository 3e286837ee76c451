"""A real S3 server: the service `store` of docker-compose.yml, started by hand."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ArchiveError
from archive_schema.store import open_store
from tests.deployment import program, services
from tests.ports import unused_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET: Final = "traces"
_PORTS: Final = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
_START_TIMEOUT_S: Final = 60.0


class S3Server:
    """A SeaweedFS process that keeps its data in *folder*, over deaths of its own too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = dict(zip(_PORTS, unused_ports(len(_PORTS)), strict=True))
        self.endpoint_url = f"http://127.0.0.1:{self.ports['s3.port']}"
        (folder / "data").mkdir()
        self._process = self._started()

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that a subprocess needs to reach the server."""
        given = services()["server"].environment
        usual = {name: value for name, value in given.items() if name.startswith("AWS_")}
        return {**usual, "AWS_ENDPOINT_URL": self.endpoint_url}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the server hang: it takes connections and never answers."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once: a polite end takes it 20 s."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill the server, and start it again over the same data."""
        self.kill()
        self._process = self._started()
        self.await_ready()

    def await_ready(self) -> None:
        """Return once the server takes writes, to be asked by a client with `environment`."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (_healthy(self.ports["s3.port"]) and _accepts_writes()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "weed.log").read_text()
                raise RuntimeError(f"the S3 server did not start: {log[-3000:]}")
            time.sleep(0.05)

    def fresh_url(self) -> str:
        """Return the URL of an empty prefix: a test isolates itself by prefix."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def _started(self) -> subprocess.Popen[bytes]:
        store = services()["store"]
        here = {"dir": self._folder / "data", "ip.bind": "127.0.0.1", **self.ports}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        with (self._folder / "weed.log").open("ab") as log:
            return subprocess.Popen(
                [program("weed"), *store.options(here)],
                env={**inherited, **store.environment},
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _accepts_writes() -> bool:
    """Return whether a signed put works; the bucket is made some time after the start."""
    probe = open_store(f"s3://{BUCKET}/ready")
    try:
        probe.write("probe", b"1")
    except ArchiveError:
        return False
    return True
