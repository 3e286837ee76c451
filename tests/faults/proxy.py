"""A proxy between a client and an S3 or HTTP server that fails on purpose.

It passes requests on as they are, the Host header with them, so that signatures stay valid for
a client that was given the proxy's address. The first fault in the list that takes a request
decides what becomes of it.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_PIECE: Final = 1 << 16
_REFUSAL: Final = 400
_NO_BODY: Final = (204, 304)
_XML: Final = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"


class Action(StrEnum):
    """What can become of a request."""

    REFUSE = "refuse"
    """Answer *status*; the server never hears of it."""
    LOSE_ANSWER = "lose-answer"
    """Pass it on, wait for the answer, and reset the connection: what it did is done."""
    SPOIL_ANSWER = "spoil-answer"
    """Pass it on, and answer *status* instead of what the server answered."""
    RESET = "reset"
    """Reset the connection before anything is passed on."""
    DELAY = "delay"
    """Pass it on after *seconds*."""
    HOLD = "hold"
    """Take it whole, and pass it on when it is released, also if nobody waits any more."""
    CUT_UPLOAD = "cut-upload"
    """Pass on *at* bytes of the body and reset both connections."""
    FLIP_UPLOAD = "flip-upload"
    """Flip a bit of byte *at* of the body."""
    CUT_ANSWER = "cut-answer"
    """Reset the connection after *at* bytes of the answer's body."""
    END_ANSWER = "end-answer"
    """Close the connection in good order after *at* bytes of the answer's body."""
    SHORT_ANSWER = "short-answer"
    """Answer with the first *at* bytes, and say that this is the whole."""
    FLIP_ANSWER = "flip-answer"
    """Flip a bit of byte *at* of the answer's body."""
    STALL_ANSWER = "stall-answer"
    """Pause for *seconds* after *at* bytes of the answer's body."""


_ON_REQUEST: Final = frozenset(
    {
        Action.REFUSE,
        Action.LOSE_ANSWER,
        Action.SPOIL_ANSWER,
        Action.RESET,
        Action.DELAY,
        Action.HOLD,
    }
)
_ON_UPLOAD: Final = frozenset({Action.CUT_UPLOAD, Action.FLIP_UPLOAD})
_FLIPS: Final = frozenset({Action.FLIP_UPLOAD, Action.FLIP_ANSWER})
_ON_ANSWER: Final = frozenset(
    {
        Action.CUT_ANSWER,
        Action.END_ANSWER,
        Action.SHORT_ANSWER,
        Action.FLIP_ANSWER,
        Action.STALL_ANSWER,
    }
)


class _CutError(ConnectionResetError):
    """A body was cut on purpose."""


@dataclass(slots=True)
class Fault:
    """Which requests it takes, and what it does to them."""

    action: Action
    method: str = ""
    """Only requests of this method; all, if empty."""
    key: str = ""
    """A regular expression that is searched in the path and query."""
    times: int | None = None
    """How many requests it takes; None for all."""
    once_each: bool = False
    """Takes only the first request of a method for a path."""
    probability: float = 1.0
    at: int = 0
    seconds: float = 0.0
    status: int = 503
    retry_after_s: int | None = None
    hits: int = 0
    """How many requests it changed; a body that ends before *at* is not cut."""
    held: threading.Event = field(default_factory=threading.Event)
    """Set when a request is held."""
    released: threading.Event = field(default_factory=threading.Event)
    """Lets what is held go on."""
    _taken: set[tuple[str, str]] = field(default_factory=set)

    def takes(self, method: str, path: str, chance: random.Random) -> bool:
        """Return whether this request is affected."""
        if self.times == 0 or (self.method and self.method != method):
            return False
        if not re.search(self.key, path) or chance.random() >= self.probability:
            return False
        if self.once_each:
            if (method, path) in self._taken:
                return False
            self._taken.add((method, path))
        if self.times is not None:
            self.times -= 1
        return True

    def spare(self, method: str, path: str) -> None:
        """Take a request back that turned out to be none of those that were meant."""
        self._taken.discard((method, path))
        if self.times is not None:
            self.times += 1


