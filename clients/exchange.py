"""What passes between the client's rules and the network: requests, replies, pauses.

Rules are written once, as generators that do no I/O: an `Operation` yields an `Effect`,
is sent what came of it, and returns its result. `clients.session` holds the two loops, one
blocking and one asynchronous, that carry effects out. An effect that the network failed is
thrown into the operation as a `StorageError`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar

from pydantic import ValidationError

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    StorageError,
    from_kind,
)
from archive_schema.wire import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; *path* is relative to the client's base URL and already quoted."""

    path: str
    method: str = "GET"
    params: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before going on."""

    seconds: float


class Sink(Protocol):
    """Takes a body as it arrives."""

    def begin(self, head: Reply) -> bool:
        """Look at status and headers; return whether to `write` the body or to keep it whole."""

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A request whose body goes into *sink* piece by piece instead of into memory."""

    request: Request
    sink: Sink


@dataclass(frozen=True, slots=True)
class Item(Generic[ItemT]):
    """One element of an operation that is iterated over."""

    value: ItemT


Effect: TypeAlias = Request | Transfer | Pause
Operation: TypeAlias = Generator[Effect, Any, ResultT]
"""Returns its result."""
Listing: TypeAlias = Generator[Effect | Item[ItemT], Any, None]
"""Gives its results one by one, as `Item`."""


TEMPORARY: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses that say the same request may succeed later."""


def unreachable(message: str) -> StorageError:
    """Return the error for a server that did not answer, or not to the end."""
    return StorageError(ErrorKind.STORE_UNREACHABLE, message)


def changed(message: str) -> ConflictError:
    """Return the error for a run that is no longer what the client knows of it."""
    return ConflictError(ErrorKind.RUN_DIFFERS, f"{message}; refresh() the run and ask again")


def error_of(reply: Reply) -> ArchiveError:
    """Return the error that *reply* stands for: the server's own, by its kind.

    An answer that is no problem document comes from something in between, or from a
    server that is not this one.
    """
    try:
        problem = Problem.model_validate_json(reply.body)
    except ValidationError:
        text = reply.body[:200].decode(errors="replace").strip()
        message = f"{reply.url} answered {reply.status}: {text or 'nothing'}"
        if reply.status in TEMPORARY or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return unreachable(message)
        hint = "is the base URL that of a trace archive?"
        return ArchiveError(ErrorKind.UNKNOWN, f"{message}; {hint}")
    error = from_kind(problem.kind, problem.detail)
    if reply.status in TEMPORARY and not isinstance(error, StorageError):
        return unreachable(problem.detail)
    return error
