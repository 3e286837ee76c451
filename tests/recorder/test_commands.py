"""The commands that write: what they print and how they exit."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.demonstration import free_run_id, recording_script
from tests.command import trace_archive
from tests.ports import unused_port

DATA: Final = Path(__file__).parents[1] / "data/d3_dna"
PROGRAM: Final = Path(sys.executable).parent / "trace-archive"


def run_program(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own, which starts others."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=100)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with TraceRecorder(tmp_path / "archive", "r", steps=2, samples=4) as rec:
        for step in range(2):
            rec.record(step, x=np.random.default_rng(step).random((4, 50)))
    return tmp_path / "archive"


def test_an_import_says_what_it_found(tmp_path: Path) -> None:
    file = DATA / "evaluation_visualization_data.h5"

    first = trace_archive("import", "d3-dna", file, "--run", "ev", "--store", tmp_path, "--json")
    again = trace_archive("import", "d3-dna", file, "--run", "ev", "--store", tmp_path)

    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["run"], report["generation"], report["steps"]) == ("ev", "B", 32)
    assert again.returncode == 0
    assert "is there already" in again.stdout


def test_a_foreign_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "notes.h5"
    file.write_text("no HDF5")

    done = trace_archive("import", "d3-dna", file, "--run", "x", "--store", tmp_path / "archive")

    assert done.returncode == 2
    assert "file-invalid" in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_exits_by_what_it_found(archive: Path) -> None:
    sound = trace_archive("verify", "r", "--store", archive)
    (archive / "runs/r/trace.zarr/trace/x/c.1.0.0").unlink()
    damaged = trace_archive("verify", "r", "--store", archive, "--json")

    assert sound.returncode == 0
    assert "sound" in sound.stdout
    assert damaged.returncode == 3
    report = json.loads(damaged.stdout)
    (found,) = report["found"]
    assert (report["sound"], found["finding"], found["repairable"]) == (False, "tile-lost", False)
    assert found["key"].endswith("c.1.0.0")


def test_repair_exits_by_what_is_lost(archive: Path) -> None:
    (archive / "runs/r/run.json").unlink()
    tried = trace_archive("repair", "r", "--store", archive, "--dry-run")
    assert (tried.returncode, (archive / "runs/r/run.json").exists()) == (0, False)
    assert "would be put right" in tried.stdout

    done = trace_archive("repair", "r", "--store", archive, "--sweep", "--json")
    assert done.returncode == 0
    (action,) = json.loads(done.stdout)["done"]
    assert (action["finding"], action["key"]) == ("manifest-lost", "runs/r/run.json")

    (archive / "runs/r/trace.zarr/trace/x/c.1.0.0").unlink()
    assert trace_archive("repair", "r", "--store", archive).returncode == 3


def test_rm_asks_first(archive: Path) -> None:
    refused = trace_archive("rm", "r", "--store", archive, text="n\n")
    assert refused.returncode == 1
    assert (archive / "runs/r/run.json").exists()

    assert trace_archive("rm", "r", "--store", archive, text="y\n").returncode == 0
    assert list(open_store(archive).objects("runs/r")) == []
    gone = trace_archive("rm", "r", "--store", archive, "--yes")
    assert gone.returncode == 1
    assert "run-not-found" in gone.stderr


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("import", "d3-dna"), ("verify", "r", "--store"), ("nothing",), ("rm", "--no")],
)
def test_a_wrong_call_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = trace_archive(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_demo_takes_the_next_free_name() -> None:
    assert free_run_id([]) == "demo-1"
    assert free_run_id(["demo-1", "demo-3", "other"]) == "demo-2"
    assert recording_script().read_text().startswith('"""Record every step')


@pytest.mark.timeout(300)
def test_the_demo_records_serves_and_says_where(tmp_path: Path) -> None:
    port = unused_port()
    store = tmp_path / "demo"
    options = ("--store", store, "--port", port, "--samples", 10, "--steps", 8)

    done = run_program("demo", *options, "--training", 20, "--once")

    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{port}/runs/demo-1" in done.stdout
    assert "is sealed" in done.stdout
    assert trace_archive("verify", "demo-1", "--store", store).returncode == 0
    assert "demo-1" in trace_archive("ls", "--store", store).stdout


def test_a_demo_whose_port_is_taken_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_program("demo", "--store", tmp_path, "--port", taken.getsockname()[1], "--once")

    assert done.returncode == 1
    assert "the server ended" in done.stderr
    assert "Traceback" not in done.stderr
