"""What `import clients` brings along: little enough for a notebook far from the archive."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

BLOCKED = (
    "crc32c", "fastapi", "fsspec", "h5py", "ml_dtypes", "numcodecs", "obstore", "orjson",
    "pandas", "recorder", "server", "starlette", "torch", "uvicorn", "xarray", "zarr",
)  # fmt: skip
WITHOUT = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def run(code: str) -> str:
    """Run *code* in a Python that has nothing but what a client needs."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT + code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_client_needs_no_storage_stack() -> None:
    code = """
import clients
for name in clients.__all__:
    getattr(clients, name)
with clients.ArchiveClient("http://localhost:1") as client:
    print(type(client).__name__)
"""
    assert run(code) == "ArchiveClient\n"


def test_without_xarray_it_is_said_what_to_install() -> None:
    said = run("""
from clients.extras import labelled
try:
    labelled()
except ModuleNotFoundError as error:
    print(error.name, error)
""")

    assert said == "xarray to_xarray needs xarray: pip install 'trace-archive[xarray]'\n"


def test_xarray_is_not_imported_before_it_is_needed() -> None:
    """It takes longer than everything else together."""
    code = "import sys, clients; print('xarray' in sys.modules)"
    command = [sys.executable, "-c", code]

    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert found == "False\n"


def test_the_extra_that_is_named_exists() -> None:
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))

    assert "xarray" in declared["project"]["optional-dependencies"]
