"""What an installation of this distribution holds, owns and needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, entry_points, packages_distributions
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("archive_schema", "clients", "recorder", "server")
# What `trace-archive demo` needs where there is no checkout.
DEMO = ("recorder/demo/dna_sampler.py", "recorder/demo/data/regulatory_sequences.fasta")

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMMANDS: dict[str, str] = PYPROJECT["project"]["entry-points"]["trace_archive.commands"]


def requirements() -> list[str]:
    """Return every requirement that pyproject.toml declares, as written."""
    project = PYPROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PYPROJECT["dependency-groups"].values(),
    ]
    return sorted({item for group in groups for item in group if isinstance(item, str)})


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> list[PurePosixPath]:
    """List the wheel's files: of the one that is installed, or of one built from this checkout."""
    if not (ROOT / "archive_schema").is_dir():
        return [PurePosixPath(file) for file in distribution("trace-archive").files or ()]
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def run_python(code: str) -> str:
    """Run *code* in a fresh interpreter, where nothing has been imported, and return its output."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_nobody_else_owns_our_top_level_names(name: str) -> None:
    """Two distributions with one package name overwrite each other's files in silence."""
    owners = set(packages_distributions().get(name, ()))

    assert owners <= {"trace-archive"}


def test_the_wheel_holds_the_four_packages_and_nothing_else(
    wheel_files: list[PurePosixPath],
) -> None:
    """A stray `tests/` in site-packages would collide with somebody else's."""
    version = PYPROJECT["project"]["version"]

    # Installed, the console script is listed too, by a path that leaves site-packages.
    tops = {file.parts[0] for file in wheel_files} - {".."}

    assert tops == {*PACKAGES, f"trace_archive-{version}.dist-info"}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_says_that_its_packages_are_typed(
    wheel_files: list[PurePosixPath], package: str
) -> None:
    """Without the marker a type checker takes everything imported from us as unknown."""
    assert PurePosixPath(package, "py.typed") in wheel_files


@pytest.mark.parametrize("name", DEMO)
def test_the_wheel_holds_what_the_demo_needs(wheel_files: list[PurePosixPath], name: str) -> None:
    """The example lives in `examples/`; an installed demo has no such folder."""
    assert PurePosixPath(name) in wheel_files


def test_the_console_script_resolves() -> None:
    """A script that names a missing function fails only when a user runs it."""
    (script,) = entry_points(group="console_scripts", name="trace-archive")

    assert callable(script.load())


def test_the_installed_commands_are_the_declared_ones() -> None:
    """An environment that was installed before a command was added does not know it."""
    installed = {entry.name: entry.value for entry in entry_points(group="trace_archive.commands")}

    assert installed == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_resolves(name: str) -> None:
    """The command line shows a command that does not load as one that is not installed."""
    (entry,) = entry_points(group="trace_archive.commands", name=name)

    assert callable(entry.load())


@pytest.mark.parametrize("requirement", requirements())
def test_each_requirement_says_why_it_is_there(requirement: str) -> None:
    """A dependency without a reason is never removed."""
    lines = [
        line
        for line in (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
        if line.strip().startswith(f'"{requirement}"')
    ]

    assert lines
    assert all(line.partition("#")[2].strip() for line in lines)


def test_the_installed_version_is_the_declared_one() -> None:
    """A stale installation would be tested in place of this one."""
    assert distribution("trace-archive").version == PYPROJECT["project"]["version"]


def test_the_changelog_begins_with_this_version() -> None:
    """Whoever upgrades looks there first."""
    headings = [
        line
        for line in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
        if line.startswith("## ")
    ]

    assert headings[0].split()[1] == PYPROJECT["project"]["version"]


def test_a_client_loads_no_storage_stack() -> None:
    """A notebook that reads over HTTP needs numpy and httpx, and starts quickly."""
    code = "import clients, sys; print(*sys.modules)"

    loaded = set(run_python(code).split())

    assert "httpx" in loaded
    assert loaded.isdisjoint({"fastapi", "h5py", "numcodecs", "obstore", "torch", "zarr"})


def test_a_recorder_works_without_torch() -> None:
    """A sampler in plain NumPy must not install gigabytes."""
    code = "import sys; sys.modules['torch'] = None; import recorder; print(recorder.__name__)"

    assert run_python(code).strip() == "recorder"
