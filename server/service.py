"""What every route answers from: the settings, the runs, the list of runs, the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from archive_schema.annotations import read_annotations
from archive_schema.store import open_store
from server.catalogue import Catalogue
from server.inflight import InFlight
from server.metrics import Metrics
from server.push.gateway import Gateway
from server.push.pushes import Pushes
from server.query import Archive
from server.recent import RecentAnswers

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from archive_schema.annotations import Annotations
    from server.query import RunView
    from server.settings import Settings

_FEW_WRITERS: Final = 8
"""Looking for new commits of so many writers takes less than the way to a thread."""
_MOST_WARM: Final = 4096
_WRITING_THREADS: Final = 32

_T = TypeVar("_T")


class Service:
    """One archive and what is known of it; a context manager, for as long as the app runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = open_store(settings.store, settings.store_options)
        self.archive = Archive(
            self.store,
            cache_bytes=settings.cache_bytes,
            reads_in_flight=settings.reads_in_flight,
            gap_bytes=settings.read_gap_bytes,
            ahead_bytes=settings.read_ahead_bytes,
        )
        self.metrics = Metrics()
        self.recent = RecentAnswers(settings.recent_bytes)
        self.gateway = Gateway(self.store)
        self.pushes = Pushes(
            self.store,
            durable=settings.push_durability == "disk",
            patience_s=settings.push_patience_s,
            idle_s=settings.push_idle_s,
        )
        self.inflight = InFlight(settings.max_inflight_bytes, self.metrics.holds)
        """Memory for what is on its way between clients and the store."""
        self.remote = self.archive.reader.remote
        # Of their own, so that a store that takes long to write does not hold up who reads.
        self._writers = CapacityLimiter(_WRITING_THREADS)
        self._warm: set[str] = set()
        self._catalogue: Catalogue | None = None

    def __enter__(self) -> Self:
        self._catalogue = Catalogue(self.archive, self.settings.catalogue)
        # So that the first list of a large store finds some of it done.
        self._catalogue.nudge()
        self.pushes.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pushes.stop()
        self.catalogue.close()
        self.archive.close()

    @property
    def catalogue(self) -> Catalogue:
        """The list of runs."""
        if self._catalogue is None:
            message = "the application's lifespan has not begun"
            raise RuntimeError(message)
        return self._catalogue

    async def writing(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a call that blocks on the store returns, in a thread for those who write."""
        return await run_sync(call, *arguments, limiter=self._writers)

    def annotations(self, run: RunView) -> Annotations | None:
        """Return what people said of a run; this reads the store."""
        return read_annotations(self.store, run.manifest)

    def forget(self, run_id: str) -> None:
        """Believe nothing of a run any more that was removed."""
        self.archive.forget(run_id)
        self.gateway.forget(run_id)
        self._warm.discard(run_id)
        self.catalogue.nudge()

    async def run(self, run_id: str) -> RunView:
        """Return a run; what may take long, reading its records, happens in a thread."""
        known = self.archive.known(run_id)
        if known is not None:
            return known
        if run_id in self._warm and not self.remote:
            return self.archive.run(run_id)
        run = await run_sync(self.archive.run, run_id)
        if len(run.marks) <= _FEW_WRITERS and len(self._warm) < _MOST_WARM:
            self._warm.add(run_id)
        return run


def service_of(request: Request) -> Service:
    """Return the service of the application that *request* came to."""
    service = request.app.state.service
    if not isinstance(service, Service):
        message = "the application was not made by create_app"
        raise TypeError(message)
    return service
