"""`serve`, `ls`, `show` and `export` as a user runs them; what serves is a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import httpx
import numpy as np
import pytest

from tests.command import Done, trace_archive
from tests.ports import unused_port
from tests.server.conftest import LAYER, SAMPLES, STEPS, write_run

if TYPE_CHECKING:
    from archive_schema.store import Store

PROGRAM = str(Path(sys.executable).with_name("trace-archive"))
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("TRACE_ARCHIVE_")}


@pytest.fixture
def store(folder_store: Store) -> Store:
    write_run(folder_store, "sealed").seal()
    write_run(folder_store, "live")
    return folder_store


def run(*arguments: str, store: Store | None = None) -> Done:
    environment = CLEAN if store is None else {**CLEAN, "TRACE_ARCHIVE_STORE": store.url}
    return trace_archive(*arguments, environment=environment)


def test_ls_shows_people_and_programs_the_same_runs(store: Store) -> None:
    table = run("ls", "--store", store.url)
    document = json.loads(run("ls", "--json", store=store).stdout)
    sealed = json.loads(run("ls", "--status", "sealed", "--json", store=store).stdout)

    assert table.returncode == 0, table.stderr
    assert [entry["id"] for entry in document["runs"]] == ["sealed", "live"]
    assert all(entry["id"] in table.stdout for entry in document["runs"])
    assert [entry["id"] for entry in sealed["runs"]] == ["sealed"]


def test_show_says_what_is_recorded(store: Store) -> None:
    table = run("show", "sealed", store=store)
    document = json.loads(run("show", "sealed", "--json", store=store).stdout)

    assert document["steps"] == STEPS
    assert document["samples"] == SAMPLES
    for word in ("score", "float16", "blocks.11.mlp", "start", "label", "timestep"):
        assert word in table.stdout


def test_a_run_that_is_not_there_is_exit_code_1(store: Store) -> None:
    result = run("show", "nowhere", store=store)

    assert result.returncode == 1
    assert "run-not-found" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls",),
        ("serve",),
        ("serve", "--store", "x", "--host", "0.0.0.0"),
        ("serve", "--store", "memory://x", "--workers", "2"),
        ("ls", "--store", "x", "--sort", "colour"),
        ("ls", "--store", "ftp://x"),
        ("ls", "--nonsense"),
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr


def test_export_writes_what_http_gives(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run.h5"

    result = run("export", "sealed", str(out), "--samples", "0:3", "--steps", "1:3", store=store)

    assert result.returncode == 0, result.stderr
    with h5py.File(out) as file:
        assert file  # readable as a whole
    assert [path.name for path in tmp_path.glob("run*")] == ["run.h5"]


def test_export_goes_by_coordinates_and_globs(store: Store, tmp_path: Path) -> None:
    """Steps 1 and 2 have timesteps 0.8 and 0.6."""
    out = tmp_path / "part.npz"
    asked = ("--where", "timestep=0.5:0.9", "--layers", "blocks.*", "--fields", "output")

    result = run("export", "sealed", str(out), *asked, store=store)
    nowhere = run("export", "sealed", "x.npz", "--where", "timestep=7:", store=store)
    unknown = run("export", "sealed", "x.npz", "--where", "label=7", store=store)
    unreadable = run("export", "sealed", "x.npz", "--where", "timestep", store=store)

    assert result.returncode == 0, result.stderr
    with np.load(out) as file:
        assert file[f"layers/{LAYER}/output"].shape == (2, SAMPLES, 3)
    assert "nothing-matches" in nowhere.stderr
    assert "expected timestep" in unknown.stderr
    assert unreadable.returncode == 2
    assert "NAME=VALUE" in unreadable.stderr


def test_an_output_is_never_replaced_unless_forced(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run.npz"
    out.write_text("precious")

    refused = run("export", "sealed", str(out), store=store)
    kept = out.read_text()
    forced = run("export", "sealed", str(out), "--force", store=store)

    assert refused.returncode == 1
    assert "output-exists" in refused.stderr
    assert kept == "precious"
    assert forced.returncode == 0
    assert len(np.load(out).files) > 1


def test_export_compresses_where_it_is_told_to(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run.h5"

    result = run("export", "sealed", str(out), "--compression", "gzip", store=store)
    refused = run("export", "sealed", str(out), "--compression", "deflate", store=store)

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("wrote ")
    with h5py.File(out) as file:
        assert len(file["steps"]) == STEPS
    assert refused.returncode != 0
    assert "with gzip" in refused.stderr


def test_a_failed_export_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.delete("runs/sealed/trace.zarr/trace/score/c.2.1.0.0")

    result = run("export", "sealed", str(tmp_path / "out.npz"), store=store)

    assert result.returncode == 1
    assert "tile-lost" in result.stderr
    assert not list(tmp_path.glob("out*"))


def test_an_ending_that_names_no_format_is_exit_code_2(store: Store, tmp_path: Path) -> None:
    result = run("export", "sealed", str(tmp_path / "run.docx"), store=store)

    assert result.returncode == 2
    assert "h5" in result.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_says_where_answers_and_ends_when_told(store: Store, workers: int) -> None:
    command = [PROGRAM, "serve", "--store", store.url, "--workers", str(workers)]
    command += ["--port", "0" if workers == 1 else str(unused_port())]
    with subprocess.Popen(
        command, env={**CLEAN, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=found[0], transport=transport, timeout=60) as client:
            answer = client.get("/runs/sealed/steps/1/score?samples=0:2")
            counted = client.get("/metrics")
        process.send_signal(signal.SIGTERM)
        process.wait(100)

    assert answer.status_code == 200
    assert "trace_archive_requests_total" in counted.text
