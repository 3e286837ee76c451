"""What the service counts, for Prometheus, and the layer that counts it."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Variable with the folder in which several workers keep their counters for one another."""
_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class Metrics:
    """Counters of one application; with several workers, their sum."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "trace_archive_requests",
            "Requests answered.",
            ("call", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "trace_archive_request_seconds",
            "Time from the request to the last byte of the answer.",
            ("call",),
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        self._sent = Counter(
            "trace_archive_sent_bytes",
            "Bytes of bodies sent.",
            ("call",),
            registry=self._registry,
        )
        self._held = Gauge(
            "trace_archive_inflight_bytes",
            "Bytes held for what is on its way between clients and the store.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram, Counter]] = {}

    def count(self, call: str, method: str, status: int, seconds: float, sent: int) -> None:
        """Count one answer; *call* is the path of a route, not of a request."""
        # To find a child by its labels costs more than to count.
        children = self._children.get((call, method, status))
        if children is None:
            children = (
                self._requests.labels(call, method, status),
                self._seconds.labels(call),
                self._sent.labels(call),
            )
            self._children[call, method, status] = children
        children[0].inc()
        children[1].observe(seconds)
        children[2].inc(sent)

    def holds(self, nbytes: int) -> None:
        """Take note of the memory that is held for what is on its way."""
        self._held.set(nbytes)

    def exposition(self) -> tuple[bytes, str]:
        """Return all counters in Prometheus' format, and its media type."""
        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus-client has no types here
        return generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8"


class Counted:
    """Counts every answer of the application that it wraps."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = perf_counter(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            seconds = perf_counter() - began
            self._metrics.count(_call(scope), scope["method"], status, seconds, sent)


def _call(scope: Scope) -> str:
    """Return the path of the route, so that there are few labels whatever is asked for."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "none"))
