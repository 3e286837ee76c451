"""Everything in docs/systems/vizfold.md runs as it stands, on OpenFold's own files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.server_fixture import served
from tests.systems.pages import run_page
from tests.systems.test_vizfold_openfold_import import REAL, files_of
from tests.systems.test_vizfold_openfold_record import EXAMPLES
from tests.systems.vizfold_archives import FIRST, arrays_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    shutil.copytree(REAL / "openfold_1UBQ", tmp_path / "out")
    shutil.copytree(FIRST, tmp_path / FIRST.name)
    (tmp_path / "archive").mkdir()
    monkeypatch.chdir(tmp_path)
    with served((tmp_path / "archive").as_uri()) as url:
        names = run_page("vizfold.md", url)

    assert names["attached"].passes == 3
    assert files_of(tmp_path / "again") == files_of(tmp_path / "out")
    assert (tmp_path / "pass1/representations/1UBQ_pair_layer2.npy").exists()
    plain = tmp_path / "plain/attention_files_1UBQ/msa_row_attn_layer0.txt"
    assert arrays_of(tmp_path / "zarr/1g1j.vizfold.zarr").keys() == arrays_of(FIRST).keys()
    assert plain.read_bytes().startswith(b"Layer 0 Head 0\n")
