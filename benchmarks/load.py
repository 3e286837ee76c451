"""A client that asks as fast as a server answers: keep-alive connections, no pipelining.

By hand, because on two cores a real HTTP client would itself be what is measured.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.servers import Server

_IN_HEAD: Final = -1
_IN_CHUNKS: Final = -2


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of requests cost."""

    requests: int
    wall_s: float
    cpu_s: float
    """Of the server."""
    latencies_s: tuple[float, ...]
    """Of each request, sorted."""

    @property
    def rate(self) -> float:
        """Return requests a second."""
        return self.requests / self.wall_s

    @property
    def cpu_each_s(self) -> float:
        """Return the server's CPU seconds a request."""
        return self.cpu_s / self.requests

    def percentile_s(self, share: float) -> float:
        """Return the latency that *share* of the requests stay below."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * share))]


def load(
    server: Server,
    paths: Sequence[str],
    *,
    connections: int = 8,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Ask a server for every path once.

    Raises
    ------
    RuntimeError
        For an answer that is no success.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    asked = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode() for path in paths]
    latencies: list[float] = []
    cpu_s, start = server.cpu_s(), time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_ask(server.port, iter(asked), connections, latencies))
    wall_s = time.perf_counter() - start
    cpu_s = server.cpu_s() - cpu_s
    return Load(len(asked), wall_s, cpu_s, tuple(sorted(latencies)))


async def _ask(port: int, asked: Iterator[bytes], connections: int, latencies: list[float]) -> None:
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: _Connection(asked, latencies), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))


class _Connection(asyncio.Protocol):
    """Asks one path after another; what is asked is shared, so each takes the next when free."""

    def __init__(self, asked: Iterator[bytes], latencies: list[float]) -> None:
        self._asked, self._latencies = asked, latencies
        self._transport: asyncio.WriteTransport
        self._answer = bytearray()
        self._left = 0
        """Bytes of the body to come, or `_IN_HEAD`, or `_IN_CHUNKS`."""
        self._start_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if self._left >= 0:
            self._left -= len(data)
        else:
            self._answer += data
            if self._left == _IN_HEAD:
                self._read_head()
            if self._left == _IN_CHUNKS and self._answer.endswith(b"\r\n0\r\n\r\n"):
                self._left = 0
        if self._left == 0:
            self._latencies.append(time.perf_counter() - self._start_s)
            self._next()

    def _next(self) -> None:
        request = next(self._asked, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._answer.clear()
        self._left = _IN_HEAD
        self._start_s = time.perf_counter()
        self._transport.write(request)

    def _read_head(self) -> None:
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._answer[:end]).lower() + b"\r\n"
        if not head.startswith((b"http/1.1 200", b"http/1.1 206")):
            self.done.set_exception(RuntimeError(head.decode()))
            self._transport.close()
            return
        _, found, rest = head.partition(b"content-length:")
        if found:
            self._left = int(rest.partition(b"\r")[0]) - (len(self._answer) - end - 4)
        else:
            self._left = _IN_CHUNKS
