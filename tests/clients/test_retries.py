"""When the client asks again, how long it waits, and what it says when it gives up."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import (
    ArchiveError,
    ErrorKind,
    FormatError,
    StorageError,
    TooLargeError,
    from_kind,
)
from clients import ArchiveClient, RetryPolicy
from clients.exchange import Operation, Pause, Reply, Request
from clients.retry import fetched, retry_after_s
from tests.clients.scripted import BUSY, Answer, document, problem, run_document, scripted, values

QUICK = RetryPolicy(attempts=3, first_pause_s=0.001)
WHOLE = values(bytes(range(24)), (3, 4), ("step", "sample"), "int16")


def pauses(operation: Operation[object], reply: Reply) -> list[float]:
    """Return how long *operation* waits between attempts that are all answered by *reply*."""
    waited = []
    effect = next(operation)
    with pytest.raises(StorageError):
        while True:
            if isinstance(effect, Pause):
                waited.append(effect.seconds)
                effect = operation.send(None)
            else:
                effect = operation.send(reply)
    return waited


def busy(retry_after: str | None = None) -> Reply:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Reply(503, headers, b"", "http://archive/runs")


def operation(policy: RetryPolicy) -> Operation[object]:
    return fetched(Request("runs"), policy, lambda reply: reply)


def test_a_wait_that_the_server_asks_for_is_kept() -> None:
    assert pauses(operation(RetryPolicy(attempts=4)), busy("7")) == [7.0, 7.0, 7.0]


def test_a_wait_until_a_date_is_kept() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=30)

    waited = retry_after_s(busy(format_datetime(moment, usegmt=True)))

    assert waited is not None
    assert 20 < waited <= 30
    assert retry_after_s(busy("Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    assert retry_after_s(busy("soon")) is None
    assert retry_after_s(busy()) is None


def test_a_wait_beyond_the_patience_is_not_begun() -> None:
    """An error now is better than the same error in an hour."""
    assert pauses(operation(RetryPolicy(total_s=60)), busy("3600")) == []


@given(st.integers(1, 8), st.floats(0.01, 1), st.floats(0.01, 5))
def test_pauses_are_bounded_and_as_many_as_allowed(
    attempts: int, first: float, longest: float
) -> None:
    policy = RetryPolicy(attempts, total_s=1e9, first_pause_s=first, longest_pause_s=longest)

    waited = pauses(operation(policy), busy())

    assert len(waited) == attempts - 1
    for n, seconds in enumerate(waited):
        assert 0 <= seconds <= min(first * 2**n, longest)


def test_an_answer_after_some_503_is_an_answer() -> None:
    with scripted(document(run_document()), BUSY, BUSY, WHOLE) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            found = client.run("r")["x"][:]

    assert found.tobytes() == bytes(range(24))
    assert len(script.asked) == 4
    assert len({asked.path for asked in script.asked[1:]}) == 1


def test_after_the_last_attempt_the_server_s_own_error_is_raised() -> None:
    with scripted(BUSY) as script, ArchiveClient(script.url, retry=QUICK) as client:
        with pytest.raises(StorageError, match="the store is away") as caught:
            client.run("r")

    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert caught.value.retryable
    assert len(script.asked) == 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_a_proxy_says_in_a_hurry_is_asked_again(status: int) -> None:
    """A gateway answers in HTML, and knows no kind."""
    gateway = Answer(b"<html>Bad day</html>", status)
    with scripted(gateway, document(run_document())) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            assert client.run("r").id == "r"

    assert len(script.asked) == 2


def test_nobody_there_is_the_archive_s_own_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        with ArchiveClient(url, retry=QUICK) as client:
            with pytest.raises(StorageError, match="refused") as caught:
                client.run("r")

    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "cut",
    [
        Answer(WHOLE.body, headers=WHOLE.headers, cut=23),
        Answer(WHOLE.body, headers=WHOLE.headers, cut=0),
        Answer(WHOLE.body[:22], headers=WHOLE.headers),
        Answer(b"", headers=WHOLE.headers),
    ],
    ids=["one byte missing", "no body", "short and sealed by a proxy", "empty"],
)
def test_a_cut_answer_is_asked_for_again_and_never_a_short_array(cut: Answer) -> None:
    with scripted(document(run_document()), cut, WHOLE) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            assert client.run("r")["x"][:].tobytes() == bytes(range(24))

    with scripted(document(run_document()), cut) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(StorageError) as caught:
                client.run("r")["x"][:]

    assert caught.value.kind is ErrorKind.STORE_UNREACHABLE
    assert len(script.asked) == 4


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind is not ErrorKind.UNKNOWN])
def test_each_kind_of_problem_comes_back_as_its_class(kind: ErrorKind) -> None:
    expected = from_kind(kind, "")
    retry = RetryPolicy(attempts=1)
    with scripted(problem(422, kind)) as script, ArchiveClient(script.url, retry=retry) as client:
        with pytest.raises(type(expected), match="so it is") as caught:
            client.run("r")

    assert caught.value.kind is kind
    assert type(caught.value) is type(expected)


def test_what_will_not_change_is_not_asked_again() -> None:
    with scripted(problem(500, ErrorKind.TILE_DAMAGED, "tile c.0.1 is damaged")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(FormatError, match=r"tile c\.0\.1"):
                client.run("r")

    assert len(script.asked) == 1


def test_too_large_is_said_so() -> None:
    refused = problem(413, ErrorKind.ANSWER_TOO_LARGE, "ask for parts, such as steps=0:91")
    with scripted(document(run_document()), refused) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(TooLargeError, match="steps=0:91"):
                client.run("r")["x"][:]


def test_a_kind_of_a_newer_server_is_still_an_error_with_its_message() -> None:
    with scripted(problem(409, "quota-used-up", "no room for you")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(ArchiveError, match="no room for you") as caught:
                client.run("r")

    assert caught.value.kind is ErrorKind.UNKNOWN


def test_a_server_that_is_no_archive_is_told_apart() -> None:
    with scripted(Answer(b"<h1>Not Found</h1>", 404)) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(ArchiveError, match="is the base URL that of a trace archive"):
                client.run("r")

    with scripted(Answer(b"<h1>Welcome</h1>")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(FormatError, match="answered with no RunDocument"):
                client.run("r")
