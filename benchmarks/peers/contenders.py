"""How each server is started on the run, and at which path it answers with a slice of it."""

from __future__ import annotations

import io
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import numpy as np

from benchmarks.servers import archive_server, listens_elsewhere, started
from tests.ports import unused_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from benchmarks.servers import Server

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE / ".environments"
OCTETS: Final = {"Accept": "application/octet-stream"}
_FLUSH_S: Final = 6.0
"""How long HSDS may hold what was written before it writes it to the disk."""


def _same(body: bytes) -> bytes:
    return body


def _npy(body: bytes) -> bytes:
    values: bytes = np.load(io.BytesIO(body)).tobytes()
    return values


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that answers with slices of the run."""

    name: str
    start: Callable[[Path], AbstractContextManager[tuple[Server, dict[str, str]]]]
    """Takes the folder of the run; yields what fills the paths beside what is asked."""
    slice: str
    """Path of samples ``start:stop`` of step ``n``."""
    step: str
    """Path of step ``n``."""
    requests: int
    """About what takes it half a second."""
    headers: Mapping[str, str] = field(default_factory=dict)
    decode: Callable[[bytes], bytes] = _same
    environment: str | None = None

    def missing(self) -> str | None:
        """Return why it cannot be started, if its environment was not installed."""
        if self.environment is None or (ENVIRONMENTS / self.environment / "installed.txt").exists():
            return None
        log = ENVIRONMENTS / f"{self.environment}.log"
        if not log.exists():
            return "not installed: benchmarks/peers/setup installs it"
        said = log.read_text().strip().splitlines()
        return f"could not be installed: {said[-1] if said else 'no reason given'}"


def contenders() -> list[Contender]:
    """Return every server, the floor and ours first."""
    data = "/data?file=run.h5&path=/score_matrix&selection="
    tiled = "/api/v1/array/full/run/score_matrix?slice="
    domain = "/datasets/{id}/value?domain=/home/admin/run.h5&select="
    ours = "/runs/r/steps/{n}/score_matrix?format=raw"
    return [
        Contender(
            "bare Starlette",
            lambda root: _app("bare_starlette", root, "/slice/0"),
            "/slice/{n}",
            "/step/{n}",
            4000,
        ),
        Contender("trace-archive", _ours, ours + "&samples={start}:{stop}", ours, 4000),
        Contender(
            "h5grove, npy",
            lambda root: _app("h5grove_app", root, "/docs", "h5grove"),
            data + "{n},{start}:{stop}&format=npy",
            data + "{n}&format=npy",
            400,
            decode=_npy,
            environment="h5grove",
        ),
        Contender(
            "h5grove, bin",
            lambda root: _app("h5grove_app", root, "/docs", "h5grove"),
            data + "{n},{start}:{stop}&format=bin",
            data + "{n}&format=bin",
            300,
            environment="h5grove",
        ),
        Contender(
            "HSDS",
            _hsds,
            domain + "[{n},{start}:{stop},:,:]",
            domain + "[{n},:,:,:]",
            300,
            headers={**OCTETS, "Authorization": "Basic YWRtaW46YWRtaW4="},
            environment="hsds",
        ),
        Contender(
            "Xpublish, own router",
            lambda root: _app("xpublish_app", root, "/datasets", "xpublish"),
            "/datasets/run/steps/{n}/score_matrix?start={start}&stop={stop}",
            "/datasets/run/steps/{n}/score_matrix",
            150,
            environment="xpublish",
        ),
        Contender(
            "Tiled",
            lambda root: _app("tiled_app", root, "/healthz", "tiled"),
            tiled + "{n},{start}:{stop}",
            tiled + "{n}",
            60,
            headers=OCTETS,
            environment="tiled",
        ),
    ]


def _python(environment: str | None) -> str:
    home = ENVIRONMENTS / environment if environment else Path(".venv")
    return str((home / "bin" / "python").absolute())


@contextmanager
def _app(
    name: str, root: Path, ready: str, environment: str | None = None
) -> Iterator[tuple[Server, dict[str, str]]]:
    port = unused_port()
    command = [_python(environment), "-m", "uvicorn", f"{name}:app", "--port", str(port)]
    command += ["--app-dir", str(HERE / "apps"), "--log-level", "warning", "--no-access-log"]
    env = {"PEER_DATA": str(root)}
    with started(command, port, ready=ready, env=env, log=root / f"{name}-{port}.log") as server:
        yield server, {}


@contextmanager
def _ours(root: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    with archive_server(root / "store") as server:
        yield server, {}


@contextmanager
def _hsds(root: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """Start a service node and a data node on files, and put the run in by the client."""
    port = unused_port()
    home = ENVIRONMENTS.absolute() / "hsds"
    (root / "hsds" / "bucket").mkdir(parents=True)
    command = [str(home / "bin" / "hsds"), "--root_dir", str(root / "hsds")]
    command += ["--bucket_name", "bucket", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--hs_username", "admin", "--hs_password", "admin"]
    command += ["--count", "1", "--loglevel", "ERROR"]
    env = {
        "BUCKET_NAME": "bucket",  # the flag is not handed on to the nodes
        "MIN_CHUNK_SIZE": "64k",  # else it warns of chunks of one step
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str((HERE / "loopback").absolute()),
        "PEER_DATA": str(root),
    }
    log = root / "hsds.log"
    with started(command, port, ready="/about", env=env, log=log, folder=root) as server:
        if elsewhere := listens_elsewhere(server):
            message = f"HSDS listens where others reach it: {', '.join(elsewhere)}"
            raise RuntimeError(message)
        _await_nodes(server)
        filled = subprocess.run(
            [_python("hsds"), str(HERE / "apps" / "hsds_fill.py"), server.url],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        if filled.returncode:
            message = f"HSDS was not filled: {filled.stderr[-1000:]}"
            raise RuntimeError(message)
        time.sleep(_FLUSH_S)
        yield server, {"id": filled.stdout.split()[-1]}


def _await_nodes(server: Server) -> None:
    deadline = time.monotonic() + 30
    while httpx.get(f"{server.url}/about", trust_env=False).json()["state"] != "READY":
        if time.monotonic() > deadline:
            message = "HSDS did not become ready"
            raise RuntimeError(message)
        time.sleep(0.1)
