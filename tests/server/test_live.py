"""A sampler records while readers read, on every kind of store."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import zarr

from recorder import TraceRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archive_schema.store import Store
    from tests.server_fixture import Serve

STEPS, SAMPLES, BATCH = 4, 6, 3
RNG = np.random.default_rng(5)
SCORE = RNG.normal(size=(STEPS, SAMPLES, 5, 4)).astype(np.float16)
SEQUENCE = RNG.integers(0, 4, (STEPS, SAMPLES, 5))
LABELS = [f"class {number}" for number in range(SAMPLES)]


def recording(rec: TraceRecorder) -> Iterator[tuple[int, int]]:
    """Record batch by batch, and yield each step and batch once it is acknowledged."""
    for start in range(0, SAMPLES, BATCH):
        batch = slice(start, start + BATCH)
        rec.sample_coordinates(samples=batch, label=LABELS[batch])
        for step in range(STEPS):
            rec.record(
                step,
                samples=batch,
                timestep=1 - step / STEPS,
                noise_level=float("nan") if step == 0 else 0.5,
                sequence=SEQUENCE[step, batch],
                score_matrix=SCORE[step, batch],
            )
            rec.flush()
            yield step, start


def until(ready: Callable[[], bool]) -> None:
    """Wait: over a network, records are looked at again only after a moment (`refresh_s`)."""
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def soon(client: httpx.Client, path: str) -> httpx.Response:
    """Return the answer, asking again while what is asked for is not there."""
    until(lambda: client.head(path).status_code != httpx.codes.NOT_FOUND)
    return client.get(path)


def test_what_is_acknowledged_can_be_read_at_once(store: Store, serve: Serve) -> None:
    """Batch-major: all steps of the first samples are there before the others begin."""
    with httpx.Client(base_url=serve(store), timeout=60) as client:
        with TraceRecorder(store, run="r", system="d3-dna", steps=STEPS, samples=SAMPLES) as rec:
            for step, start in recording(rec):
                path = f"/runs/r/steps/{step}/score_matrix"
                there = soon(client, f"{path}?samples={start}:{start + BATCH}&format=raw")
                assert there.content == SCORE[step, start : start + BATCH].tobytes()
                if start == 0:
                    whole = client.get(path)
                    assert whole.status_code == 404
                    assert whole.json()["kind"] == "not-recorded"
                    masked = client.get(f"{path}?missing=mask&format=npz")
                    mask = np.load(io.BytesIO(masked.content))["recorded"]
                    assert mask.tolist() == [True] * BATCH + [False] * (SAMPLES - BATCH)
            assert client.get("/runs/r").json()["status"] == "recording"

        until(lambda: client.get("/runs/r").json()["status"] == "sealed")
        document = client.get("/runs/r").json()
        values = client.get("/runs/r/fields/score_matrix?format=npy")

    assert document["steps"] == STEPS
    assert all(field["complete"] for field in document["fields"])
    np.testing.assert_array_equal(np.load(io.BytesIO(values.content)), SCORE)


def test_a_live_run_is_plain_zarr_and_a_file(folder_store: Store, serve: Serve) -> None:
    url = serve(folder_store)
    with TraceRecorder(folder_store, run="r", system="d3-dna", steps=STEPS, samples=SAMPLES) as rec:
        for step, start in recording(rec):
            if (step, start) != (1, BATCH):
                continue
            group = zarr.open_group(f"{url}/runs/r/zarr", mode="r")["trace"]
            assert isinstance(group, zarr.Group)
            score = group["score_matrix"]
            assert isinstance(score, zarr.Array)
            np.testing.assert_array_equal(score[:, :BATCH], SCORE[:, :BATCH])
            np.testing.assert_array_equal(score[1], SCORE[1])
            part = httpx.get(f"{url}/runs/r.npz?samples=0:{BATCH}", timeout=60)
            assert part.status_code == 200
            assert int(part.headers["content-length"]) == len(part.content)
            assert "no-cache" in part.headers["cache-control"]


def test_tables_of_steps_and_samples_come_in_every_format(
    folder_store: Store, serve: Serve
) -> None:
    with TraceRecorder(folder_store, run="r", system="d3-dna", steps=STEPS, samples=SAMPLES) as rec:
        for _ in recording(rec):
            pass
    with httpx.Client(base_url=serve(folder_store)) as client:
        steps = {kind: client.get(f"/runs/r/steps?format={kind}") for kind in FORMATS}
        cut = client.get("/runs/r/steps?steps=::2").json()
        one = client.get("/runs/r/steps/-1").json()
        samples = client.get("/runs/r/samples?samples=2:4").json()

    assert steps["json"].json()["coordinates"]["timestep"] == [1.0, 0.75, 0.5, 0.25]
    assert steps["json"].json()["coordinates"]["noise_level"][0] is None
    for kind in ("npz", "csv", "arrow"):
        table = columns(kind, steps[kind].content)
        assert table["step"] == list(range(STEPS))
        assert table["timestep"] == [1.0, 0.75, 0.5, 0.25]
    assert cut["index"] == [0, 2]
    assert one["step"] == STEPS - 1
    assert one["coordinates"]["timestep"] == 0.25
    assert {field["name"] for field in one["fields"]} == {"sequence", "score_matrix"}
    assert samples == {"axis": "sample", "index": [2, 3], "coordinates": {"label": LABELS[2:4]}}


FORMATS = ("json", "npz", "csv", "arrow")


def columns(kind: str, data: bytes) -> dict[str, list[Any]]:
    if kind == "npz":
        return {name: array.tolist() for name, array in np.load(io.BytesIO(data)).items()}
    table = (
        pa_csv.read_csv(io.BytesIO(data)) if kind == "csv" else pa.ipc.open_stream(data).read_all()
    )
    found: dict[str, list[Any]] = table.to_pydict()
    return found


@pytest.mark.parametrize("kind", ["h5", "npz", "json", "fasta", "csv", "txt"])
def test_a_run_of_a_system_comes_as_its_files(folder_store: Store, serve: Serve, kind: str) -> None:
    with TraceRecorder(folder_store, run="r", system="d3-dna", steps=STEPS, samples=SAMPLES) as rec:
        for _ in recording(rec):
            pass
        rec.outputs(final_sequence=SEQUENCE[-1])

    with httpx.Client(base_url=serve(folder_store)) as client:
        whole = client.get(f"/runs/r.{kind}")
        named = client.get(f"/runs/r/export?format={kind}")

    assert whole.status_code == 200, whole.text
    assert int(whole.headers["content-length"]) == len(whole.content) > 0
    assert named.content == whole.content
    assert "immutable" in whole.headers["cache-control"]
