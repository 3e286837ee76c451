"""A recorder over HTTP: what it leaves, and what becomes of it when anything in between dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import pytest

from archive_schema.errors import (
    AccessError,
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from archive_schema.models import RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import HttpStore, open_store
from recorder import TraceRecorder
from recorder.maintenance import remove_run, verify_run
from recorder.patience import PatientStore
from tests.command import trace_archive
from tests.faults.proxy import Action, Fault, FaultProxy
from tests.ports import unused_port
from tests.recorder.killed_sampler import STEPS, batches, declaration, state
from tests.recorder.lives import check, life
from tests.recorder.reading import committed, objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from tests.server_fixture import Serve

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = str(Path(sys.executable).with_name("trace-archive"))
VOLATILE: Final = (
    "time",
    "created",
    "uid",
    "nonce",
    "process",
    "crc32c",
    "index",
    "index_crc32c",
    "declaration",
)


def record_all(store: Store | str, run: str = "r") -> None:
    """Record the whole run of the sampler that is killed elsewhere."""
    with TraceRecorder(store, run, **declaration()) as rec:
        for samples in batches():
            for step in range(STEPS):
                values = state(step, samples)
                rec.record(step, samples=samples, t=step / STEPS, x=values, tokens=values > 0)


def without_times(value: Any) -> Any:
    """Return a document without what differs from one recording to the next."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in VOLATILE}
    if isinstance(value, list):
        found = [without_times(one) for one in value]
        # Fields stand in the order of their first commit.
        return sorted(found, key=json.dumps) if found and isinstance(found[0], dict) else found
    return value


def comparable(store: Store) -> dict[str, Any]:
    """Return the objects of the run but its commits, whose number is a matter of time."""
    found: dict[str, Any] = {}
    for key, data in objects(store, "r").items():
        if key.startswith("commits/") and not key.endswith("claim.json"):
            continue
        name = "index.json" if key.startswith("index-") else key
        found[name] = without_times(json.loads(data)) if key.endswith(".json") else data
    return found


@contextmanager
def serving(store: Store, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `trace-archive serve` as a process, and end it politely."""
    command = [PROGRAM, "serve", "--store", store.url, "--port", str(port), "--allow-push"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(100)


def test_a_run_is_the_same_whichever_way_it_was_recorded(
    folder_store: Store, serve: Serve, tmp_path: Path
) -> None:
    """Object for object: the server adds nothing, and changes nothing."""
    url = serve(folder_store, allow_push=True)
    direct = open_store(tmp_path / "direct")

    record_all(url)
    record_all(direct)

    assert comparable(folder_store) == comparable(direct)
    over_http = open_store(url)
    assert isinstance(over_http, HttpStore)
    assert over_http.folders("runs") == ["r"]
    assert objects(over_http, "r") == objects(folder_store, "r")
    assert verify_run(over_http, "r") == verify_run(folder_store, "r")


def test_a_server_below_a_path_is_a_store(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store, allow_push=True, root_path="/lab/traces")

    record_all(f"{url}/lab/traces/")

    assert RunRecords(folder_store, "r").status() is RunStatus.SEALED


def test_a_killed_recorder_goes_on_over_http(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store, allow_push=True)
    safe: set[tuple[int, int]] = set()
    for words, lives_on_s in ((1, 0.02), (3, 0.1)):
        safe |= life(url, words, lives_on_s)
        check(folder_store, safe)

    safe |= life(url, None)

    assert check(folder_store, safe) == 2 * STEPS * len(batches())
    assert RunRecords(folder_store, "r").status() is RunStatus.SEALED


def test_any_worker_takes_any_request(folder_store: Store) -> None:
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    with serving(folder_store, port, "--workers", "2"):
        record_all(url)
        found = verify_run(open_store(url), "r")

    assert found.sound
    assert check(folder_store, set()) == 2 * STEPS * len(batches())


FAULTS: Final = {
    "the answer to each first put is lost": Fault(Action.LOSE_ANSWER, "PUT", once_each=True),
    "each first put is cut in its body": Fault(Action.CUT_UPLOAD, "PUT", once_each=True, at=60),
    "each first put is damaged on its way": Fault(Action.FLIP_UPLOAD, "PUT", once_each=True, at=60),
    "each first answer is damaged": Fault(
        Action.FLIP_ANSWER, "GET", key="objects/", once_each=True, at=8
    ),
    "each first answer is cut": Fault(Action.CUT_ANSWER, "GET", once_each=True, at=8),
    "a proxy answers for a server that is away": Fault(Action.REFUSE, probability=0.2, status=502),
    "the server is busy": Fault(Action.REFUSE, probability=0.1, status=503, retry_after_s=0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_way_that_fails_costs_repetitions_and_nothing_else(
    folder_store: Store, serve: Serve, name: str
) -> None:
    url = serve(folder_store, allow_push=True)
    values = np.arange(400, dtype=np.float32).reshape(20, 20)
    with FaultProxy(url) as way:
        fault = way.add(replace(FAULTS[name]))
        for life in range(2):  # the second opens what the first left, and reads it
            with TraceRecorder(way.url, "r", steps=4, samples=20, seal_at_exit=life == 1) as rec:
                for step in range(2 * life, 2 * life + 2):
                    for start in (0, 10):
                        samples = slice(start, start + 10)
                        rec.record(step, samples=samples, t=step / 4, x=values[samples] + step)

    assert fault.hits
    tiles = committed(folder_store, "r")
    assert len(tiles) == 8
    for (_, step, tile), found in tiles.items():
        np.testing.assert_array_equal(found, values[tile * 10 : tile * 10 + 10] + step)
    assert verify_run(folder_store, "r").sound
    assert RunRecords(folder_store, "r").status() is RunStatus.SEALED


def test_many_at_once_are_sent_away_and_all_come_in_the_end(
    folder_store: Store, serve: Serve
) -> None:
    """What is held at once is bounded, and whoever waits gets its turn."""
    size, count = 60_000, 48
    url = serve(folder_store, allow_push=True, max_inflight_bytes=2 * size)
    record_all(url)
    patient = PatientStore(open_store(url), 60.0)
    data = {f"runs/r/trace.zarr/trace/many/c.{n}.0": os.urandom(size) for n in range(count)}
    with FaultProxy(url) as way:  # slow enough that bodies meet
        slow = PatientStore(open_store(way.url), 60.0)
        way.add(Fault(Action.DELAY, "PUT", seconds=0.02))
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda item: slow.create(*item), data.items()))

    assert {key: patient.read(key) for key in data} == data


def test_beyond_the_limit_a_put_is_told_when_to_come_again(
    folder_store: Store, serve: Serve
) -> None:
    url = serve(folder_store, allow_push=True, max_inflight_bytes=1000)
    open_store(url)
    httpx.post(f"{url}/runs", json={"id": "r"}).raise_for_status()
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as first:
        first.sendall(
            b"PUT /runs/r/objects/trace.zarr/trace/x/c.0.0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"If-None-Match: *\r\nContent-Length: 900\r\n\r\n" + bytes(100)
        )
        refused = until_busy(url)
        first.sendall(bytes(800))
        assert first.recv(100).startswith(b"HTTP/1.1 201")
    taken = put(url, "trace.zarr/trace/x/c.1.0", bytes(500))

    assert refused.json()["kind"] == "store-busy"
    assert int(refused.headers["retry-after"]) >= 1
    assert taken.status_code == 201
    assert folder_store.size("runs/r/trace.zarr/trace/x/c.0.0") == 900


def put(url: str, path: str, data: bytes, **headers: str) -> httpx.Response:
    known = {"If-None-Match": "*", **headers}
    return httpx.put(f"{url}/runs/r/objects/{path}", content=data, headers=known)


def until_busy(url: str) -> httpx.Response:
    """Put something else until the first body is known to be on its way."""
    for attempt in range(1000):
        answer = put(url, f"trace.zarr/trace/y/c.{attempt}.0", bytes(500))
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return answer
    raise AssertionError("nothing was refused")


def test_errors_are_the_same_on_both_sides(folder_store: Store, serve: Serve) -> None:
    """What a caller can do about an error does not depend on the way it came."""
    url = serve(folder_store, allow_push=True)
    store = open_store(url)
    record_all(url)

    with pytest.raises(NotFoundError) as absent:
        store.read("runs/r/trace.zarr/trace/none/c.0.0")
    with pytest.raises(NotFoundError) as unknown:
        store.create("runs/none/trace.zarr/trace/x/c.0.0", b"1")
    with pytest.raises(ConflictError) as there:
        store.create("runs/r/trace.zarr/trace/x/c.0.0.0", b"1")
    with pytest.raises(InvalidInputError) as replaced:
        store.write("runs/r/trace.zarr/trace/x/c.0.0.0", b"1")
    with pytest.raises(InvalidInputError) as single:
        store.delete("runs/r/run.json")
    with pytest.raises(InvalidInputError) as outside:
        store.read("elsewhere/x")
    with pytest.raises(ConflictError) as sealed, TraceRecorder(url, "r", **declaration()):
        pass
    with pytest.raises(ConflictError) as differs, TraceRecorder(url, "r", steps=1):
        pass

    assert [one.value.kind for one in (absent, unknown, there, replaced, single, outside)] == [
        ErrorKind.OBJECT_NOT_FOUND,
        ErrorKind.RUN_NOT_FOUND,
        ErrorKind.OBJECT_EXISTS,
        ErrorKind.METHOD_NOT_ALLOWED,
        ErrorKind.METHOD_NOT_ALLOWED,
        ErrorKind.INVALID_NAME,
    ]
    assert sealed.value.kind is ErrorKind.RUN_SEALED
    assert differs.value.kind is ErrorKind.RUN_DIFFERS


def test_what_is_no_archive_says_nothing_about_what_is_recorded(serve: Serve) -> None:
    """A 404 of something else is not the absence of an object: absent is never a guess."""
    url = serve("memory://no-archive-here")
    below = open_store(f"{url}/nothing/here")
    gone = open_store(f"http://127.0.0.1:{unused_port()}")

    with pytest.raises(InvalidInputError) as read:
        below.read("runs/r/run.json")
    with pytest.raises(InvalidInputError) as size:
        below.size("runs/r/run.json")
    with pytest.raises(InvalidInputError) as listed:
        below.folders("runs")
    with pytest.raises(StorageError) as away:
        gone.read("runs/r/run.json")

    assert {one.value.kind for one in (read, size, listed)} == {ErrorKind.STORE_URL_INVALID}
    assert away.value.kind is ErrorKind.STORE_UNREACHABLE


def test_a_service_that_takes_no_writes_says_so_at_once(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store)

    with pytest.raises(AccessError, match="--allow-push") as refused:
        record_all(url)

    assert refused.value.kind is ErrorKind.TOKEN_REFUSED


def test_ranges_end_where_objects_end(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store, allow_push=True)
    httpx.post(f"{url}/runs", json={"id": "r"}).raise_for_status()
    store, key, empty = (
        open_store(url),
        "runs/r/trace.zarr/trace/x/c.0",
        "runs/r/trace.zarr/trace/x/c.1",
    )
    store.create(key, b"0123456789")
    store.create(empty, b"")

    assert store.read_range(key, 2, 5) == b"234"
    assert store.read_range(key, 8, 20) == b"89"
    assert store.read_range(key, 10, 20) == b""
    assert store.read_range(key, 3, 3) == b""
    assert (store.read(empty), store.size(empty), store.read_range(empty, 0, 4)) == (b"", 0, b"")
    assert store.size(key) == 10


def test_tags_and_removal_work_through_a_server(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store, allow_push=True)
    record_all(url)
    httpx.patch(f"{url}/runs/r", json={"tags": ["kept"]}).raise_for_status()

    shown = trace_archive("ls", "--store", url, "--tag", "kept", "--json")
    count = remove_run(open_store(url), "r")

    assert [run["id"] for run in json.loads(shown.stdout)["runs"]] == ["r"]
    assert count > 0
    assert list(folder_store.objects("runs")) == []
    assert list(folder_store.objects("annotations")) == []
