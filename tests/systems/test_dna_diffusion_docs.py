"""Everything in docs/systems/dna-diffusion.md runs as it stands, and so does the example."""

from __future__ import annotations

import io
import runpy
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
from typer.testing import CliRunner

from archive_schema.cli import application
from tests.server_fixture import served
from tests.systems.pages import run_page

if TYPE_CHECKING:
    import pytest

ROOT: Final = Path(__file__).parents[2]
REAL: Final = ROOT / "tests/data/dna_diffusion"


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outputs").mkdir()
    for path in REAL.glob("*HepG2*"):
        shutil.copy(path, tmp_path / "outputs")
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    with served((tmp_path / "archive").as_uri()) as url:
        run_page("dna-diffusion.md", url)
        run = f"{url}/runs/dna-1"

        def loaded(call: str) -> Any:
            return np.load(io.BytesIO(httpx.get(f"{run}/{call}").content))

        k562 = loaded("export?format=npy&cell_type=K562")
        x = loaded("fields/x?format=npy")
        tokens = loaded("fields/tokens?cell_type=K562&steps=-10:&format=npy")
        part = httpx.get(f"{run}/export?format=npy&cell_type=K562", headers={"Range": "bytes=-64"})
        table = httpx.get(f"{run}/export?format=tsv&cell_type=K562").text

    assert k562.shape == (50, 4, 1, 4, 200)
    np.testing.assert_array_equal(k562, x[:, [2, 3, 6, 7]])
    np.testing.assert_array_equal(tokens, k562[-10:, :, 0].argmax(2))
    assert (part.status_code, part.content) == (206, k562.tobytes()[-64:])
    for name in ("K562_ENCLB843GMH_save_timesteps.txt", "../k562.tsv"):
        assert (tmp_path / "files" / name).read_text() == table
    rows = table.splitlines()
    assert rows[0] == "\t".join(map(str, range(50)))
    assert [row.split("\t")[-1] for row in rows[1:]] == (
        (tmp_path / "files/K562_ENCLB843GMH.txt").read_text().split("\n")
    )
    crossed = np.load(tmp_path / "files/cross_att_values_HepG2_ENCLB029COU.npy")
    assert crossed.shape == (50, 4, 1, 4, 200)


def test_the_example_records_and_what_it_writes_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five samples of each of four cell types in batches of two; the files are another run."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    command = [
        "record_dna_diffusion.py", str(tmp_path / "a"), "--run", "r", "--samples", "5",
        "--batch", "2", "--steps", "3", "--length", "20",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / "examples/record_dna_diffusion.py"), run_name="__main__")

    def run(*words: str) -> str:
        result = CliRunner().invoke(application(), words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    store = ("--store", str(tmp_path / "a"))
    run("export", "r", str(tmp_path / "out"), *store)
    report = run("import", "dna-diffusion", str(tmp_path / "out"), "--run", "s", *store)
    run("export", "s", str(tmp_path / "again"), *store)

    assert "3 steps, 20 samples" in report
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("out", "again")
    )
    assert len(first) == 20
    # Of the names in a FASTA file, the numbers are those of the samples in their own run.
    kept = {name for name in second if not name.endswith(".fasta")}
    assert {name: second[name] for name in kept} == {name: first[name] for name in kept}
    assert first.keys() - second.keys() == {
        name for name in first if name.endswith(".npy") and not name.startswith("cross")
    }
