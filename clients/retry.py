"""When a request is sent again, and when the client gives up.

Sending a request twice is harmless: it reads, or what it writes is nothing new the second
time. A request is repeated after every `StorageError`: the connection failed, the body was cut,
or the server (or a proxy before it) said that it cannot answer now.

1. The pause is what ``Retry-After`` says, or a random one below a ceiling that doubles, so
   that many clients do not come back at the same moment.
2. No pause goes beyond the total time; when it would, the last error is raised at once.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from archive_schema.errors import StorageError
from clients.exchange import (
    Effect,
    Operation,
    Pause,
    Reply,
    Request,
    ResultT,
    error_of,
    unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container

SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and for how long a request is repeated.

    Parameters
    ----------
    attempts : int
        Requests in all, the first included.
    total_s : float, seconds
        No attempt begins later than this after the first.
    first_pause_s, longest_pause_s : float, seconds
        Ceiling of the first random pause, which doubles each time, and its limit. A
        ``Retry-After`` is obeyed beyond that limit.
    """

    attempts: int = 5
    total_s: float = 60.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 10.0


class Patience:
    """What is left of a `RetryPolicy` while one answer is waited for."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.renew()

    def renew(self) -> None:
        """Begin again, because the last attempt got somewhere."""
        self._failures = 0
        self._until = time.monotonic() + self._policy.total_s

    def pause(self, error: StorageError, asked_s: float | None = None) -> Pause:
        """Return how long to wait after *error*; *asked_s* is what the server asked for.

        Raises
        ------
        StorageError
            *error* itself, if there is no patience left.
        """
        self._failures += 1
        if self._failures >= self._policy.attempts:
            raise error
        if asked_s is None:
            ceiling = self._policy.first_pause_s * 2.0 ** (self._failures - 1)
            seconds = random.uniform(0, min(ceiling, self._policy.longest_pause_s))  # noqa: S311  not a secret
        else:
            seconds = asked_s
        if time.monotonic() + seconds > self._until:
            raise error
        return Pause(seconds)


def fetched(
    effect: Effect,
    policy: RetryPolicy,
    decode: Callable[[Reply], ResultT],
    *,
    accept: Container[int] = SUCCESS,
) -> Operation[ResultT]:
    """Carry *effect* out until `decode` takes the answer.

    Parameters
    ----------
    decode
        Makes the result of an answer. A `StorageError` that it raises means that the answer
        was cut on its way, and counts as one more failed attempt.
    accept
        Statuses that *decode* understands; all others are errors.

    Raises
    ------
    ArchiveError
        What the server answered, as the class of its kind.
    StorageError
        The last failure, when the policy is used up.
    """
    patience = Patience(policy)
    while True:
        asked_s = None
        try:
            reply = yield effect
            if reply.status in accept:
                if isinstance(effect, Request):
                    _check_whole(reply)
                return decode(reply)
            asked_s = retry_after_s(reply)
            raise error_of(reply)
        except StorageError as failure:
            error = failure
        yield patience.pause(error, asked_s)


def retry_after_s(reply: Reply) -> float | None:
    """Return the seconds that *reply* asks to wait; None where it does not say.

    Examples
    --------
    >>> retry_after_s(Reply(503, {"retry-after": "2"}, b"", ""))
    2.0
    """
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": UTC, but nobody knows where it was written
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _check_whole(reply: Reply) -> None:
    announced = reply.headers.get("content-length", "")
    # With a content coding it is the length of the coded body, which is gone; and a 304 may
    # tell the length of the body that it does not send.
    comparable = "content-encoding" not in reply.headers and reply.status in SUCCESS
    if comparable and announced.isdigit() and int(announced) != len(reply.body):
        raise unreachable(f"{reply.url} announced {announced} bytes, got {len(reply.body)}")
