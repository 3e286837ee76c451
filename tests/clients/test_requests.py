"""What goes over the wire, and what is made of the answers: both clients, one server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    InvalidInputError,
    NotFoundError,
)
from archive_schema.models import RunStatus
from archive_schema.wire import Changes, FieldDocument, LayerDocument, RunPage, RunSummary
from clients import ArchiveClient, AsyncArchiveClient
from tests.clients.scripted import (
    Answer,
    Asked,
    document,
    run_document,
    scripted,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = np.arange(12, dtype="<i2").reshape(3, 4)
DOCUMENT = run_document()


def summary(run_id: str) -> RunSummary:
    return RunSummary.model_validate({**DOCUMENT.model_dump(), "id": run_id})


def paths(asked: list[Asked]) -> list[str]:
    return [f"{one.method} {one.path}" for one in asked]


def test_exactly_the_slice_is_asked_for() -> None:
    row = values(NUMBERS[1, ::2].tobytes(), (2,), ("sample",), "int16")
    with scripted(document(DOCUMENT), row) as script, ArchiveClient(script.url) as client:
        found = client.run("r")["x"][1, ::2]

    assert np.array_equal(found, NUMBERS[1, ::2])
    assert found.dtype == np.int16
    assert found.flags.writeable
    assert paths(script.asked) == [
        "GET /runs/r",
        "GET /runs/r/fields/x?step=1&sample=0:4:2&format=raw",
    ]


def test_nothing_is_asked_for_what_is_empty_or_only_described() -> None:
    with scripted(document(DOCUMENT)) as script, ArchiveClient(script.url) as client:
        array = client.run("r")["x"]

        assert array[:, 4:].shape == (3, 0)
        assert array.select(sample=[]).read().dtype == np.int16
        assert array.select(step=2).nbytes == 8
        assert array.dims == ("step", "sample")
        assert repr(array) == "<Array x (step: 3, sample: 4) int16>"

    assert len(script.asked) == 1


def test_a_large_read_is_split_along_the_first_axis_that_it_keeps() -> None:
    def part(asked: Asked) -> Answer:
        start, stop = (int(end) for end in asked.path.split("step=")[1].split("&")[0].split(":"))
        body = NUMBERS[start:stop].tobytes()
        return values(body, (stop - start, 4), ("step", "sample"), "int16")

    with scripted(document(DOCUMENT), part) as script:
        with ArchiveClient(script.url, max_request_bytes=16) as client:
            found = client.run("r")["x"].read()

    assert np.array_equal(found, NUMBERS)
    assert [path.split("?")[1] for path in paths(script.asked)[1:]] == [
        "step=0:2&sample=0:4&format=raw",
        "step=2:3&sample=0:4&format=raw",
    ]


@pytest.mark.parametrize(
    "other",
    [
        values(NUMBERS.tobytes()[:8], (1, 4), ("step", "sample"), "int16"),
        values(NUMBERS.tobytes(), (3, 4), ("sample", "step"), "int16"),
        values(NUMBERS.tobytes() * 2, (3, 4), ("step", "sample"), "int32"),
    ],
    ids=["shape", "dims", "dtype"],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(other: Answer) -> None:
    """The run was removed and recorded anew under the same id."""
    with scripted(document(DOCUMENT), other) as script, ArchiveClient(script.url) as client:
        with pytest.raises(ConflictError, match=r"refresh\(\) the run") as caught:
            client.run("r")["x"].read()

    assert caught.value.kind is ErrorKind.RUN_DIFFERS


def test_an_answer_without_a_description_is_refused() -> None:
    with scripted(document(DOCUMENT), Answer(NUMBERS.tobytes())) as script:
        with ArchiveClient(script.url) as client:
            with pytest.raises(FormatError, match="expected headers that describe an array"):
                client.run("r")["x"].read()


def test_names_that_are_not_there_are_told_from_those_that_are() -> None:
    field = DOCUMENT.fields[0]
    layer = LayerDocument(
        name="blocks.11", fields=(field.model_copy(update={"layer": "blocks.11"}),)
    )
    with scripted(document(run_document(layers=(layer,)))) as script:
        with ArchiveClient(script.url) as client:
            run = client.run("r")

            with pytest.raises(NotFoundError, match="no field 'y'; there is: x") as caught:
                run["y"]
            assert caught.value.kind is ErrorKind.FIELD_NOT_FOUND
            with pytest.raises(NotFoundError, match=r"there is: blocks\.11") as caught:
                run.layer("blocks.12")
            assert caught.value.kind is ErrorKind.LAYER_NOT_FOUND
            with pytest.raises(NotFoundError, match=r"no field of layer 'blocks\.11', 'y'"):
                run.layer("blocks.11")["y"]
            assert "y" not in run.fields
            assert run.fields.get("y") is None
            assert list(run) == list(run.fields) == ["x"]
            assert not run.inputs
            assert run.layers["blocks.11"]["x"].layer == "blocks.11"


def test_names_are_quoted_where_they_are_parts_of_a_path() -> None:
    field = DOCUMENT.fields[0].model_copy(update={"layer": "a/b c", "place": "layers"})
    layer = LayerDocument(name="a/b c", fields=(field,))
    one = values(NUMBERS[0].tobytes(), (4,), ("sample",), "int16")
    with scripted(document(run_document(layers=(layer,))), one) as script:
        with ArchiveClient(script.url) as client:
            client.run("r").layer("a/b c")["x"][0]
            with pytest.raises(InvalidInputError, match="expected a run id"):
                client.run("../../secret")

    assert script.asked[1].path.startswith("/runs/r/layers/a%2Fb%20c/x?step=0&")


def test_token_headers_and_a_base_url_with_a_path_are_used() -> None:
    with scripted(document(DOCUMENT)) as script:
        url = f"{script.url}/archive/"
        with ArchiveClient(url, token="secret", headers={"X-Lab": "7"}) as client:
            client.run("r")

    (asked,) = script.asked
    assert asked.path == "/archive/runs/r"
    assert asked.headers["Authorization"] == "Bearer secret"
    assert asked.headers["X-Lab"] == "7"
    assert asked.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://host/", "http://", "http://h/?a=1"])
def test_a_base_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInputError, match="expected a base URL such as http"):
        ArchiveClient(url)


def test_pages_are_fetched_as_runs_are_taken() -> None:
    pages = [
        document(RunPage(runs=(summary("a"), summary("b")), next="2")),
        document(RunPage(runs=(summary("c"),), next=None)),
    ]
    with scripted(*pages) as script, ArchiveClient(script.url) as client:
        runs = client.runs(system="d3-dna", tag="good", dataset="promoters", dry=True)
        assert not script.asked
        assert next(runs).id == "a"
        assert len(script.asked) == 1
        assert [run.id for run in runs] == ["b", "c"]

    filters = "system=d3-dna&tag=good&meta.dataset=promoters&meta.dry=true&limit=200"
    assert paths(script.asked) == [f"GET /runs?{filters}", f"GET /runs?{filters}&cursor=2"]


def test_no_more_runs_are_fetched_than_are_wanted() -> None:
    page = document(RunPage(runs=(summary("a"), summary("b")), next="more"))
    with scripted(page) as script, ArchiveClient(script.url) as client:
        assert [run.id for run in client.runs(limit=3)] == ["a", "b", "a"]
        assert list(client.runs(limit=0)) == []

    assert [asked.path for asked in script.asked] == ["/runs?limit=3", "/runs?limit=1&cursor=more"]


def test_following_asks_what_is_new_until_the_run_is_over() -> None:
    def changes(version: str, status: RunStatus, *steps: tuple[int, int, int]) -> Answer:
        said = Changes(version=version, status=status, steps=steps, samples=4, fields=())
        return replace(document(said), headers={"ETag": f'"{version}"'})

    live, over = RunStatus.RECORDING, RunStatus.SEALED
    answers = [
        document(run_document(status=live)),
        changes("v1", live, (0, 2, 1)),
        document(run_document(status=live, step_ranges=((0, 2, 1),))),
        changes("v1", live),
        Answer(status=304, headers={"Content-Length": "17"}),
        changes("v2", live, (1, 3, 1)),
        document(run_document(status=live)),
        changes("v3", over),
        document(run_document(status=over)),
    ]
    with scripted(*answers) as script, ArchiveClient(script.url) as client:
        run = client.run("r")
        seen = [(step, run.steps) for step in run.follow(poll_s=0)]

    assert seen == [(0, (0, 1)), (1, (0, 1)), (1, (0, 1, 2)), (2, (0, 1, 2))]
    assert run.status is over
    polls = [asked for asked in script.asked if "changes" in asked.path]
    assert [asked.path.partition("?")[2] for asked in polls] == [
        "", "since=v1", "since=v1", "since=v1", "since=v2",
    ]  # fmt: skip
    assert [asked.headers.get("If-None-Match") for asked in polls[:3]] == [None, '"v1"', '"v1"']


def both(url: str, ask: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Return what *ask* gets of the blocking client, and awaits of the other."""

    async def awaited() -> Any:
        async with AsyncArchiveClient(url) as client:
            return await ask(await client.run("r"))

    with ArchiveClient(url) as client:
        return ask(client.run("r")), asyncio.run(awaited())


