"""A run recorded through the client: by a sampler without the store's credentials."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
)
from archive_schema.models import RunStatus
from clients import ArchiveClient, AsyncArchiveClient, RetryPolicy
from tests.clients.scripted import BUSY, Answer, document, problem, run_document, scripted
from tests.server_fixture import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from clients import Run
    from tests.server_fixture import Serve

__all__ = ["serve"]

SCORES = np.random.default_rng(0).normal(size=(3, 8, 5, 4)).astype("f2")


@pytest.fixture
def url(folder_store: Store, serve: Serve) -> str:
    return serve(folder_store, allow_push=True)


@pytest.fixture
def client(url: str) -> Iterator[ArchiveClient]:
    with ArchiveClient(url) as client:
        yield client


@pytest.fixture
def run(client: ArchiveClient) -> Run:
    return client.create_run("r", steps=3, samples=8, metadata={"seed": 1}, tags=["new"])


def test_a_run_is_recorded_and_read_back(client: ArchiveClient, run: Run) -> None:
    """Batch after batch, as samplers go; and what is sent again is nothing."""
    run.declare("score", "float16", (4, 5, 4), dims=("sample", "position", "channel"))
    run.push_inputs(slice(0, 8), start=np.arange(8))
    run.push_samples(label=[f"cell-{n}" for n in range(8)], seed=range(8))
    for start in (0, 4):
        part = slice(start, start + 4)
        for step in range(3):
            new = run.push(
                step,
                part,
                score=SCORES[step, part],
                sums=SCORES[step, part].sum((1, 2)),
                timestep=1 - step / 3,
                phase="warm",
                loss=np.float32("nan"),
            )
            again = run.push(step, part, score=SCORES[step, part])
            run.push(step, part, layer="blocks.11", output=SCORES[step, part, 0])
            assert (new, again) == (True, False)
    run.push_outputs(final=SCORES[-1].argmax(-1))

    sealed = run.seal().tag("paper", "good")

    assert sealed is run
    assert (run.status, run.tags) == (RunStatus.SEALED, ("paper", "good"))
    found = client.run("r")
    assert found["score"].dims == ("step", "sample", "position", "channel")
    np.testing.assert_array_equal(found["score"].read(), SCORES)
    np.testing.assert_array_equal(found.layer("blocks.11")["output"].read(), SCORES[:, :, 0])
    np.testing.assert_array_equal(found.outputs["final"].read(), SCORES[-1].argmax(-1))
    steps = found.step_coordinates()
    np.testing.assert_array_equal(steps["timestep"], 1 - np.arange(3) / 3)
    assert np.isnan(steps["loss"]).all()
    assert found.sample_coordinates()["label"].tolist()[-1] == "cell-7"


def test_an_equal_run_is_resumed_and_another_is_not(client: ArchiveClient, run: Run) -> None:
    again = client.create_run("r", steps=3, samples=8, metadata={"seed": 1})

    with pytest.raises(ConflictError) as raised:
        client.create_run("r", steps=4, samples=8)

    assert again.document.uid == run.document.uid
    assert raised.value.kind is ErrorKind.RUN_DIFFERS


def test_other_values_are_refused_and_the_first_stay(run: Run) -> None:
    run.push(0, slice(0, 8), x=np.arange(8))

    with pytest.raises(ConflictError) as raised:
        run.push(0, slice(0, 8), x=np.arange(8) + 1)

    assert raised.value.kind is ErrorKind.TILE_DIFFERS
    np.testing.assert_array_equal(run.refresh()["x"][0], np.arange(8))


def test_nothing_is_added_to_a_sealed_run(run: Run) -> None:
    run.seal()

    with pytest.raises(ConflictError) as raised:
        run.push(0, slice(0, 8), x=np.arange(8))

    assert raised.value.kind is ErrorKind.RUN_SEALED


def test_values_of_any_kind_are_pushed(run: Run) -> None:
    """What NumPy's files cannot hold, what has no axes, and a name that savez has for itself."""
    odd = np.array([1.5, -2.0] * 4).astype(ml_dtypes.bfloat16)
    run.push(0, range(8), file=np.arange(8), odd=odd, level=np.array(0.5), text=["a", "bc"] * 4)
    run.push(0, slice(8), layer="a/b.c", flag=np.array([True, False] * 4))

    found = run.refresh()

    np.testing.assert_array_equal(found["file"][0], np.arange(8))
    np.testing.assert_array_equal(found["odd"][0], odd.astype("f4"))
    assert found["level"][0] == 0.5
    assert found["text"][0].tolist() == ["a", "bc"] * 4
    assert found.layer("a/b.c")["flag"][0].tolist() == [True, False] * 4


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"x": object()}, ErrorKind.DTYPE_MISMATCH),
        ({"x": [1, None]}, ErrorKind.DTYPE_MISMATCH),
        ({"x y": np.arange(8)}, ErrorKind.INVALID_NAME),
        ({"x": np.arange(8), "samples": slice(0, 8, 2)}, ErrorKind.INVALID_PARAMETER),
        ({"x": np.arange(8), "samples": slice(0, None)}, ErrorKind.INVALID_PARAMETER),
        ({"x": np.arange(7), "samples": slice(0, 8)}, ErrorKind.SHAPE_MISMATCH),
        ({"x": np.ones(8, complex), "samples": slice(0, 8)}, ErrorKind.DTYPE_MISMATCH),
    ],
)
def test_what_cannot_be_recorded_is_the_callers_error(
    run: Run, arguments: dict[str, Any], kind: ErrorKind
) -> None:
    with pytest.raises(InvalidInputError) as raised:
        run.push(0, **arguments)

    assert raised.value.kind is kind
    assert not run.refresh().fields


