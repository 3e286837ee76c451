"""A user with keys of his own, from recording to export, by flags and profile alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from archive_schema.errors import InvalidInputError
from archive_schema.store import StoreOptions, open_store
from archive_schema.store.foreign import foreign_filesystem
from recorder import TraceRecorder
from tests.command import trace_archive

if TYPE_CHECKING:
    from tests.s3_server import S3Server

PROGRAM = str(Path(sys.executable).with_name("trace-archive"))


@pytest.fixture
def home(tmp_path: Path, s3: S3Server) -> Path:
    """Return a home folder whose profile ``lab`` has keys, and no endpoint."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[lab]\n"
        f"aws_access_key_id = {s3.environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {s3.environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    return tmp_path


def run(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command with no variable that says anything about a store."""
    foreign = ("AWS_", "TRACE_ARCHIVE_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment = {**clean, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_flags_reach_the_archive_and_the_files_beside_it(home: Path, s3: S3Server) -> None:
    url = s3.fresh_url()
    reach = ("--endpoint-url", s3.endpoint_url, "--profile", "lab", "--path-style")
    options = StoreOptions(
        endpoint_url=s3.endpoint_url,
        access_key_id=s3.environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=s3.environment["AWS_SECRET_ACCESS_KEY"],
    )
    score = np.arange(12, dtype="float32").reshape(2, 2, 3)
    with TraceRecorder(url, "r", steps=2, samples=2, store_options=options) as rec:
        for step in range(2):
            rec.record(step, x=score[step])

    listed = run(home, "ls", "--store", url, *reach)
    exported = run(home, "export", "r", f"{url}/out/r.h5", "--store", url, *reach)
    refused = run(home, "ls", "--store", url, *reach[:2])

    assert listed.returncode == 0, listed.stderr
    assert " r " in listed.stdout
    assert exported.returncode == 0, exported.stderr
    filesystem, path = foreign_filesystem(f"{url}/out/r.h5", options)
    with filesystem.open(path) as stream, h5py.File(stream) as file:
        assert np.array_equal(file["steps/step_0001/x"][()], score[1])
    assert refused.returncode == 1
    assert "store-refused" in refused.stderr
    assert "no credentials" in refused.stderr


def test_options_are_for_a_url(tmp_path: Path) -> None:
    """An open store would not heed them."""
    with pytest.raises(InvalidInputError, match="an open store has its own"):
        TraceRecorder(open_store(tmp_path), "r", store_options=StoreOptions())


@pytest.mark.parametrize("command", ["ls", "verify"])
def test_a_folder_that_is_not_there_is_no_empty_archive(tmp_path: Path, command: str) -> None:
    """Most likely its name was mistyped."""
    run_id = ("r",) if command == "verify" else ()

    done = trace_archive(command, *run_id, "--store", tmp_path / "archvie")

    assert done.returncode == 1
    assert "there is no folder" in done.stderr
    assert "archvie" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bucket_that_is_not_there_is_no_empty_archive(home: Path, s3: S3Server) -> None:
    reach = ("--endpoint-url", s3.endpoint_url, "--profile", "lab")

    done = run(home, "ls", "--store", "s3://archvie/x", *reach)

    assert done.returncode == 1
    assert "no such bucket" in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_that_make_no_sense_are_a_usage_error() -> None:
    done = trace_archive("ls", "--store", "s3://bucket", "--profile", "x", "--anonymous")

    assert done.returncode == 2
    assert "profile and anonymous" in done.stderr
    assert "Traceback" not in done.stderr
