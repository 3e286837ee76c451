"""docker-compose.yml as Compose itself reads it, for tests that start its services by hand."""

from __future__ import annotations

import json
import os
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
    """Return the path of a program of the test group.

    Beside the interpreter first: an environment need not be activated to run its tests.
    """
    places = (str(Path(sys.executable).parent), os.environ["PATH"])
    found = shutil.which(name, path=os.pathsep.join(places))
    assert found is not None, f"{name} comes with the dependency group `test`"
    return found


def compose(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Have Compose resolve the file, all profiles of it, where nothing but *environment* is set."""
    command = [
        program("docker-compose"), "--project-directory", str(ROOT), "--env-file", os.devnull,
        "--file", str(ROOT / "docker-compose.yml"), "--profile", "*", "config", "--format", "json",
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@cache
def resolved() -> dict[str, Any]:
    """Return the whole file, with the tests' own keys in it."""
    result = compose(FILLED_IN)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def service(name: str) -> Service:
    """Return one service of the file."""
    found = resolved()["services"][name]
    kind, *probe = found.get("healthcheck", {}).get("test", ["NONE"])
    return Service(
        image=found["image"],
        command=found["command"],
        environment=found["environment"],
        probe=["/bin/sh", "-c", *probe] if kind == "CMD-SHELL" else probe,
    )