def test_a_declaration_that_means_nothing_is_the_callers_error(
    client: ArchiveClient, run: Run
) -> None:
    with pytest.raises(InvalidInputError, match="colour"):
        run.declare("x", "float32", (8,), colour="red")
    with pytest.raises(InvalidInputError, match="samples"):
        client.create_run("other", samples="many")  # type: ignore[arg-type]


def test_a_run_is_removed(client: ArchiveClient, run: Run) -> None:
    run.push(0, slice(0, 8), x=np.arange(8))

    with pytest.raises(ConflictError) as raised:
        client.remove("r")
    client.remove("r", force=True)

    assert raised.value.kind is ErrorKind.WRITER_ACTIVE
    with pytest.raises(NotFoundError):
        client.run("r")


def test_a_lost_answer_and_a_busy_server_are_tried_again() -> None:
    """The same request, to the byte, after the time that the server asks for."""
    recorded = Answer(status=201)
    with scripted(document(run_document()), Answer(b"lost", cut=2), BUSY, recorded) as script:
        with ArchiveClient(script.url, retry=RetryPolicy(first_pause_s=0)) as client:
            new = client.run("r").push(3, slice(0, 4), x=np.arange(4))

    assert new
    bodies = {asked.body for asked in script.asked[1:]}
    assert [asked.method for asked in script.asked] == ["GET", "PUT", "PUT", "PUT"]
    assert len(bodies) == 1
    assert script.asked[1].path == "/runs/r/tiles/steps/3/x?samples=0:4"


def test_a_server_that_stays_busy_is_an_error_that_says_so() -> None:
    full = problem(503, ErrorKind.STORE_BUSY, "no room", **{"Retry-After": "0"})
    with scripted(document(run_document()), full) as script:
        with ArchiveClient(script.url, retry=RetryPolicy(attempts=3)) as client:
            run = client.run("r")
            with pytest.raises(StorageError) as raised:
                run.push(3, slice(0, 4), x=np.arange(4))

    assert raised.value.kind is ErrorKind.STORE_BUSY
    assert len(script.asked) == 4


def test_the_same_on_an_event_loop(url: str) -> None:
    async def record() -> np.ndarray[Any, Any]:
        async with AsyncArchiveClient(url) as client:
            run = await client.create_run("a", steps=3, samples=8)
            await run.declare("score", "float16", (4, 5, 4))
            await run.push_inputs(start=np.arange(8))
            await run.push_samples(seed=range(8))
            await asyncio.gather(
                *(run.push(step, slice(0, 8), score=SCORES[step], t=step) for step in range(3))
            )
            await run.push_outputs(final=np.arange(8))
            await (await run.seal()).tag("paper")
            await run.note("as in the paper")
            assert (run.status, run.tags) == (RunStatus.SEALED, ("paper",))
            await run.refresh()
            found = await run["score"].read()
            await client.remove("a")
            return found

    np.testing.assert_array_equal(asyncio.run(record()), SCORES)
