"""8 samples of one step (16 kB of float16) over HTTP, warm, local store, one server process each.

Ways: our server, and the floor: a bare Starlette route under the same uvicorn that returns the
same bytes from memory. Eight keep-alive connections, no pipelining; requests/s and the server's
CPU time a request, in alternating rounds. Bytes are compared before timing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from benchmarks.findings import Beside, Findings
from benchmarks.traces import QUICK, STEPS, record, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS: Final = 8
REQUESTS: Final = 500 if QUICK else 2000
ROUNDS: Final = 3 if QUICK else 5
PATH: Final = "/runs/r/steps/{step}/score_matrix?samples=0:8&format=raw"
FLOOR: Final = """
import sys
from pathlib import Path
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

BODY = Path(sys.argv[1]).read_bytes()

async def slice_(request):
    return Response(BODY, media_type="application/octet-stream")

app = Starlette(routes=[Route("/{rest:path}", slice_)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process under measurement."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report() -> Findings:
    """Return the table."""
    data = trace()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        record(root / "store")
        body = root / "body"
        body.write_bytes(data.score_matrix[0, 0:8].tobytes())
        (root / "floor.py").write_text(FLOOR)
        port = _free_port()
        floor = stack.enter_context(
            _started([sys.executable, str(root / "floor.py"), str(body), str(port)], port)
        )
        port = _free_port()
        command = [str(Path(sys.executable).parent / "trace-archive"), "serve", "--store"]
        ours = stack.enter_context(
            _started([*command, str(root / "store"), "--port", str(port)], port)
        )
        for step in range(STEPS):
            url = f"http://127.0.0.1:{ours.port}{PATH.format(step=step)}"
            if httpx.get(url).content != data.score_matrix[step, 0:8].tobytes():
                message = f"other bytes at step {step}"
                raise AssertionError(message)
        return _measured(floor, ours)


def _measured(floor: Server, ours: Server) -> Findings:
    rates: dict[str, list[float]] = {"floor": [], "ours": []}
    cpu_ms: dict[str, list[float]] = {"floor": [], "ours": []}
    for _ in range(ROUNDS + 1):
        for name, server in (("floor", floor), ("ours", ours)):
            before, start = server.cpu_s(), time.perf_counter()
            asyncio.run(_load(server.port))
            rates[name].append(REQUESTS / (time.perf_counter() - start))
            cpu_ms[name].append((server.cpu_s() - before) / REQUESTS * 1e3)
    ratios = [mine / base for mine, base in zip(rates["ours"][1:], rates["floor"][1:], strict=True)]
    lines = [
        "### 8 samples of one step over HTTP",
        "",
        "| server | requests/s | server CPU ms a request |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {name} | {statistics.median(rates[name][1:]):.0f}"
        f" | {statistics.median(cpu_ms[name][1:]):.3f} |"
        for name in rates
    ]
    found = Findings()
    found.text("\n".join([*lines, ""]))
    limit = Beside("the bare Starlette route", statistics.median(ratios))
    found.number("http.floor", ratios, limit=limit)
    return found


async def _load(port: int) -> None:
    # By hand: a real client would be the bottleneck.
    numbers = iter(range(REQUESTS))

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            path = PATH.format(step=number % STEPS)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))


@contextmanager
def _started(command: list[str], port: int) -> Iterator[Server]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/healthz")
                    break
                except httpx.TransportError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.1)
            yield Server(port, process.pid)
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
