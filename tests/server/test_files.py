"""Runs as files over HTTP: while they grow, read in parts, compressed, and in bounded memory."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import h5py
import httpx
import numpy as np
import pytest

from recorder import TraceRecorder
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from tests.server_fixture import Serve

LARGE_STEPS, LARGE_SHAPE = 300, (1 << 8, 1 << 10)
PROGRAM = str(Path(sys.executable).with_name("trace-archive"))


def constant(step: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a mebibyte that is cheap to record."""
    return np.full(LARGE_SHAPE, step, np.float32)


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Record a run of 300 MiB."""
    store = str(tmp_path_factory.mktemp("large"))
    with TraceRecorder(store, "large", system="d3-dna", samples=LARGE_SHAPE[0]) as recorder:
        for step in range(LARGE_STEPS):
            recorder.record(step, timestep=float(step), score_matrix=constant(step))
    return store


@pytest.fixture(scope="module")
def large_url(large_store: str) -> Iterator[str]:
    with served(large_store) as url:
        yield url


@pytest.mark.parametrize("ending", ["h5", "npz"])
def test_a_file_of_a_run_that_grows_is_given_to_its_end_as_it_was(
    folder_store: Store, serve: Serve, ending: str
) -> None:
    """Or a download that is resumed would be put together from two states of the run."""
    path = f"{serve(folder_store)}/runs/r.{ending}"
    with TraceRecorder(folder_store, run="r", samples=4) as recorder:
        record_steps(recorder, 0, 3)
        whole = httpx.get(path)
        tag = whole.headers["etag"]
        first = httpx.get(path, headers={"Range": "bytes=0-99"})

        record_steps(recorder, 3, 6)
        resumed = {"Range": "bytes=100-", "If-Range": tag}
        rest = httpx.get(path, headers=resumed)
        named = httpx.get(path, headers={"Range": "bytes=100-199", "If-Match": tag})
        grown = httpx.get(path)
        unknown = httpx.get(path, headers={"If-Match": f'"{"0" * 32}-{ending}.1"'})
        other = httpx.get(path, headers={"Range": "bytes=9-", "If-Range": '"other"'})
        unconditional = httpx.get(path, headers={"Range": "bytes=100-"})
        now = grown.headers["etag"]
        passed = httpx.get(path, headers={"If-Match": f'"x", {now}', "If-None-Match": now})
    sealed = httpx.get(path, headers=resumed)

    assert first.headers["etag"] == rest.headers["etag"] == named.headers["etag"] == tag != now
    assert (first.status_code, rest.status_code, named.status_code) == (206, 206, 206)
    assert first.content + rest.content == whole.content
    assert named.content == whole.content[100:200]
    assert grown.content != whole.content[: len(grown.content)]
    assert unconditional.content == grown.content[100:]
    assert unconditional.headers["etag"] == now
    assert (unknown.status_code, unknown.json()["kind"]) == (412, "precondition-failed")
    assert (other.status_code, other.content) == (200, grown.content)
    assert passed.status_code == 304
    assert sealed.content == rest.content
    assert "immutable" not in sealed.headers["cache-control"]
    with np.load(io.BytesIO(httpx.get(path.replace(ending, "npz")).content)) as loaded:
        assert loaded["steps"].tolist() == list(range(6))


def test_more_samples_in_the_same_steps_make_another_file_of_which_none_is_mixed(
    folder_store: Store, serve: Serve
) -> None:
    """A sampler goes through all steps with a batch, and then with the next."""
    path = f"{serve(folder_store)}/runs/r.npz"
    with TraceRecorder(folder_store, run="r") as recorder:
        for step in range(3):
            recorder.record(step, slice(0, 4), x=np.full((4, 50), step))
        recorder.flush()
        whole = httpx.get(path)
        for step in range(3):
            recorder.record(step, slice(4, 8), x=np.full((4, 50), step + 10))
        recorder.flush()
        grown = httpx.get(path)
        rest = httpx.get(path, headers={"Range": "bytes=77-", "If-Range": whole.headers["etag"]})

    assert rest.status_code == 206
    assert rest.content == whole.content[77:]
    with np.load(io.BytesIO(grown.content)) as loaded:
        assert loaded["trace/x"].shape == (3, 8, 50)


@pytest.mark.parametrize(("ending", "compression"), [("h5", "gzip"), ("npz", "deflate")])
def test_a_compressed_file_is_streamed_and_equals_the_other(
    large_url: str, tmp_path: Path, ending: str, compression: str
) -> None:
    url = f"{large_url}/runs/large.{ending}?steps=0:9&compression={compression}"
    whole = httpx.get(url, timeout=60)
    part = httpx.get(url, headers={"Range": "bytes=5-9", "If-Range": whole.headers["etag"]})
    head = httpx.head(url)
    known = httpx.get(url, headers={"If-None-Match": whole.headers["etag"]})
    wrong = httpx.get(f"{large_url}/runs/large.{ending}?compression=lzma")
    none = httpx.get(f"{large_url}/runs/large/export?format=json&compression=gzip")
    (tmp_path / "file").write_bytes(whole.content)

    assert (whole.status_code, part.status_code, known.status_code) == (200, 200, 304)
    assert whole.headers["transfer-encoding"] == "chunked"
    assert whole.headers["accept-ranges"] == head.headers["accept-ranges"] == "none"
    assert whole.headers["etag"].startswith("W/")
    assert "content-length" not in head.headers
    assert len(whole.content) < constant(0).nbytes
    assert (wrong.status_code, wrong.json()["kind"]) == (422, "invalid-parameter")
    assert compression in wrong.json()["detail"]
    assert none.status_code == 422
    if ending == "h5":
        with h5py.File(tmp_path / "file") as file:
            assert len(file["steps"]) == 9
            for step in range(9):
                scores = file[f"steps/step_{step:04d}/score_matrix"]
                np.testing.assert_array_equal(scores, constant(step).astype(np.float16))
    else:
        with np.load(tmp_path / "file") as loaded:
            assert loaded["score_matrices"].shape == (9, *LARGE_SHAPE)
            np.testing.assert_array_equal(loaded["score_matrices"][8], constant(8))


def test_h5py_reads_one_dataset_of_a_large_run_by_little_more_than_its_bytes(
    large_url: str,
) -> None:
    """Through fsspec, as users open remote files: metadata lies together, at the front."""
    url = f"{large_url}/runs/large.h5"
    small = 1 << 16
    with fsspec.open(url, block_size=small, cache_type="readahead").open() as file:
        with h5py.File(file) as opened:
            scores = opened["steps/step_0217/score_matrix"]
            values, nbytes = scores[()], scores.nbytes
        fetched = file.cache.total_requested_bytes

    np.testing.assert_array_equal(values, constant(217).astype(np.float16))
    assert nbytes < fetched < nbytes + 16 * small
    with fsspec.open(url).open() as file:  # as it is by default: in blocks of 5 MiB
        with h5py.File(file) as opened:
            np.testing.assert_array_equal(opened["steps/step_0102/score_matrix"], values * 0 + 102)
        assert file.cache.total_requested_bytes < 4 * file.blocksize


def test_numpy_loads_one_member_of_a_large_run_by_little_more_than_its_bytes(
    large_url: str,
) -> None:
    small = 1 << 16
    url = f"{large_url}/runs/large.npz?steps=0:300:2"
    with fsspec.open(url, block_size=small, cache_type="readahead").open() as file:
        with np.load(file) as loaded:
            values = loaded["timesteps"]
        fetched = file.cache.total_requested_bytes
        size = file.size

    assert values.tolist() == list(range(0, LARGE_STEPS, 2))
    assert fetched < 8 * small < size // 100


def test_a_file_of_any_size_takes_little_memory(large_store: str) -> None:
    """Of the process that serves it, as the system counts it."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("TRACE_ARCHIVE_")},
        "TRACE_ARCHIVE_CACHE_BYTES": str(1 << 20),
    }
    command = [PROGRAM, "serve", "--store", large_store, "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://[0-9.:]+", server.stdout.readline())
            assert found is not None
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
                assert client.get(f"{found.group()}/healthz").is_success
            for ending in ("h5", "npz"):
                url = f"{found.group()}/runs/large.{ending}"
                read_all(f"{url}?steps=0:2")
                read_all(f"{url}?steps=0:2&compression={'gzip' if ending == 'h5' else 'deflate'}")
            before = peak_nbytes(server.pid)

            plain = [read_all(f"{found.group()}/runs/large.{ending}") for ending in ("h5", "npz")]
            packed = read_all(f"{found.group()}/runs/large.h5?compression=gzip")
            deflated = read_all(f"{found.group()}/runs/large.npz?compression=deflate")
            after = peak_nbytes(server.pid)
        finally:
            server.terminate()

    assert min(plain) > LARGE_STEPS * constant(0).nbytes // 2
    assert max(packed, deflated) < min(plain) // 10
    assert after - before < 64 << 20


def record_steps(recorder: TraceRecorder, start: int, stop: int) -> None:
    for step in range(start, stop):
        recorder.record(step, level=1 / (step + 1), x=np.full((4, 50), step))
    recorder.flush()


def read_all(url: str) -> int:
    """Return how many bytes there are; none is kept."""
    with httpx.stream("GET", url, timeout=60) as answer:
        assert answer.status_code == httpx.codes.OK
        return sum(map(len, answer.iter_raw()))


def peak_nbytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+([0-9]+) kB", status)[0]) << 10