class FaultProxy:
    """Listens on a port of its own between entering and leaving."""

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self._chance = random.Random(seed)
        self._faults: list[Fault] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._ready = threading.Event()
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        """Return the address that clients are given."""
        return f"http://127.0.0.1:{self._port}"

    def add(self, fault: Fault) -> Fault:
        """Let *fault* happen from now on, after those that were added before."""
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything pass, also what is held."""
        for fault in self._faults:
            fault.released.set()
        self._faults = []

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        )
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        # Generators that were left in the middle are closed by tasks of their own.
        while tasks := asyncio.all_tasks(self._loop):
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = _Exchange(self._upstream, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        # A loop alone does not keep its tasks from being collected as garbage.
        self._tasks.add(task)
        try:
            while head := await _Head.read(reader):
                self.requests += 1
                faults = (f for f in self._faults if f.takes(head.method, head.path, self._chance))
                if not await exchange.run(head, next(faults, None)):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)
        except asyncio.CancelledError:  # the proxy ends
            writer.transport.abort()
        finally:
            exchange.close()
            self._tasks.discard(task)


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line and the headers of a request or an answer."""

    raw: bytes
    line: tuple[str, str, str]
    headers: dict[str, str]

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Self | None:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        first, *rest = raw.decode("latin1").split("\r\n")
        one, two, three = (*first.split(" ", 2), "", "")[:3]
        pairs = (line.partition(":") for line in rest if line)
        return cls(raw, (one, two, three), {k.strip().lower(): v.strip() for k, _, v in pairs})

    @property
    def method(self) -> str:
        return self.line[0]

    @property
    def path(self) -> str:
        return self.line[1]

    @property
    def status(self) -> int:
        return int(self.line[1])

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class _Exchange:
    """Requests of one client connection, and the connection to the server that serves them."""

    def __init__(
        self,
        upstream: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """End both connections."""
        for writer in (self._writer, *(self._server or ())[1:]):
            assert isinstance(writer, asyncio.StreamWriter)
            writer.close()

    async def run(self, head: _Head, fault: Fault | None) -> bool:
        """Carry one request; return whether the connection can carry another."""
        if fault is None:
            return await self._pass_on(head, _body(self._reader, head, request=True), None)
        action = fault.action
        if action in _ON_REQUEST:
            fault.hits += 1
        if action is Action.RESET:
            _reset(self._writer)
            return False
        if action is Action.REFUSE:
            await self._drink(head)
            return await self._answer(head, fault)
        if action is Action.DELAY:
            await asyncio.sleep(fault.seconds)
        if action is Action.HOLD:
            kept = [piece async for piece in self._request_body(head)]
            fault.held.set()
            await asyncio.to_thread(fault.released.wait, 60)
            return await self._pass_on(head, _all(kept), None)
        return await self._pass_on(head, _body(self._reader, head, request=True), fault)

    async def _request_body(self, head: _Head) -> AsyncGenerator[bytes, None]:
        if head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._writer.drain()
        async for piece in _body(self._reader, head, request=True):
            yield piece

    async def _drink(self, head: _Head) -> None:
        async for _ in self._request_body(head):
            pass

    async def _pass_on(
        self, head: _Head, body: AsyncGenerator[bytes, None], fault: Fault | None
    ) -> bool:
        if self._server is None:
            self._server = await asyncio.open_connection(*self._upstream)
        reader, writer = self._server
        writer.write(head.raw)
        upload = asyncio.ensure_future(self._upload(body, writer, fault))
        answer: asyncio.Future[_Head] = asyncio.ensure_future(self._answer_head(reader))
        try:
            reply, _ = await asyncio.gather(answer, upload)
        finally:
            upload.cancel()
            answer.cancel()
            await asyncio.gather(upload, answer, return_exceptions=True)
        if fault is not None and fault.action in (Action.LOSE_ANSWER, Action.SPOIL_ANSWER):
            async for _ in _body(reader, reply, request=False, method=head.method):
                pass
            if fault.action is Action.LOSE_ANSWER:
                _reset(self._writer)
                return False
            return await self._answer(head, fault)
        whole = await self._download(head, reply, reader, fault)
        return whole and not (head.closes or reply.closes)

    async def _answer_head(self, reader: asyncio.StreamReader) -> _Head:
        while True:
            head = await _Head.read(reader)
            if head is None:
                raise ConnectionResetError("the server closed the connection")
            if head.status != 100:
                return head
            self._writer.write(head.raw)
            await self._writer.drain()

    async def _upload(
        self, body: AsyncGenerator[bytes, None], writer: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        try:
            async with aclosing(_altered(body, fault, _ON_UPLOAD)) as pieces:
                async for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
        except _CutError:
            _reset(writer)
            raise

    async def _download(
        self, head: _Head, reply: _Head, reader: asyncio.StreamReader, fault: Fault | None
    ) -> bool:
        if fault is not None and fault.action in _ON_ANSWER and reply.status >= _REFUSAL:
            # What is meant is an object, and the text of an error is none.
            fault.spare(head.method, head.path)
            fault = None
        raw, length = reply.raw, int(reply.headers.get("content-length", "0"))
        if fault is not None and fault.action is Action.SHORT_ANSWER and fault.at < length:
            raw = re.sub(rb"(?i)(content-length: *)\d+", rb"\g<1>%d" % fault.at, raw)
        self._writer.write(raw)
        body = _body(reader, reply, request=False, method=head.method)
        try:
            async with aclosing(_altered(body, fault, _ON_ANSWER)) as pieces:
                async for piece in pieces:
                    self._writer.write(piece)
                    await self._writer.drain()
        except _CutError:
            if fault is not None and fault.action is Action.CUT_ANSWER:
                await asyncio.sleep(0.01)  # or what was written is dropped with the rest
                raise
            return False
        return True

    async def _answer(self, head: _Head, fault: Fault) -> bool:
        body = b""
        if head.method != "HEAD":
            body = _XML.format("SlowDown" if fault.status == 503 else "InternalError").encode()
        lines = [f"HTTP/1.1 {fault.status} Injected", "Content-Type: application/xml"]
        if fault.retry_after_s is not None:
            lines.append(f"Retry-After: {fault.retry_after_s}")
        lines += [f"Content-Length: {len(body)}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + body)
        await self._writer.drain()
        return not head.closes


async def _body(
    reader: asyncio.StreamReader, head: _Head, *, request: bool, method: str = ""
) -> AsyncGenerator[bytes, None]:
    """Give the body as it is on the wire, in pieces."""
    if not request and (method == "HEAD" or head.status in _NO_BODY):
        return
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        async for piece in _chunks(reader):
            yield piece
    elif "content-length" in head.headers:
        left = int(head.headers["content-length"])
        while left:
            piece = await reader.read(min(_PIECE, left))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
    elif not request:
        while piece := await reader.read(_PIECE):
            yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while True:
        line = await reader.readline()
        yield line
        size = int(line.split(b";")[0], 16)
        yield await reader.readexactly(size + 2)
        if not size:
            return


async def _altered(
    body: AsyncGenerator[bytes, None], fault: Fault | None, actions: frozenset[Action]
) -> AsyncGenerator[bytes, None]:
    """Give a body as *fault* leaves it, if its action is one of *actions*."""
    sent = 0
    async with aclosing(body):
        async for piece in body:
            start, sent = sent, sent + len(piece)
            if fault is None or fault.action not in actions or not start <= fault.at < sent:
                yield piece
                continue
            fault.hits += 1
            at = fault.at - start
            if fault.action in _FLIPS:
                yield piece[:at] + bytes([piece[at] ^ 1 << at % 8]) + piece[at + 1 :]
                continue
            yield piece[:at]
            if fault.action is not Action.STALL_ANSWER:
                raise _CutError
            await asyncio.sleep(fault.seconds)
            yield piece[at:]


async def _all(pieces: list[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that its other end sees a reset, and no end in good order."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
