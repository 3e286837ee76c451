"""Small answers that were given lately, whole, so that asking again costs no planning.

An answer belongs to one version of its run, and another version is another answer; nothing
here can be stale. What it saves is the interpreter's work on the selection, which for a slice
of a few kilobytes is most of the cost.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, TypeAlias

Asked: TypeAlias = tuple[str, bytes, str | None]
"""Path, query string and ``Accept`` of a request."""
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


class RecentAnswer(NamedTuple):
    """An answer with status 200."""

    version: str
    """Of the run."""
    tag: str
    headers: RawHeaders
    body: bytes


_BESIDE_NBYTES: Final = 1024
"""About what an answer takes beside its body and what was asked."""


class RecentAnswers:
    """The answers given last, bounded in bytes; for one event loop.

    Parameters
    ----------
    max_bytes : int
        Of memory held; 0 holds none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._nbytes = 0
        self._answers: OrderedDict[Asked, RecentAnswer] = OrderedDict()

    def get(self, asked: Asked, version: str) -> RecentAnswer | None:
        """Return the answer to the same request at this version of the run, if it is held."""
        answer = self._answers.get(asked)
        if answer is None or answer.version != version:
            return None
        self._answers.move_to_end(asked)
        return answer

    def put(self, asked: Asked, answer: RecentAnswer) -> None:
        """Hold an answer, and drop those that were asked for longest ago."""
        replaced = self._answers.pop(asked, None)
        if replaced is not None:
            self._nbytes -= _size(asked, replaced)
        self._answers[asked] = answer
        self._nbytes += _size(asked, answer)
        while self._nbytes > self._max_bytes:
            self._nbytes -= _size(*self._answers.popitem(last=False))


def _size(asked: Asked, answer: RecentAnswer) -> int:
    path, query, accept = asked
    return len(answer.body) + len(path) + len(query) + len(accept or "") + _BESIDE_NBYTES
