"""The list of runs: filters, pages that stay put, and a table that follows the store."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from archive_schema.models import RunManifest, RunStatus
from archive_schema.records import create_run
from archive_schema.store import open_store
from server.catalogue import Catalogue, RunFilter
from server.catalogue.filter import write_cursor
from server.query import Archive
from tests.query.builder import NOW, Builder, spec_of
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from archive_schema.store import Store
    from tests.server_fixture import Serve


def declare(store: Store, number: int, **values: Any) -> None:
    create_run(
        store,
        RunManifest(
            id=f"run-{number:03}",
            uid=f"u{number}",
            created=NOW + timedelta(minutes=number),
            **values,
        ),
    )


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["runs"]]


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def declare_ten(store: Store) -> None:
    """Declare ten runs of two systems."""
    for number in range(10):
        declare(
            store,
            number,
            system="d3-dna" if number % 2 else "generic",
            tags=("odd",) if number % 2 else (),
            metadata={"model": {"name": f"Model-{number}", "layers": number}, "lr": 1e-4},
        )


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Serve ten runs that nobody changes."""
    store = open_store(tmp_path_factory.mktemp("ten"))
    declare_ten(store)
    with served(store.url) as url, httpx.Client(base_url=url) as client:
        until(lambda: len(ids(client.get("/runs"))) == 10)
        yield client


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("sort=created&limit=3", [0, 1, 2]),
        ("sort=-id&limit=2", [9, 8]),
        ("system=d3-dna&sort=id", [1, 3, 5, 7, 9]),
        ("system=nothing", []),
        ("status=incomplete&limit=1", [9]),
        ("status=sealed", []),
        ("tag=odd&sort=id&limit=2", [1, 3]),
        ("q=model-3", [3]),
        ("q=RUN-00&limit=1", [9]),
        ("q=%25", []),
        ("meta.model.name=Model-4", [4]),
        ("meta.model.layers=4", [4]),
        ("meta.model.layers=4.0&meta.lr=0.0001", [4]),
        ("meta.lr=0.0002", []),
        ("meta.nothing=4", []),
    ],
)
def test_a_list_is_filtered_and_sorted(
    listed: httpx.Client, query: str, expected: list[int]
) -> None:
    assert ids(listed.get(f"/runs?{query}")) == [f"run-{number:03}" for number in expected]


@pytest.mark.parametrize("sort", ["created", "-created", "id", "-id", "steps", "-bytes", "samples"])
def test_pages_together_are_the_list(listed: httpx.Client, sort: str) -> None:
    whole = ids(listed.get(f"/runs?sort={sort}"))
    found: list[str] = []
    cursor = ""
    while True:
        page = listed.get(f"/runs?sort={sort}&limit=3{cursor}")
        found += ids(page)
        following = page.json()["next"]
        if following is None:
            break
        cursor = f"&cursor={following}"

    assert found == whole
    assert len(found) == 10


def test_a_run_that_comes_between_moves_nothing_to_another_page(
    folder_store: Store, serve: Serve
) -> None:
    declare_ten(folder_store)
    with httpx.Client(base_url=serve(folder_store)) as client:
        until(lambda: len(ids(client.get("/runs"))) == 10)
        first = client.get("/runs?limit=4")
        declare(folder_store, 50)
        until(lambda: "run-050" in ids(client.get("/runs")))

        second = client.get(f"/runs?limit=4&cursor={first.json()['next']}")

    assert ids(second) == ["run-005", "run-004", "run-003", "run-002"]


@pytest.mark.parametrize(
    "query",
    [
        "sort=color",
        "sort=",
        "status=done",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=-1",
        "cursor=x",
        "cursor=W10",
        "cursor=%00",
        f"cursor={write_cursor('-created', 2**63, 'a')}",
        f"cursor={write_cursor('-created', 0.5, 'a')}",
        "tag=a&tag=b",
        "meta.a=1&meta.a=2",
        "nonsense=1",
    ],
)
def test_a_list_that_makes_no_sense_is_refused(listed: httpx.Client, query: str) -> None:
    answer = listed.get(f"/runs?{query}")

    assert answer.status_code == 422
    assert answer.json()["kind"] in ("invalid-parameter", "unknown-parameter")


