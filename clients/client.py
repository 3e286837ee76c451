"""The way into an archive over HTTP, blocking and asynchronous."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from clients.documents import listed, opened, run_filters
from clients.options import DEFAULT_RETRY, MAX_REQUEST_BYTES, Options
from clients.pushing import created, removed
from clients.runs import AsyncRun, Run
from clients.session import AsyncSession, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from archive_schema.wire import RunSummary
    from clients.retry import RetryPolicy


class ArchiveClient:
    """An archive, read and recorded by blocking calls.

    Nothing is sent before the first call. Threads may share a client and everything that
    comes from it; a process that is forked needs a client of its own.

    Parameters
    ----------
    base_url : str
        Where the archive is served: ``http://host:8000``, or with a path below it.
    token
        Sent as ``Authorization: Bearer``.
    headers
        Sent with every request.
    timeout_s : float, seconds
        The longest silence of the server, not of a whole call.
    retry
        When a request is repeated: `RetryPolicy`.
    max_request_bytes : int, bytes
        A read of more is split into several requests.

    Examples
    --------
    ::

        with ArchiveClient("http://localhost:8000") as client:
            run = client.run("ds-eval-0041")
            run["score_matrix"][3, 0:8]
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        retry: RetryPolicy = DEFAULT_RETRY,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self._session = Session(
            Options(base_url, token, headers or {}, timeout_s, retry, max_request_bytes)
        )

    def runs(
        self,
        *,
        system: str | None = None,
        status: str | None = None,
        tag: str | None = None,
        q: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **meta: Any,
    ) -> Iterator[RunSummary]:
        """Yield the runs that match, fetching page after page as they are taken.

        Parameters
        ----------
        system, status, tag
            Only runs of this system, of this status, with this tag.
        q
            Words that the run's id, tags or metadata hold.
        sort
            What to sort by, after a ``-`` from the largest: ``-created``.
        limit
            At most so many runs.
        meta
            Only runs whose metadata have this value: ``dataset="promoters"``.
        """
        filters = run_filters(meta, system=system, status=status, tag=tag, q=q, sort=sort)
        return self._session.iterate(listed(filters, limit, self._session.options))

    def run(self, run_id: str) -> Run:
        """Open one run.

        Raises
        ------
        NotFoundError
            ``run-not-found``.
        """
        return Run(self._session, self._session.run(opened(run_id, self._session.options)))

    def create_run(
        self,
        run_id: str,
        *,
        system: str = "generic",
        steps: int | Sequence[int] | None = None,
        samples: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> Run:
        """Declare a run, to push values to; one that is declared equally is resumed.

        Parameters
        ----------
        system
            The upstream format that the run follows; it names the axes of its fields.
        steps
            Number of steps, or the step numbers if they are sparse, or None if not known.
        samples
            Number of samples, or None if not known.
        metadata, tags
            What the run was made with, and words to find it by.

        Raises
        ------
        ConflictError
            ``run-differs`` or ``run-sealed``.
        AccessError
            ``token-required`` or ``token-refused``.
        """
        operation = created(
            run_id,
            system=system,
            steps=steps,
            samples=samples,
            metadata=metadata or {},
            tags=tags,
            options=self._session.options,
        )
        return Run(self._session, self._session.run(operation))

    def remove(self, run_id: str, *, force: bool = False) -> None:
        """Remove a run and everything in it, for good; *force* also while it is recorded.

        Raises
        ------
        NotFoundError
            ``run-not-found``: also when a first answer was lost, and the run is gone.
        ConflictError
            ``writer-active``.
        """
        self._session.run(removed(run_id, force=force, options=self._session.options))

    def close(self) -> None:
        """Close the connections. Runs and arrays of this client can read nothing after it."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncArchiveClient:
    """`ArchiveClient` for an event loop, of asyncio or Trio: what it fetches is awaited.

    ``async with``, ``async for run in client.runs()``, ``await client.run(…)`` and
    ``await run["score_matrix"][3, 0:8]``. It belongs to the event loop that first used it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        retry: RetryPolicy = DEFAULT_RETRY,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self._session = AsyncSession(
            Options(base_url, token, headers or {}, timeout_s, retry, max_request_bytes)
        )

    def runs(
        self,
        *,
        system: str | None = None,
        status: str | None = None,
        tag: str | None = None,
        q: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **meta: Any,
    ) -> AsyncIterator[RunSummary]:
        """Yield the runs that match; see `ArchiveClient.runs`."""
        filters = run_filters(meta, system=system, status=status, tag=tag, q=q, sort=sort)
        return self._session.iterate(listed(filters, limit, self._session.options))

    async def run(self, run_id: str) -> AsyncRun:
        """Open one run; see `ArchiveClient.run`."""
        document = await self._session.run(opened(run_id, self._session.options))
        return AsyncRun(self._session, document)

    async def create_run(
        self,
        run_id: str,
        *,
        system: str = "generic",
        steps: int | Sequence[int] | None = None,
        samples: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> AsyncRun:
        """Declare a run; see `ArchiveClient.create_run`."""
        operation = created(
            run_id,
            system=system,
            steps=steps,
            samples=samples,
            metadata=metadata or {},
            tags=tags,
            options=self._session.options,
        )
        return AsyncRun(self._session, await self._session.run(operation))

    async def remove(self, run_id: str, *, force: bool = False) -> None:
        """Remove a run; see `ArchiveClient.remove`."""
        await self._session.run(removed(run_id, force=force, options=self._session.options))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