@pytest.mark.parametrize(
    ("answer", "ask"),
    [
        (
            values(NUMBERS[1, 1:3].tobytes(), (2,), ("sample",), "int16"),
            lambda run: run["x"][1, 1:3],
        ),
        (
            values(np.float64(5.5).tobytes(), (), (), "float64"),
            lambda run: run["x"].mean(),
        ),
        (
            values(np.arange(3.0).tobytes(), (3,), ("step",), "float64"),
            lambda run: run["x"].max(over="sample"),
        ),
    ],
    ids=["slice", "mean", "max"],
)
def test_both_clients_ask_the_same_and_give_the_same(
    answer: Answer, ask: Callable[[Any], Any]
) -> None:
    described = document(DOCUMENT)
    with scripted(described, answer, described, answer) as script:
        blocking, awaited = both(script.url, ask)

    assert np.array_equal(blocking, awaited)
    assert blocking.dtype == awaited.dtype
    assert paths(script.asked[:2]) == paths(script.asked[2:])


def test_an_array_of_the_asynchronous_client_is_not_read_by_accident() -> None:
    async def misuse() -> None:
        async with AsyncArchiveClient(script.url) as client:
            array = (await client.run("r"))["x"]
            with pytest.raises(TypeError, match=r"await its read\(\)"):
                np.asarray(array)
            with pytest.raises(TypeError, match="not iterable"):
                list(array)  # type: ignore[call-overload]

    with scripted(document(DOCUMENT)) as script:
        asyncio.run(misuse())