def test_a_cursor_of_another_order_is_refused(listed: httpx.Client) -> None:
    cursor = listed.get("/runs?sort=id&limit=2").json()["next"]

    assert listed.get(f"/runs?sort=created&cursor={cursor}").status_code == 422


def test_a_removed_run_leaves_the_list(folder_store: Store, serve: Serve, tmp_path: Path) -> None:
    declare_ten(folder_store)
    with httpx.Client(base_url=serve(folder_store)) as client:
        until(lambda: len(ids(client.get("/runs"))) == 10)
        shutil.rmtree(tmp_path / "store/runs/run-004")

        until(lambda: "run-004" not in ids(client.get("/runs")))


def test_a_run_that_grows_and_is_sealed_is_seen_to(folder_store: Store, serve: Serve) -> None:
    values = np.zeros((4, 2))
    run = Builder(folder_store, "run").declare(spec_of("x", values, tile=4))
    with httpx.Client(base_url=serve(folder_store)) as client:
        until(lambda: ids(client.get("/runs")) == ["run"])

        run.put("trace/x", values, 0).put("trace/x", values, 1)
        until(lambda: client.get("/runs").json()["runs"][0]["steps"] == 2)
        run.seal()

        until(lambda: ids(client.get("/runs?status=sealed")) == ["run"])


def test_a_damaged_run_does_not_hide_the_others(folder_store: Store, serve: Serve) -> None:
    declare(folder_store, 1)
    folder_store.write("runs/broken/run.json", b"{")
    folder_store.write("runs/empty/nothing", b"")
    with httpx.Client(base_url=serve(folder_store)) as client:
        until(lambda: ids(client.get("/runs")) == ["run-001"])

        assert client.get("/runs/broken").json()["kind"] == "record-damaged"
        until(lambda: client.get("/runs").json()["pending"] == 0)


def test_a_table_on_disk_does_not_read_sealed_runs_again(
    folder_store: Store, tmp_path: Path
) -> None:
    values = np.zeros((4, 2))
    for name in ("a", "b"):
        run = Builder(folder_store, name, uid=name).declare(spec_of("x", values, tile=4))
        run.put("trace/x", values).seal()
    table = str(tmp_path / "runs.sqlite")
    with Catalogue(Archive(folder_store), table) as catalogue:
        catalogue.catch_up()
        before = catalogue.page(RunFilter())
    for name in ("a", "b"):  # whoever read them again would fail
        folder_store.write(f"runs/{name}/run.json", b"{")

    with Catalogue(Archive(folder_store), table) as catalogue:
        catalogue.catch_up()
        after = catalogue.page(RunFilter())

    assert [run.id for run in after.runs] == ["b", "a"]
    assert after == before
    assert {run.status for run in after.runs} == {RunStatus.SEALED}


def test_a_table_of_another_store_is_not_believed(folder_store: Store, tmp_path: Path) -> None:
    declare(folder_store, 1)
    table = str(tmp_path / "runs.sqlite")
    with Catalogue(Archive(folder_store), table) as catalogue:
        catalogue.catch_up()

    with Catalogue(Archive(open_store(tmp_path / "other")), table) as catalogue:
        catalogue.catch_up()
        assert catalogue.page(RunFilter()).runs == ()


def test_a_large_store_is_listed_while_it_is_still_read(folder_store: Store) -> None:
    """A page never waits for all runs; it tells how many are pending."""
    for number in range(300):
        declare(folder_store, number)
    with Catalogue(Archive(folder_store)) as catalogue:
        seen = [catalogue.page(RunFilter(limit=1000), patience_s=0)]
        while seen[-1].pending or not seen[-1].runs:
            seen.append(catalogue.page(RunFilter(limit=1000), patience_s=0.01))

        assert len(seen[-1].runs) == 300
