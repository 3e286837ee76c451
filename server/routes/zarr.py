"""The stored Zarr by key: any Zarr v3 client opens ``…/runs/{run}/zarr``."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ErrorKind, FormatError, NotFoundError
from archive_schema.layout import zarr_key
from server.answers import Exchange, Head, send_not_modified, send_range
from server.conditional import REVALIDATE, etag
from server.parameters import query_parameters, refuse_unknown
from server.routes.call import Call
from server.zarr_view import (
    DOCUMENT,
    check_key,
    cut_short,
    group_document,
    is_chunk,
    lost,
    stored_tile,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.types import Message, Receive, Scope, Send

    from server.query import RunView
    from server.service import Service
    from server.zarr_view import StoredTile

_PART_NBYTES: Final = 4 << 20
_OBJECT: Final = "application/octet-stream"


class ZarrAnswer:
    """Answers with objects of a run's Zarr."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        refuse_unknown(query_parameters(scope["query_string"]), ())
        key = exchange.path["key"]
        parts = check_key(key)
        run = await self._service.run(exchange.path["run"])
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._answer(Exchange(scope, receive, sending), run, key, parts)
        except FormatError:
            # What lay in one generation of the run a moment ago may lie in the next.
            newer = None if began else await run_sync(self._service.archive.renewed, run)
            if newer is None:
                raise
            await self._answer(exchange, newer, key, parts)

    async def _answer(
        self, exchange: Exchange, run: RunView, key: str, parts: Sequence[str]
    ) -> None:
        tile = stored_tile(run, key) if is_chunk(key) else None
        if tile is not None:
            digest = f"{run.manifest.uid}-{run.zarr}-{key}-{tile.nbytes}-{tile.content}"
            await self._send_tile(exchange, tile, _digest(digest.encode()))
            return
        if not is_chunk(key) and parts[-1] != DOCUMENT:
            raise _absent(run, key)
        data = await run_sync(self._small, run, key)
        media_type = "application/json" if parts[-1] == DOCUMENT else _OBJECT
        head = Head(etag(_digest(data), "zarr"), REVALIDATE)
        if not await send_not_modified(exchange, head):
            await send_range(exchange, head, media_type, len(data), lambda a, b: iter([data[a:b]]))

    async def _send_tile(self, exchange: Exchange, tile: StoredTile, digest: str) -> None:
        # Never immutable: compacting a run puts other objects at the same keys.
        head = Head(etag(digest, "zarr"), REVALIDATE)
        if await send_not_modified(exchange, head):
            return

        def read(start: int, stop: int) -> Iterator[bytes]:
            ends = ((at, min(at + _PART_NBYTES, stop)) for at in range(start, stop, _PART_NBYTES))
            jobs = ((end - at, partial(self._part, tile, at, end)) for at, end in ends)
            return self._service.archive.reader.ahead.results(jobs)

        await send_range(exchange, head, _OBJECT, tile.nbytes, read)

    def _part(self, tile: StoredTile, start: int, stop: int) -> bytes:
        try:
            data = self._service.store.read_range(tile.key, start, stop)
        except NotFoundError as error:
            raise lost(tile) from error
        if len(data) < stop - start:
            raise cut_short(tile, start + len(data))
        return data

    def _small(self, run: RunView, key: str) -> bytes:
        """Return a document, or the one chunk of a coordinate."""
        try:
            data = self._service.store.read(zarr_key(run.manifest.id, key, run.zarr))
        except NotFoundError as error:
            raise _absent(run, key) from error
        path, _, name = key.rpartition("/")
        return group_document(run, path, data) if name == DOCUMENT else data


def zarr_calls(service: Service) -> list[Call]:
    """Return the call that answers with objects of the Zarr."""
    return [
        Call(
            "/runs/{run}/zarr/{key:path}",
            ZarrAnswer(service),
            "zarr_object",
            "An object of the run's Zarr v3 hierarchy, with Range",
            "files",
            media_types=("application/json", _OBJECT),
            statuses=(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,),
        )
    ]


def _absent(run: RunView, key: str) -> NotFoundError:
    message = f"the Zarr of run {run.manifest.id!r} has no object {key!r}"
    return NotFoundError(ErrorKind.OBJECT_NOT_FOUND, message)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
