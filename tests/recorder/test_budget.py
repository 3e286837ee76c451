"""Memory is bounded in bytes: callers wait for room, and not for ever."""

from __future__ import annotations

import threading

import pytest

from archive_schema.errors import ErrorKind, StorageError
from recorder.budget import ByteBudget, default_max_bytes


def test_who_does_not_fit_waits_until_there_is_room() -> None:
    budget = ByteBudget(100)
    budget.take(60, deadline_s=60)
    entered = threading.Event()

    def second() -> None:
        budget.take(50, deadline_s=60)
        entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.05)
    budget.give(60)
    thread.join()

    assert entered.is_set()
    assert budget.peak == 60
    assert budget.waited_s > 0


def test_waiting_ends_at_the_deadline() -> None:
    budget = ByteBudget(100)
    budget.take(60, deadline_s=0)

    with pytest.raises(
        StorageError, match=r"60 bytes within 0 s.* 50 more.* budget of 100"
    ) as caught:
        budget.take(50, deadline_s=0)

    assert caught.value.kind is ErrorKind.DEADLINE_PASSED
    budget.take(40, deadline_s=0)


def test_what_exceeds_the_budget_goes_alone() -> None:
    """It could never be recorded otherwise."""
    budget = ByteBudget(100)
    budget.take(500, deadline_s=0)
    with pytest.raises(StorageError):
        budget.take(1, deadline_s=0)
    budget.give(500)

    budget.take(1, deadline_s=0)
    with pytest.raises(StorageError):
        budget.take(500, deadline_s=0)


def test_nobody_waits_for_what_has_ended() -> None:
    budget = ByteBudget(100)
    budget.take(100, deadline_s=0)
    entered = threading.Thread(target=budget.take, args=(1, 60))
    entered.start()

    budget.end()
    entered.join()

    assert budget.waited_s < 60


def test_the_default_leaves_most_of_the_memory() -> None:
    assert 0 < default_max_bytes() <= 2 * 2**30
