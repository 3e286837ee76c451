"""8 samples of one step (16 kB of float16) over HTTP, warm, local store, one server process each.

Ways: our server, asked again what it answered lately; asked for the first time, with the blocks
in its memory and without, as shown by servers that keep nothing; and the floor, a bare Starlette
route under the same uvicorn that returns the same bytes from memory. Eight keep-alive connections,
no pipelining; requests/s and the server's CPU time a request, in alternating rounds. Bytes are
compared before timing.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from benchmarks.findings import Beside, Findings
from benchmarks.servers import archive_server, started
from benchmarks.traces import QUICK, STEPS, record, trace
from tests.ports import unused_port

if TYPE_CHECKING:
    from benchmarks.servers import Server

_FLOOR: Final = "floor"
CONNECTIONS: Final = 8
REQUESTS: Final = 500 if QUICK else 2000
ROUNDS: Final = 3 if QUICK else 5
OURS: Final = {
    "asked again": {},
    "asked first, blocks in memory": {"TRACE_ARCHIVE_RECENT_BYTES": "0"},
    "asked first": {"TRACE_ARCHIVE_RECENT_BYTES": "0", "TRACE_ARCHIVE_CACHE_BYTES": "0"},
}
"""Settings of a server of ours, by what it shows."""
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


def report() -> Findings:
    """Return the table."""
    data = trace()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        record(root / "store")
        body = root / "body"
        body.write_bytes(data.score_matrix[0, 0:8].tobytes())
        (root / "floor.py").write_text(FLOOR)
        port = unused_port()
        command = [sys.executable, str(root / "floor.py"), str(body), str(port)]
        servers = {_FLOOR: stack.enter_context(started(command, port))}
        for name, settings in OURS.items():
            server = stack.enter_context(archive_server(root / "store", env=settings))
            servers[name] = server
            for step in range(STEPS):
                url = f"{server.url}{PATH.format(step=step)}"
                if httpx.get(url).content != data.score_matrix[step, 0:8].tobytes():
                    message = f"other bytes at step {step}"
                    raise AssertionError(message)
        return _measured(servers)


def _measured(servers: dict[str, Server]) -> Findings:
    rates: dict[str, list[float]] = {name: [] for name in servers}
    cpu_ms: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(ROUNDS + 1):
        for name, server in servers.items():
            before, start = server.cpu_s(), time.perf_counter()
            asyncio.run(_load(server.port))
            rates[name].append(REQUESTS / (time.perf_counter() - start))
            cpu_ms[name].append((server.cpu_s() - before) / REQUESTS * 1e3)
    ratios = {
        name: [mine / base for mine, base in zip(taken[1:], rates[_FLOOR][1:], strict=True)]
        for name, taken in rates.items()
    }
    lines = [
        "### 8 samples of one step over HTTP",
        "",
        "| server | requests/s | x floor | server CPU ms a request |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {statistics.median(rates[name][1:]):.0f}"
        f" | {statistics.median(ratios[name]):.2f} | {statistics.median(cpu_ms[name][1:]):.3f} |"
        for name in rates
    ]
    found = Findings()
    found.text("\n".join([*lines, ""]))
    again, *first = OURS
    limit = Beside("the bare Starlette route", statistics.median(ratios[again]))
    said = "; ".join(f"{name}: {statistics.median(ratios[name]):.2f}" for name in first)
    found.number("http.floor", ratios[again], limit=limit, remark=said)
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
