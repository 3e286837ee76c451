"""DNA-Diffusion's files come back byte for byte, and what is odd in them is told."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from recorder.importers import import_file
from server.exporters import MadeFile, export, export_tree
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from recorder.importers import ImportReport
    from server.query import RunView

REAL: Final = Path(__file__).parents[1] / "data/dna_diffusion"
WRITTEN: Final = (
    "HepG2_ENCLB029COU.txt",
    "HepG2_ENCLB029COU_save_timesteps.txt",
    "cross_att_values_HepG2_ENCLB029COU.npy",
)
"""What its scripts wrote; the other files there are captures of what they keep for themselves."""


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(store: Store) -> Iterator[Archive]:
    with Archive(store) as archive:
        yield archive


def taken(store: Store, path: Path, run: str = "r") -> ImportReport:
    return import_file("dna-diffusion", path, store, run)


def tree_of(run: RunView) -> dict[str, bytes]:
    return {file.path: b"".join(MadeFile(file).parts()) for file in export_tree(run).files}


def values(run: RunView, name: str, place: Place = Place.TRACE, **selectors: Any) -> Any:
    return run.field(name, place=place).select(selectors).array()


def table(rows: list[list[str]]) -> str:
    """Return a table as pandas writes it."""
    lines = [list(map(str, range(len(rows[0])))), *rows]
    return "".join("\t".join(line) + "\n" for line in lines)


def test_what_the_scripts_wrote_comes_back_byte_for_byte(store: Store, archive: Archive) -> None:
    """Final sequences, all steps of them, and the cross maps; the same files again are nothing."""
    report = taken(store, REAL)
    again = taken(store, REAL)

    assert (report.files, report.steps, report.samples, report.sealed) == (3, 50, 4, True)
    assert not report.known
    assert again.known
    left_out = ("README.md", "reference_layers_step_0000.npz", "reference_run.npz", "run.json")
    assert report.odd == tuple(
        f"{name} is nothing that DNA-Diffusion writes: left out" for name in left_out
    )
    run = archive.run("r")
    made = tree_of(run)
    assert {name: made[name] for name in WRITTEN} == {
        name: (REAL / name).read_bytes() for name in WRITTEN
    }
    assert set(made) == {*WRITTEN, "HepG2_ENCLB029COU.fasta"}
    with np.load(REAL / "reference_run.npz") as real:
        tokens, t_index = real["tokens"], real["t_index"]
    np.testing.assert_array_equal(values(run, "tokens"), tokens)
    timesteps = run.ledger.step_coordinates["timestep"].array(range(50))
    np.testing.assert_array_equal(timesteps, t_index)


def test_a_folder_of_several_cell_types_is_one_run(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """As the scripts leave them: sequences in data/outputs, cross maps of the last batch beside."""
    outputs = tmp_path / "data/outputs"
    outputs.mkdir(parents=True)
    (outputs / "K562_B.txt").write_text(table([["AC", "CA"], ["GG", "GT"], ["TT", "TA"]]))
    (outputs / "GM12878_A.txt").write_text("CC\nAG")
    (outputs / "hESCT0_C.txt").write_text(table([["AA", "AC"]]))
    cross = np.arange(2 * 2 * 4 * 2, dtype=np.float32).reshape(2, 2, 1, 4, 2)
    np.save(tmp_path / "cross_att_values_K562_B.npy", cross)
    report = taken(store, tmp_path)

    run = archive.run("r")
    assert not report.odd
    assert report.missing[2:] == (
        "GM12878_A: states before the final one: no table of steps",
        "K562_B: cross maps of samples 2:3: the file holds those of the last batch, 3:5",
    )
    assert list(run.ledger.sample_coordinates["tag"].values.values()) == (
        ["GM12878_A"] * 2 + ["K562_B"] * 3 + ["hESCT0_C"]
    )
    assert set(run.ledger.sample_coordinates["cell_type"].values.values()) == {
        "GM12878", "K562", "hESCT0"
    }  # fmt: skip
    final = values(run, "final_sequence", Place.OUTPUTS)
    assert final.tolist() == [[1, 1], [0, 2], [1, 0], [2, 3], [3, 0], [0, 1]]
    assert values(run, "tokens", sample=slice(2, 6))[0].tolist() == [[0, 1], [2, 2], [3, 3], [0, 0]]
    np.testing.assert_array_equal(values(run, "cross", sample=slice(3, 5)), cross)
    made = tree_of(run)
    assert made["GM12878_A.txt"] == b"CC\nAG"
    assert made["K562_B_save_timesteps.txt"] == (outputs / "K562_B.txt").read_bytes()
    assert made["K562_B.txt"] == b"CA\nGT\nTA"
    assert made["K562_B.fasta"] == b">seq_2 K562_B\nCA\n>seq_3 K562_B\nGT\n>seq_4 K562_B\nTA\n"
    crossed = np.load(io.BytesIO(made["cross_att_values_K562_B.npy"]))
    np.testing.assert_array_equal(crossed, cross)
    assert "GM12878_A_save_timesteps.txt" not in made
    whole = export(run, "txt", fields=["final_sequence"])
    assert b"".join(whole.read()) == b"CC\nAG\nCA\nGT\nTA\nAC"
    assert "cell_type= asks for one" in whole.notes[0]


def test_what_is_odd_in_the_files_is_told_and_kept(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """Blank lines, letters that are no bases, sequences of other lengths, files of other runs."""
    (tmp_path / "final_A.txt").write_bytes(b"ACGT\r\n\nNac\nTTTTT")
    (tmp_path / "B.txt").write_text(table([["AC", "GT"]]))
    (tmp_path / "B_save_timesteps.txt").write_text(table([["AC", "GA"]]))
    (tmp_path / "C.txt").write_text("")
    (tmp_path / "D.txt").write_text("AC\tGT\n")
    (tmp_path / "E.txt").write_text("12N4\n")
    (tmp_path / "F.txt").write_text("\n\n")
    (tmp_path / "G.txt").write_text("0\t0\nAC\tGT\n")
    for name, given in (
        ("B", np.zeros((2, 2, 1, 4, 2), np.float32)),
        ("H", np.zeros((2, 1, 1, 4, 2), np.float32)),
        ("A", np.zeros((2, 3, 1, 4, 4), np.float16)),
    ):
        np.save(tmp_path / f"cross_att_values_{name}.npy", given)
    short = (tmp_path / "cross_att_values_A.npy").read_bytes()[:-1]
    (tmp_path / "cross_att_values_C.npy").write_bytes(short)
    (tmp_path / "cross_att_values_D.npy").write_bytes(b"\x93NUMPY\x01\x00nothing")
    report = taken(store, tmp_path)

    said = "\n".join(report.odd)
    for sentence in (
        "final_A.txt: 1 blank lines: passed over",
        "final_A.txt: 1 lines end in a carriage return",
        "final_A.txt: 3 letters other than ACGT: kept as their ASCII codes",
        "final_A.txt: sequences of 3 to 5 letters",
        "B_save_timesteps.txt: expected the final sequences of B.txt: left out",
        "C.txt: is empty: left out",
        "D.txt: line 1: expected 1 sequences of one length, found 2",
        "E.txt: line 1: expected letters, found b'12N4'",
        "F.txt: has no sequences",
        "G.txt: expected a header of rising steps, found b'0\\t0'",
        "cross_att_values_B.npy: expected 2 steps of at most 1 samples",
        "cross_att_values_H.npy: there are no sequences of H: left out",
        "cross_att_values_C.npy: expected 192 bytes of float16 (2, 3, 1, 4, 4), found 191",
        "cross_att_values_D.npy: expected a .npy file",
        "cross_att_values_A.npy has 4 positions and the sequences have 5 letters",
    ):
        assert sentence in said, report.odd
    run = archive.run("r")
    final = values(run, "final_sequence", Place.OUTPUTS).tolist()
    assert final == [
        [0, 1, 2, 3, 255], [78, 97, 99, 255, 255], [3, 3, 3, 3, 3], [2, 3, 255, 255, 255]
    ]  # fmt: skip
    assert list(run.ledger.sample_coordinates["length"].values.values()) == [4, 3, 5, 2]
    made = tree_of(run)
    assert made["A.txt"] == b"ACGT\nNac\nTTTTT"
    assert made["B_save_timesteps.txt"] == (tmp_path / "B.txt").read_bytes()
    assert np.load(io.BytesIO(made["cross_att_values_A.npy"])).shape == (2, 3, 1, 4, 4)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "such as K562_ENCLB843GMH.txt; found nothing"),
        ({"run.json": "{}"}, "found run.json is nothing that DNA-Diffusion writes"),
        ({"A.txt": "", "B.txt": "ACGT 3\n"}, "A.txt: is empty.*B.txt: line 1: expected letters"),
        ({"A.txt": "0\t1\nA\tC\n", "B.txt": "0\nA\n"}, "the same steps in all tables, found"),
        ({"A.txt": "0\t1\nA\tC\nAC\tC\n"}, "line 3: expected 2 sequences of one length, found 2"),
    ],
)
def test_a_folder_that_makes_no_run_is_refused(
    store: Store, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        taken(store, tmp_path)

    assert caught.value.kind is ErrorKind.FILE_INVALID


def test_a_single_file_is_a_run_too_and_others_are_a_conflict(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    shutil.copy(REAL / WRITTEN[0], tmp_path)
    report = taken(store, tmp_path / WRITTEN[0])

    assert (report.steps, report.samples) == (0, 4)
    run = archive.run("r")
    assert tree_of(run)[WRITTEN[0]] == (REAL / WRITTEN[0]).read_bytes()
    path = tmp_path / WRITTEN[0]
    path.write_bytes(path.read_bytes().replace(b"CTTCT", b"CTTCA", 1))
    with pytest.raises(ConflictError, match="is not this file"):
        taken(store, path)
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        taken(store, tmp_path / "nothing.txt", "s")
