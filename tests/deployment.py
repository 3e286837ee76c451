"""docker-compose.yml as Compose itself reads it, for tests that start its services by hand.

What an engine would add is read from the Dockerfile: the entry point of an image of ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parents[1]
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text("utf-8")
KEY: Final = "testkey"
SECRET: Final = "testsecret123"
FILLED_IN: Final = {
    "STORE_ACCESS_KEY": KEY,
    "STORE_SECRET_KEY": SECRET,
    "STORE_MEMORY": "400MiB",
}


@dataclass(frozen=True, slots=True)
class Service:
    """What Compose would run in a container of this service."""

    image: str
    stage: str
    """The stage of the Dockerfile that the image is; empty if the image is not ours."""
    command: list[str]
    """What the image's entry point is given."""
    environment: dict[str, str]
    probe: list[str]
    """The health check as an argument vector; empty if there is none."""

    def options(self, changed: Mapping[str, object]) -> list[str]:
        """Return the command with the values of ``-name=value`` options changed or added."""
        given = dict(one.split("=", 1) for one in self.command if "=" in one)
        words = [one for one in self.command if "=" not in one]
        given |= {f"-{name}": str(value) for name, value in changed.items()}
        return [*words, *(f"{name}={value}" for name, value in given.items())]


def program(name: str) -> str:
    """Return the path of a program that comes with this environment.

    Beside the interpreter first: an environment need not be activated to run its tests.
    """
    places = (str(Path(sys.executable).parent), os.environ["PATH"])
    found = shutil.which(name, path=os.pathsep.join(places))
    assert found is not None, f"expected {name} beside {sys.executable}, or in PATH"
    return found


def compose(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Have Compose read the file, all profiles of it, where nothing but *environment* is set."""
    command = [
        program("docker-compose"), "--project-directory", str(ROOT), "--env-file", os.devnull,
        "--file", str(ROOT / "docker-compose.yml"), "--profile", "*", "config", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@cache
def services() -> dict[str, Service]:
    """Return every service of the file, with the tests' own keys in it."""
    result = compose(FILLED_IN, "--format", "json")
    assert result.returncode == 0, result.stderr
    return {name: _service(found) for name, found in json.loads(result.stdout)["services"].items()}


def entry_point(stage: str) -> list[str]:
    """Return the argument vector that a container of this stage of the Dockerfile starts."""
    (found,) = re.findall(
        rf"^FROM (\S+) AS {stage}\n((?:(?!FROM ).*\n?)*)", DOCKERFILE, re.MULTILINE
    )
    base, body = found
    lines = re.findall(r"^ENTRYPOINT (\[.*\])$", body, re.MULTILINE)
    return list(json.loads(lines[-1])) if lines else entry_point(base)


def _service(found: dict[str, Any]) -> Service:
    kind, *probe = found.get("healthcheck", {}).get("test", ["NONE"])
    return Service(
        image=found["image"],
        stage=found.get("build", {}).get("target", ""),
        command=found["command"],
        environment=found["environment"],
        probe=["/bin/sh", "-c", *probe] if kind == "CMD-SHELL" else probe,
    )
