"""A refused import says what lies at the path, and which system that looks like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from archive_schema.errors import ArchiveError, ErrorKind
from archive_schema.records import run_ids
from recorder.importers import import_file, importable_systems
from recorder.importers.registry import importer

if TYPE_CHECKING:
    from archive_schema.store import Store

DATA = Path(__file__).parents[1] / "data"
FILE = "d3_dna/evaluation_visualization_data"


@pytest.mark.parametrize(
    ("system", "path", "said"),
    [
        ("batchie", "no-such-folder", "there is no such file or folder"),
        ("d3-dna", "no-such-file.h5", "there is no file"),
        ("batchie", "", "it is an empty folder"),
        ("batchie", f"{FILE}.h5", "it looks like d3-dna (steps/step_0000)"),
        ("batchie", f"{FILE}.npz", "it looks like d3-dna (sequences.npy)"),
        ("d3-dna", "batchie/retrospective_sim", "it looks like batchie (iter_0/plate_0)"),
        ("d3-dna", "batchie", "batchie (retrospective_sim/iter_0/plate_0)"),
        ("batchie", "batchie", "in retrospective_sim/: name that folder"),
        ("batchie", "d3_dna/final_sequences.fasta", "it is a file, no folder"),
        ("batchie", "ftp://127.0.0.1:1/out", "refused"),
    ],
)
def test_what_lies_there_is_said(
    folder_store: Store, tmp_path: Path, system: str, path: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    url = path if "://" in path else str(DATA / path if path else tmp_path / "empty")

    with pytest.raises(ArchiveError) as caught:
        import_file(system, url, folder_store, "run")

    assert said in str(caught.value)
    assert list(run_ids(folder_store)) == []


def test_every_importer_that_is_named_is_there() -> None:
    """Each is imported only when it is asked for, and a typing error would show late."""
    assert all(importer(system).signs for system in importable_systems())


def test_a_flag_that_the_system_does_not_know_is_refused(folder_store: Store) -> None:
    with pytest.raises(ArchiveError, match="shapes") as caught:
        import_file("dmd2", DATA, folder_store, "run", flags={"shape": "3"})

    assert caught.value.kind is ErrorKind.INVALID_PARAMETER
