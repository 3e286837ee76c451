"""What is new in a run that is being recorded: polled, and as events."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from tests.server_fixture import Serve

VALUES = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def run(folder_store: Store) -> Builder:
    return Builder(folder_store, "run", steps=9, samples=4).declare(
        spec_of("x", VALUES, tile=4), spec_of("y", VALUES, tile=4)
    )


def test_changes_tell_what_came_since(folder_store: Store, serve: Serve, run: Builder) -> None:
    with httpx.Client(base_url=serve(folder_store)) as client:
        run.put("trace/x", VALUES, 0).put("trace/y", VALUES, 0)
        first = client.get("/runs/run/changes").json()
        run.put("trace/x", VALUES, 1).put("trace/x", VALUES, 2)
        second = client.get(f"/runs/run/changes?since={first['version']}").json()
        third = client.get(f"/runs/run/changes?since={second['version']}").json()

    assert first["steps"] == [[0, 1, 1]]
    assert first["fields"] == ["trace/x", "trace/y"]
    assert second["steps"] == [[1, 3, 1]]
    assert second["fields"] == ["trace/x"]
    assert third["steps"] == []
    assert third["version"] == second["version"] == client_version(second)


def client_version(changes: dict[str, Any]) -> str:
    return str(changes["version"])


def test_polling_costs_nothing_while_nothing_is_new(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    with httpx.Client(base_url=serve(folder_store)) as client:
        run.put("trace/x", VALUES, 0)
        tag = client.get("/runs/run/changes").headers["etag"]

        same = client.get("/runs/run/changes", headers={"If-None-Match": tag})
        run.put("trace/x", VALUES, 1)
        other = client.get("/runs/run/changes", headers={"If-None-Match": tag})

    assert same.status_code == 304
    assert other.status_code == 200


def test_a_slice_that_is_not_there_yet_comes_when_it_is_recorded(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    """And what a client holds of a live run is asked for again each time."""
    with httpx.Client(base_url=serve(folder_store)) as client:
        path = "/runs/run/steps/0/x?format=raw"
        run.put("trace/y", VALUES, 0)
        absent = client.get(path)
        run.put("trace/x", VALUES, 0)
        there = client.get(path)
        run.put("trace/x", VALUES, 1)
        again = client.get(path, headers={"If-None-Match": there.headers["etag"]})

    assert absent.status_code == 404
    assert there.content == VALUES.tobytes()
    assert again.status_code == 304, "its bytes are the same, although the run grew"


def test_what_is_recorded_in_part_is_masked_or_refused(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    half = spec_of("half", VALUES[:2], tile=2)
    run.declare(half).put("trace/half", VALUES[:2], 0, 0)
    with httpx.Client(base_url=serve(folder_store)) as client:
        refused = client.get("/runs/run/steps/0/half")
        masked = client.get("/runs/run/steps/0/half?missing=mask").json()
        table = client.get("/runs/run/steps/0/half?missing=mask&format=csv").text
        there = client.get("/runs/run/steps/0/half?samples=0:2").json()

    assert refused.status_code == 404
    assert refused.json()["kind"] == "not-recorded"
    assert "0:2" in refused.json()["detail"], "what is recorded is named"
    assert masked["data"] == [*VALUES[:2].tolist(), [None] * 3, [None] * 3]
    assert table.splitlines()[-1] == "3,2,"
    assert there["data"] == VALUES[:2].tolist()


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not line and event:
            yield event
            event = {}
        elif name in ("event", "id"):
            event[name] = value
        elif name == "data":
            event[name] = json.loads(value)


def test_events_tell_what_is_new_and_end_with_the_seal(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    run.put("trace/x", VALUES, 0)
    url = serve(folder_store)
    seen = []

    with httpx.stream("GET", f"{url}/runs/run/events", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for number, event in enumerate(events(answer.iter_lines())):
            seen.append(event)
            if number == 0:
                run.put("trace/x", VALUES, 1).put("trace/x", VALUES, 2)
            elif event["event"] == "change" and [1, 3, 1] in event["data"]["steps"]:
                run.seal()

    assert seen[0]["event"] == "change"
    assert seen[0]["data"]["steps"] == [[0, 1, 1]]
    assert seen[-1]["event"] == "sealed"
    assert seen[-1]["data"]["status"] == "sealed"
    assert seen[-1]["id"] == seen[-1]["data"]["version"]


def test_who_connects_again_goes_on_where_it_was(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    run.put("trace/x", VALUES, 0)
    url = serve(folder_store)
    version = httpx.get(f"{url}/runs/run/changes").json()["version"]
    run.put("trace/x", VALUES, 5)

    with httpx.stream(
        "GET", f"{url}/runs/run/events", headers={"Last-Event-ID": version}, timeout=30
    ) as answer:
        first = next(events(answer.iter_lines()))

    assert first["data"]["steps"] == [[5, 6, 1]]


def test_events_of_a_sealed_run_end_at_once(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    run.put("trace/x", VALUES, 0).seal()

    answer = httpx.get(f"{serve(folder_store)}/runs/run/events", timeout=30)

    assert [event["event"] for event in events(iter(answer.text.splitlines()))] == ["sealed"]


def test_head_of_an_event_stream_does_not_wait_for_events(http: httpx.Client) -> None:
    answer = http.head("/runs/live/events")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert http.get("/runs/live").status_code == 200, "the connection goes on"


def test_many_ask_at_once_while_a_run_grows(
    folder_store: Store, serve: Serve, run: Builder
) -> None:
    run.put("trace/x", VALUES, 0)
    url = serve(folder_store)
    wrong: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(10):
                answer = client.get("/runs/run/steps/-1/x?format=raw")
                step = int(answer.headers.get("x-trace-steps", -1))
                if answer.content != (VALUES + step).tobytes():
                    wrong.append(f"{answer.status_code} at step {step}")

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for step in range(1, 9):
        run.put("trace/x", VALUES + step, step)
    for thread in threads:
        thread.join()

    assert wrong == []
