"""The main job, as a first user does it: a sampler records, a server serves, files come back.

Every program here is a process of its own, started as the README says.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import h5py
import httpx
import numpy as np
import pytest
import xarray as xr

from clients import ArchiveClient
from tests.ports import unused_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

ROOT: Final = Path(__file__).parents[2]
SAMPLES, BATCH, STEPS, LENGTH = 60, 20, 72, 200
TIMEOUT_S: Final = 110.0


@contextmanager
def sampler(store: Path, run: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the example that records a real sampler."""
    command = [
        sys.executable, str(ROOT / "examples/record_d3_dna.py"), str(store), "--run", run,
        "--samples", str(SAMPLES), "--batch", str(BATCH), "--steps", str(STEPS), "--training", "20",
    ]  # fmt: skip
    # One thread: the numbers of a run depend on how many there are.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def server(store: Path) -> Iterator[str]:
    """Run `trace-archive serve` and return its URL."""
    port = unused_port()
    program = str(Path(sys.executable).parent / "trace-archive")
    command = [program, "serve", "--store", str(store), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: _answers(url), "the server to answer")
            yield url
        finally:
            process.terminate()


def wait_for(ready: Callable[[], Any], what: str) -> Any:
    """Return the first true answer of *ready*."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"waited {TIMEOUT_S:g} s for {what}"
        time.sleep(0.02)
    return answer


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


class Recorded(NamedTuple):
    """A run that nothing disturbed, and what was asked while and after it was recorded."""

    store: Path
    status: str
    first: httpx.Response
    again: httpx.Response
    document: dict[str, Any]
    h5: bytes
    npz: bytes
    sample: NDArray[np.float16]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record a run, and ask for it by plain HTTP and with the client."""
    store = tmp_path_factory.mktemp("main-job") / "archive"
    with server(store) as url, sampler(store, "live") as process:

        def live_slice() -> httpx.Response | None:
            answer = httpx.get(f"{url}/runs/live/steps/3/score_matrix?samples=0:8&format=raw")
            return answer if answer.status_code == 200 else None

        first = wait_for(live_slice, "step 3 to be readable")
        status = httpx.get(f"{url}/runs/live").json()["status"]
        assert process.wait(TIMEOUT_S) == 0
        with ArchiveClient(url) as client:
            return Recorded(
                store=store,
                status=status,
                first=first,
                again=wait_for(live_slice, "step 3 to be there"),
                document=httpx.get(f"{url}/runs/live").json(),
                h5=httpx.get(f"{url}/runs/live.h5", timeout=60).content,
                npz=httpx.get(f"{url}/runs/live.npz", timeout=60).content,
                sample=np.asarray(client.run("live")["score_matrix"][:, 5]),
            )


@pytest.mark.timeout(300)
def test_a_run_is_read_while_it_is_recorded_and_downloaded_when_it_is_done(
    recorded: Recorded,
) -> None:
    """The user's own example, by plain HTTP, then the documented loading code of D3-DNA."""
    _, status, first, again, document, h5, npz, sample = recorded

    assert status == "recording"
    assert first.headers["X-Trace-Shape"] == f"8,{LENGTH},4"
    assert first.headers["X-Trace-Dtype"] == "float16"
    assert again.content == first.content
    assert document["status"] == "sealed"
    assert document["samples"] == SAMPLES
    with h5py.File(io.BytesIO(h5)) as file:
        assert file["metadata"].attrs["dataset"] == "regulatory-dna"
        assert file["metadata"].attrs["num_samples"] == SAMPLES
        for index, name in enumerate(sorted(file["steps"])):
            group = file["steps"][name]
            assert group.attrs["step"] == index
            assert group["sequence"].shape == (SAMPLES, LENGTH)
            assert group["score_matrix"].shape == (SAMPLES, LENGTH, 4)
            assert group["prob_matrix"].dtype == np.float16
            assert group.attrs["noise_level"] > 0
        assert index == STEPS - 1
        scores = np.stack([file[f"steps/step_{n:04d}/score_matrix"][5] for n in range(STEPS)])
        assert file["steps/step_0003/score_matrix"][0:8].tobytes() == first.content
    np.testing.assert_array_equal(sample, scores)
    with np.load(io.BytesIO(npz)) as arrays:
        np.testing.assert_array_equal(arrays["score_matrices"][:, 5], scores)
        assert arrays["sequences"].dtype == np.int64


@pytest.mark.timeout(300)
def test_a_killed_sampler_goes_on_where_it_stood(recorded: Recorded) -> None:
    """Killed without warning and started again, it ends with what it would have had."""
    store = recorded.store
    with sampler(store, "killed") as process:
        commits = store / "runs/killed/commits/main/000000"
        wait_for(lambda: len(list(commits.glob("0*.json"))) >= 2, "two commits")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (store / "runs/killed/seal.json").exists()

    with sampler(store, "killed") as process:
        assert process.wait(TIMEOUT_S) == 0

    runs = store / "runs"
    whole = xr.open_datatree(runs / "live/trace.zarr", engine="zarr", chunks=None)
    killed = xr.open_datatree(runs / "killed/trace.zarr", engine="zarr", chunks=None)
    assert whole.groups == killed.groups
    for group in whole.groups:
        xr.testing.assert_equal(whole[group].to_dataset(), killed[group].to_dataset())
    trace = whole["trace"].to_dataset()
    assert bool(trace["recorded"].all())
    chosen = trace["score_matrix"].sel(step=17, sample=slice(3, 5))
    assert chosen.dims == ("sample", "position", "channel")
    assert chosen.shape == (3, LENGTH, 4)