def test_numpy_may_ask_for_its_own_dtype_and_not_for_no_copy() -> None:
    answer = values(NUMBERS.tobytes(), (3, 4), ("step", "sample"), "int16")
    with scripted(document(DOCUMENT), answer) as script, ArchiveClient(script.url) as client:
        array = client.run("r")["x"]

        assert np.asarray(array, dtype=np.float32).dtype == np.float32
        with pytest.raises(ValueError, match="without a copy"):
            np.asarray(array, copy=False)


def test_going_through_an_array_goes_through_its_steps() -> None:
    """Also where they are sparse: entry by entry, not by counting up."""
    sparse = FieldDocument.model_validate(
        {**DOCUMENT.fields[0].model_dump(), "shape": (2, 4), "steps": ((0, 1, 1), (90, 91, 1))}
    )
    rows = [values(NUMBERS[n].tobytes(), (4,), ("sample",), "int16") for n in (0, 1)]
    with scripted(document(run_document(fields=(sparse,))), *rows) as script:
        with ArchiveClient(script.url) as client:
            found = list(client.run("r")["x"])

    assert np.array_equal(found, NUMBERS[:2])
    assert [asked.path.split("&")[0] for asked in script.asked[1:]] == [
        "/runs/r/fields/x?step=0",
        "/runs/r/fields/x?step=90",
    ]
