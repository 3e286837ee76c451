"""Carries effects out over HTTP: one loop that blocks, one that awaits, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
import httpx

from archive_schema.errors import ArchiveError
from clients.exchange import Item, Pause, Reply, Transfer, unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from archive_schema.errors import StorageError
    from clients.exchange import Effect, ItemT, Listing, Operation, ResultT
    from clients.options import Options

YieldT = TypeVar("YieldT")
Answer: TypeAlias = "Reply | Exception | None"
"""What is sent, or thrown, into an operation."""


class Session:
    """Runs operations, waiting for each answer. Threads may share one."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._http = httpx.Client(
            headers=options.all_headers, timeout=_timeout(options), follow_redirects=True
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, operation: Operation[ResultT]) -> ResultT:
        """Carry *operation* out and return its result."""
        try:
            effect = next(operation)
            while True:
                effect = _resume(operation, self._perform(effect))
        except StopIteration as stop:
            result: ResultT = stop.value
            return result

    def iterate(self, listing: Listing[ItemT]) -> Iterator[ItemT]:
        """Yield the items of *listing* as they come."""
        effect = next(listing, None)
        while effect is not None:
            if isinstance(effect, Item):
                yield effect.value
                effect = next(listing, None)
                continue
            try:
                effect = _resume(listing, self._perform(effect))
            except StopIteration:
                return

    def _perform(self, effect: Effect) -> Answer:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        request = effect.request if isinstance(effect, Transfer) else effect
        url = self.options.url(request)
        try:
            with self._http.stream(
                request.method, url, headers=dict(request.headers), content=request.body
            ) as response:
                head = _head(response)
                if isinstance(effect, Transfer) and effect.sink.begin(head):
                    for piece in response.iter_raw():
                        effect.sink.write(piece)
                    return head
                return replace(head, body=response.read())
        except httpx.RequestError as error:
            return _failure(url, error)
        except (ArchiveError, OSError) as error:  # of the sink
            return error


class AsyncSession:
    """Runs operations on an event loop, of asyncio or of Trio."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._http = httpx.AsyncClient(
            headers=options.all_headers, timeout=_timeout(options), follow_redirects=True
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, operation: Operation[ResultT]) -> ResultT:
        """Carry *operation* out and return its result."""
        try:
            effect = next(operation)
            while True:
                effect = _resume(operation, await self._perform(effect))
        except StopIteration as stop:
            result: ResultT = stop.value
            return result

    async def iterate(self, listing: Listing[ItemT]) -> AsyncIterator[ItemT]:
        """Yield the items of *listing* as they come."""
        effect = next(listing, None)
        while effect is not None:
            if isinstance(effect, Item):
                yield effect.value
                effect = next(listing, None)
                continue
            try:
                effect = _resume(listing, await self._perform(effect))
            except StopIteration:
                return

    async def _perform(self, effect: Effect) -> Answer:
        if isinstance(effect, Pause):
            await anyio.sleep(effect.seconds)
            return None
        request = effect.request if isinstance(effect, Transfer) else effect
        url = self.options.url(request)
        try:
            async with self._http.stream(
                request.method, url, headers=dict(request.headers), content=request.body
            ) as response:
                head = _head(response)
                if isinstance(effect, Transfer) and effect.sink.begin(head):
                    async for piece in response.aiter_raw():
                        effect.sink.write(piece)
                    return head
                return replace(head, body=await response.aread())
        except httpx.RequestError as error:
            return _failure(url, error)
        except (ArchiveError, OSError) as error:  # of the sink
            return error


def _timeout(options: Options) -> httpx.Timeout:
    # Silence of the server is limited; waiting for a connection that another thread uses is not.
    return httpx.Timeout(options.timeout_s, pool=None)


def _resume(operation: Generator[YieldT, Any, Any], answer: Answer) -> YieldT:
    # Not inside a coroutine of its own: a StopIteration that leaves one becomes a RuntimeError.
    if isinstance(answer, Exception):
        return operation.throw(answer)
    return operation.send(answer)


def _head(response: httpx.Response) -> Reply:
    return Reply(response.status_code, dict(response.headers), b"", str(response.url))


def _failure(url: str, error: httpx.RequestError) -> StorageError:
    failure = unreachable(f"{url}: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure
