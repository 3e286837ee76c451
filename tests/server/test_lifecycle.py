"""Runs are declared, tagged, sealed and removed over HTTP, and a repetition does no harm."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import pytest

from archive_schema.annotations import annotations_key
from archive_schema.layout import manifest_key
from archive_schema.records import RunRecords, read_manifest
from clients import ArchiveClient
from recorder import TraceRecorder
from tests.server.test_problems import is_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archive_schema.store import Store
    from tests.server_fixture import Serve

DECLARED: Final[dict[str, Any]] = {
    "id": "r", "system": "d3-dna", "steps": 3, "samples": 4, "tags": ["a"],
    "metadata": {"model": {"name": "m"}}, "writers": 2,
}  # fmt: skip


@pytest.fixture
def url(folder_store: Store, serve: Serve) -> str:
    return serve(folder_store, allow_push=True)


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as found:
        yield found


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def record_something(store: Store | str, run: str = "r", *, seal: bool = True) -> None:
    with TraceRecorder(store, run, steps=2, samples=2, tags=["a"], seal_at_exit=seal) as rec:
        for step in range(2):
            rec.record(step, x=np.full((2, 3), step))


def test_a_run_is_declared_once(client: httpx.Client, folder_store: Store) -> None:
    first = client.post("/runs", json=DECLARED)
    again = client.post("/runs", json=DECLARED)
    other = client.post("/runs", json={**DECLARED, "steps": 4})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["location"] == "/runs/r"
    assert first.json()["uid"] == again.json()["uid"]
    assert "steps 3, now 4" in is_problem(other, 409, "run-differs")["detail"]
    manifest = read_manifest(folder_store, "r")
    assert (manifest.system, manifest.steps, manifest.writers) == ("d3-dna", 3, 2)
    assert manifest.metadata == DECLARED["metadata"]
    assert manifest.software.startswith("trace-archive")
    listed = client.get("/runs?tag=a").json()["runs"]
    assert [run["id"] for run in listed] == ["r"]


def test_of_many_who_declare_a_run_one_creates_it(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.post("/runs", json=DECLARED), range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["uid"] for answer in answers}) == 1


def test_a_whole_manifest_is_taken_as_it_is(client: httpx.Client, folder_store: Store) -> None:
    """So that a run can be declared elsewhere, and later here."""
    manifest = {
        **DECLARED, "uid": "u-1", "created": "2026-01-02T03:04:05Z", "software": "mine 1",
        "format": "trace-archive", "format_version": 1, "steps": [0, 10, 20],
    }  # fmt: skip

    answer = client.post("/runs", json=manifest)

    assert answer.status_code == 201, answer.text
    found = read_manifest(folder_store, "r")
    assert (found.uid, found.software, found.steps) == ("u-1", "mine 1", (0, 10, 20))
    assert found.created.isoformat() == "2026-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"id": "../x"}, "invalid-name"),
        ({"id": "r.h5"}, "invalid-name"),
        ({"id": 3}, "invalid-parameter"),
        ({"id": None}, "invalid-parameter"),
        ({"steps": -1}, "invalid-parameter"),
        ({"steps": [3, 2]}, "invalid-parameter"),
        ({"steps": "many"}, "invalid-parameter"),
        ({"samples": 1.5}, "invalid-parameter"),
        ({"writers": 0}, "invalid-parameter"),
        ({"system": "nonsense"}, "invalid-parameter"),
        ({"metadata": [1]}, "invalid-parameter"),
        ({"tags": "a"}, "invalid-parameter"),
        ({"nonsense": 1}, "invalid-parameter"),
        ({"format_version": 9}, "invalid-parameter"),
        ({"created": "yesterday"}, "invalid-parameter"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(
    client: httpx.Client, folder_store: Store, changed: dict[str, Any], kind: str
) -> None:
    is_problem(client.post("/runs", json={**DECLARED, **changed}), 422, kind)

    assert folder_store.folders("runs") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/runs"), ("PATCH", "/runs/r"), ("POST", "/runs/r/sync"), ("POST", "/runs/r/query")],
)
@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff", "application/json"),
        (b'{"id": "r"}', "text/plain"),
        (b"{}" + b" " * (2 << 20), "application/json"),
    ],
)
def test_a_body_that_is_no_document_is_refused(
    client: httpx.Client, method: str, path: str, body: bytes, media_type: str
) -> None:
    """Text is refused, too: pages of other origins may post it without being asked."""
    answer = client.request(method, path, content=body, headers={"Content-Type": media_type})

    is_problem(answer, 413 if len(body) > 1 << 20 else 422)


def test_a_run_is_sealed_once(client: httpx.Client, folder_store: Store) -> None:
    record_something(folder_store, seal=False)

    first = client.post("/runs/r/seal")
    again = client.post("/runs/r/seal")
    declared = client.post("/runs", json={"id": "r", "steps": 2, "samples": 2})

    assert first.json()["status"] == "sealed"
    assert again.json()["sealed"] == first.json()["sealed"]
    is_problem(declared, 409, "run-sealed")
    is_problem(client.post("/runs/none/seal"), 404, "run-not-found")


def test_a_run_that_is_recorded_is_neither_sealed_nor_removed_by_accident(
    client: httpx.Client, folder_store: Store
) -> None:
    with (
        pytest.raises(Exception, match="sealed"),
        TraceRecorder(folder_store, "r", steps=2, samples=2) as rec,
    ):
        rec.record(0, x=np.zeros((2, 3)))
        rec.flush()
        is_problem(client.post("/runs/r/seal"), 409, "writer-active")
        is_problem(client.delete("/runs/r?confirm=r"), 409, "writer-active")
        forced = client.post("/runs/r/seal?force=true")
        rec.record(1, x=np.zeros((2, 3)))
        rec.flush()

    assert forced.json()["status"] == "sealed"
    records = RunRecords(folder_store, "r")
    assert records.ledger.fields["trace/x"].steps == (0,)


def test_tags_and_a_note_change_at_any_time(client: httpx.Client, folder_store: Store) -> None:
    record_something(folder_store)
    before = folder_store.read(manifest_key("r"))

    changed = client.patch("/runs/r", json={"tags": ["b", "c"], "note": "look at step 1"})
    noted = client.patch("/runs/r", json={"note": None})

    assert changed.json()["tags"] == ["b", "c"]
    assert noted.json()["tags"] == ["b", "c"]
    assert noted.json()["note"] == ""
    assert client.get("/runs/r").json()["tags"] == ["b", "c"]
    until(lambda: [run["id"] for run in client.get("/runs?tag=c").json()["runs"]] == ["r"])
    assert client.get("/runs?tag=a").json()["runs"] == []
    with ArchiveClient(str(client.base_url)) as archive:
        assert archive.run("r").tags == ("b", "c")
    assert client.patch("/runs/r", json={"tags": None}).json()["tags"] == ["a"]
    assert folder_store.read(manifest_key("r")) == before


def test_every_replica_sees_the_tags_of_a_sealed_run(folder_store: Store, serve: Serve) -> None:
    """A sealed run is read once by each; what is said of it later is found by one listing."""
    record_something(folder_store)
    first, second = serve(folder_store, allow_push=True), serve(folder_store)
    assert httpx.get(f"{second}/runs?tag=a").json()["runs"]

    httpx.patch(f"{first}/runs/r", json={"tags": ["late"]}).raise_for_status()

    until(lambda: bool(httpx.get(f"{second}/runs?tag=late").json()["runs"]))
    assert not httpx.get(f"{second}/runs?tag=a").json()["runs"]


def test_who_read_an_older_version_is_told(client: httpx.Client, folder_store: Store) -> None:
    record_something(folder_store)
    tag = client.get("/runs/r/annotations").headers["etag"]

    first = client.patch("/runs/r", json={"note": "one"}, headers={"If-Match": tag})
    late = client.patch("/runs/r", json={"note": "two"}, headers={"If-Match": tag})
    last = client.patch(
        "/runs/r", json={"note": "three"}, headers={"If-Match": first.headers["etag"]}
    )

    assert first.status_code == last.status_code == 200
    is_problem(late, 409, "run-differs")
    assert client.get("/runs/r").json()["note"] == "three"


@pytest.mark.parametrize(
    "body",
    [{}, {"tags": "a"}, {"tags": [""]}, {"tags": [1]}, {"note": 3}, {"id": "x"}, {"metadata": {}}],
)
def test_annotations_that_make_no_sense_are_refused(
    client: httpx.Client, folder_store: Store, body: dict[str, Any]
) -> None:
    record_something(folder_store)

    is_problem(client.patch("/runs/r", json=body), 422, "invalid-parameter")
    is_problem(client.patch("/runs/none", json={"note": "x"}), 404, "run-not-found")


def test_a_run_is_removed_by_who_means_it(client: httpx.Client, folder_store: Store) -> None:
    record_something(folder_store)
    record_something(folder_store, "other")
    client.patch("/runs/r", json={"note": "x"}).raise_for_status()
    uid = client.get("/runs/r").json()["uid"]

    is_problem(client.delete("/runs/r"), 422, "invalid-parameter")
    is_problem(client.delete("/runs/r?confirm=other"), 422, "invalid-parameter")
    is_problem(client.delete("/runs/r", headers={"If-Match": '"else"'}), 409, "run-differs")
    removed = client.delete("/runs/r", headers={"If-Match": f'"{uid}"'})

    assert removed.json()["run"] == "r"
    is_problem(client.get("/runs/r"), 404, "run-not-found")
    is_problem(client.delete("/runs/r?confirm=r"), 404, "run-not-found")
    until(lambda: [run["id"] for run in client.get("/runs").json()["runs"]] == ["other"])
    assert list(folder_store.objects("runs/r")) == []
    assert list(folder_store.objects("annotations")) == []


def test_a_later_run_of_the_same_id_does_not_inherit_a_note(
    client: httpx.Client, folder_store: Store
) -> None:
    record_something(folder_store)
    client.patch("/runs/r", json={"note": "of the first"}).raise_for_status()
    kept = folder_store.read(annotations_key("r"))
    client.delete("/runs/r?confirm=r").raise_for_status()
    folder_store.write(annotations_key("r"), kept)  # as if the removal had ended before it
    record_something(folder_store)

    assert client.get("/runs/r").json()["note"] == ""


def test_a_damaged_run_is_removed_only_by_force(client: httpx.Client, folder_store: Store) -> None:
    record_something(folder_store, seal=False)
    folder_store.write("runs/r/commits/main/000000/00000000.json", b"{}")

    problem = is_problem(client.delete("/runs/r?confirm=r"), 500, "record-damaged")
    forced = client.delete("/runs/r?confirm=r&force=true")

    assert "force=true" in problem["detail"]
    assert forced.status_code == 200
    assert list(folder_store.objects("runs")) == []


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/runs"), ("POST", "/runs/r/seal"), ("DELETE", "/runs/r")]
)
def test_an_unknown_parameter_is_refused(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, f"{path}?nonsense=1", json={"id": "r"})

    is_problem(answer, 422, "unknown-parameter")
