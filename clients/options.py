"""How a client speaks to its server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from archive_schema.errors import ErrorKind, invalid
from clients.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clients.exchange import Request

MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
DEFAULT_RETRY: Final = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Options:
    """How a client speaks to its server.

    Parameters
    ----------
    base_url : str
        Where the archive is served, with a path below the host if it has one.
    token : str | None
        Sent as ``Authorization: Bearer``; by default the variable ``TRACE_ARCHIVE_TOKEN``.
    headers
        Sent with every request.
    timeout_s : float, seconds
        The longest silence of the server, and the longest time to connect.
    retry
        When a request is repeated.
    max_request_bytes : int, bytes
        A read of more is split into several requests.
    """

    base_url: str
    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    retry: RetryPolicy = DEFAULT_RETRY
    max_request_bytes: int = MAX_REQUEST_BYTES

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            message = f"expected a base URL such as http://host:8000/archive, got {self.base_url!r}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        if self.max_request_bytes < 1:
            message = f"expected max_request_bytes of 1 or more, got {self.max_request_bytes}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers of every request."""
        # Identity: values hardly compress twice, and a length on the way is the length here.
        common = {"Accept-Encoding": "identity", "User-Agent": "trace-archive-client"}
        token = os.environ.get("TRACE_ARCHIVE_TOKEN") if self.token is None else self.token
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return {**common, **bearer, **self.headers}

    def url(self, request: Request) -> str:
        """Return the whole URL of *request*."""
        # A selector stays readable in logs: 0:8,10 instead of 0%3A8%2C10.
        query = "?" + urlencode(request.params, safe=":,") if request.params else ""
        return f"{self.base_url.rstrip('/')}/{request.path}{query}"
