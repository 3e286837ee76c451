"""A package outside adds a seventh system: built, installed, and used as a user would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.systems.pages import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

OUTSIDE = Path(__file__).parent / "outside"
PROGRAM = str(Path(sys.executable).with_name("trace-archive"))
TEXT = """#ising chains=hot,cold
sweep=0 beta=0.25
--++-+
++++++
sweep=2 beta=0.5
++++-+
+++-++
"""
RECORD = """
import numpy as np
from typer.testing import CliRunner
from archive_schema.cli import application
from recorder import TraceRecorder

with TraceRecorder("archive", "recorded", system="ising", samples=2) as rec:
    rec.sample_coordinates(chain=["hot", "cold"])
    up = np.array([[0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]])
    rec.record(0, samples=slice(0, 2), beta=0.25, spins=up)
    up = np.array([[1, 1, 1, 1, 0, 1], [1, 1, 1, 0, 1, 1]])
    rec.record(2, samples=slice(0, 2), beta=0.5, spins=up)
for words in ("export recorded again.spins", "import d3-dna walk.spins --run other"):
    done = CliRunner().invoke(application(words.split()), words.split())
    print(done.exit_code, done.output, done.exception)
"""


class Installed:
    """An environment in which the package is installed, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=OUTSIDE, check=True, capture_output=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(folder / "site")
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TRACE_ARCHIVE_")},
            "PYTHONPATH": str(folder / "site"),
            "TRACE_ARCHIVE_STORE": "archive",
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    found = Installed(tmp_path_factory.mktemp("outside"))
    (found.folder / "walk.spins").write_text(TEXT.replace("+", "^"))
    return found


@pytest.fixture(scope="module")
def runs(installed: Installed) -> tuple[str, str]:
    """Have the same chains imported, and recorded and exported; return what is said of it."""
    imported = installed.run(
        PROGRAM, "import", "ising", "walk.spins", "--run", "imported", "--flag", "up=^", "--json"
    )
    assert imported.returncode == 0, imported.stderr
    recorded = installed.run(sys.executable, "-c", RECORD)
    assert recorded.returncode == 0, recorded.stderr
    return imported.stdout, recorded.stdout


@pytest.fixture(scope="module")
def client(installed: Installed, runs: tuple[str, str]) -> Iterator[httpx.Client]:
    """Serve both by a process of its own, and ask it."""
    assert runs
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", "0"],
        cwd=installed.folder,
        env={**installed.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        try:
            assert found is not None
            transport = httpx.HTTPTransport(retries=8)  # it listens a moment later
            with httpx.Client(base_url=found[0], transport=transport, timeout=60) as asking:
                yield asking
        finally:
            process.terminate()


def test_it_is_imported_with_its_flags_and_named_among_the_others(runs: tuple[str, str]) -> None:
    report = json.loads(runs[0])

    assert (report["steps"], report["samples"], report["sealed"]) == (2, 2, True)
    assert "it looks like ising (walk.spins)" in runs[1]


@pytest.mark.parametrize("run", ["imported", "recorded"])
def test_it_is_given_back_asked_and_selected_in_its_own_words(
    client: httpx.Client, run: str
) -> None:
    given = client.get(f"/runs/{run}/export?format=spins")
    part = client.get(f"/runs/{run}/export?format=spins", headers={"Range": "bytes=40-60"})
    asked = client.get(f"/runs/{run}/ising/magnetization").raise_for_status().json()
    picked = client.get(f"/runs/{run}/fields/spins?beta=0.5&chain=hot").raise_for_status().json()

    assert given.text == TEXT
    assert int(given.headers["content-length"]) == len(TEXT)
    assert part.content == TEXT.encode()[40:61]
    np.testing.assert_allclose(asked["data"], np.array([[0, 1], [2 / 3, 2 / 3]]))
    assert picked["data"] == [[[1, 1, 1, 1, 0, 1]]]
    assert picked["dims"] == ["step", "sample", "site"]


def test_openapi_describes_its_calls(client: httpx.Client) -> None:
    assert "/runs/{run}/ising/magnetization" in client.get("/openapi.json").json()["paths"]


def test_the_command_line_writes_its_files(installed: Installed, runs: tuple[str, str]) -> None:
    assert "to again.spins" in runs[1]
    assert (installed.folder / "again.spins").read_text() == TEXT


def test_the_page_shows_the_package_as_it_is() -> None:
    """What a reader copies is what the tests above have run."""
    page = (PAGES / "your-own.md").read_text("utf-8")

    for path in [OUTSIDE / "pyproject.toml", *sorted((OUTSIDE / "ising_traces").glob("[a-z]*.py"))]:
        assert path.read_text("utf-8").strip() in page, path.name
