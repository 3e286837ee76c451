"""Server processes under measurement: started, asked whether they answer, and ended by their ids.

CPU time and memory are those of the process and its children, so that a server that is several
processes is measured whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import httpx

from tests.ports import unused_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_READY_S: Final = 90.0
_GRACE_S: Final = 5.0
"""Between asking a process to end and ending it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A process and its children."""

    pid: int

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far, those of threads that ended among them."""
        # The clock of another process, as clock_getcpuclockid makes its number: it counts
        # nanoseconds, where /proc/PID/stat counts hundredths of a second.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in _tree(self.pid))

    def rss_bytes(self) -> int:
        """Return the memory held now."""
        return sum(_status(pid, "VmRSS") for pid in _tree(self.pid))

    def peak_rss_bytes(self) -> int:
        """Return the most memory held since `forget_peak`, or since the start."""
        return sum(_status(pid, "VmHWM") for pid in _tree(self.pid))

    def forget_peak(self) -> None:
        """Let `peak_rss_bytes` count from now."""
        for pid in _tree(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class Server(Measured):
    """A server process and its children, listening on this machine only."""

    port: int

    @property
    def url(self) -> str:
        """Return the address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def started(
    command: Sequence[str],
    port: int,
    *,
    ready: str = "/",
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    folder: Path | None = None,
) -> Iterator[Server]:
    """Start a server that listens on *port*, and yield it once it answers at the path *ready*.

    It works in *folder*, for what it may write there.

    Raises
    ------
    RuntimeError
        If it ends, or does not answer within a minute and a half; with what it wrote to *log*.
    """
    with log.open("wb") if log else open(os.devnull, "wb") as written:  # noqa: PTH123  no path
        process = _popen(command, env or {}, folder, written)
        server = Server(process.pid, port)
        try:
            _await_answer(process, f"{server.url}{ready}", log)
            yield server
        finally:
            _end(process)


@contextmanager
def archive_server(
    store: Path | str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start our server over a store, with one worker."""
    port = unused_port()
    program = str(Path(sys.executable).parent / "trace-archive")
    command = [program, "serve", "--store", str(store), "--port", str(port), *arguments]
    with started(command, port, ready="/healthz", env=env) as server:
        yield server


def listens_elsewhere(server: Server) -> list[str]:
    """Return the addresses beside the loopback ones on which *server* listens."""
    inodes = {
        str(link.readlink())
        for pid in _tree(server.pid)
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink()
    }
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        listening, inode = fields[3] == "0A", fields[9]
        if listening and f"socket:[{inode}]" in inodes and not fields[1].startswith("0100007F"):
            found.append(fields[1])
    return found


def _popen(
    command: Sequence[str], env: Mapping[str, str], folder: Path | None, written: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=written, stderr=subprocess.STDOUT, env={**os.environ, **env}, cwd=folder
    )


def _await_answer(process: subprocess.Popen[bytes], url: str, log: Path | None) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code < 500:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:] if log else "(no log)"
            message = f"{process.args!r} did not answer at {url}; it wrote: {said}"
            raise RuntimeError(message)
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children; some outlive a polite request to their parent."""
    pids = _tree(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in reversed(pids):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
            process.poll()
            time.sleep(0.02)
        pids = [pid for pid in pids if _alive(pid)]
    process.wait()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _tree(pid: int) -> list[int]:
    pids, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        pids.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            waiting += map(int, children.read_text().split())
    return pids


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0
