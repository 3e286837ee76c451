"""BATCHIE's jobs are recorded by writers of their own, and what they record is what they saved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from archive_schema.errors import InvalidInputError
from examples import record_batchie
from examples.record_batchie import (
    DRAWS,
    JOBS,
    ChunkedDistanceMatrix,
    ChunkedScoresHolder,
    Sample,
    ThetaHolder,
    record,
)
from recorder import TraceRecorder
from recorder.integrations.batchie import attach
from server.query import Archive
from server.systems.batchie import Simulation, distances, thetas
from tests.importers.test_batchie_round_trip import REAL, exported, tree_of

if TYPE_CHECKING:
    from archive_schema.store import Store


def test_jobs_that_run_at_the_same_time_make_one_run(folder_store: Store, tmp_path: Path) -> None:
    """A chain as a process, all else meanwhile; whoever leaves last seals."""
    folder = tmp_path / "out/iter_0/plate_0/synth"
    folder.mkdir(parents=True)
    command = [sys.executable, record_batchie.__file__, folder_store.url, "--run", "run"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    first, *others = JOBS
    with subprocess.Popen(
        [*command, "--folder", str(folder), "--job", first], env=environment
    ) as process:
        for job in others:
            record(folder_store.url, "run", folder, job)
    assert process.returncode == 0

    with Archive(folder_store) as archive:
        run = archive.run("run")
        simulation = Simulation(run)
        dims, stacked, _ = thetas(simulation, 0).parameter("W", None)
        draws = [
            run.field("W", layer=f"thetas_1.draw_{draw}").select({"step": 0}).array()
            for draw in range(DRAWS)
        ]
        again = exported(run)

        assert run.sealed
        assert distances(simulation, 0).complete
    assert dims == ("chain", "draw", "sample_id", "embedding")
    np.testing.assert_array_equal(stacked[1], draws)
    assert again == tree_of(tmp_path / "out")


def test_draws_of_a_chain_that_broke_off_are_there(folder_store: Store) -> None:
    holder = ThetaHolder(5)
    before = vars(ThetaHolder).copy()
    with (
        pytest.raises(ZeroDivisionError),
        TraceRecorder(folder_store, "run", system="batchie", metadata={"screen": "s"}) as rec,
        attach(rec, ThetaHolder, step=0, iter=0, plate=0, chain=3),
    ):
        for draw in range(2):
            holder.add_theta(Sample(np.full((2, 2), draw), np.arange(3.0), 0.5))
        raise ZeroDivisionError

    with Archive(folder_store) as archive:
        run = archive.run("run")
        found = run.field("W", layer="thetas_3.draw_1").select({"step": 0}).array()
        layers = run.layers()
    np.testing.assert_array_equal(found, np.ones((2, 2)))
    assert layers == ["thetas_3.draw_0", "thetas_3.draw_1"]
    assert dict(vars(ThetaHolder)) == dict(before)


def test_real_files_are_taken_as_an_import_takes_them(folder_store: Store, tmp_path: Path) -> None:
    """Of every kind, screens with their experiments and files that no class saves too."""
    place = "iter_0/plate_0/unmasked_screen"
    files = [path for path in sorted((REAL / place).iterdir()) if path.is_file()]
    with (
        TraceRecorder(
            folder_store, "run", system="batchie", metadata={"screen": "unmasked_screen"}
        ) as rec,
        attach(rec, step=0, iter=0, plate=0) as job,
    ):
        for path in files:
            job.take(path)

    for path in files:
        target = tmp_path / "wanted" / place / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    with Archive(folder_store) as archive:
        run = archive.run("run")
        again = exported(run)
        names = run.ledger.sample_coordinates
    assert again == tree_of(tmp_path / "wanted")
    assert {"plate_name", "sample_name"} <= set(names)


def test_real_values_that_jobs_save_are_the_real_files(folder_store: Store, tmp_path: Path) -> None:
    """Draws, distances and scores of the real plate folder, added and saved one by one."""
    place = "iter_0/plate_0/unmasked_screen"
    folder = tmp_path / place
    folder.mkdir(parents=True)
    holders = (ThetaHolder, ChunkedDistanceMatrix, ChunkedScoresHolder)
    draws = [read_draws(REAL / place / f"thetas_{chain}.h5") for chain in (0, 1)]
    for chain, made in enumerate(draws):
        with (
            TraceRecorder(
                folder_store,
                "run",
                system="batchie",
                metadata={"screen": "unmasked_screen"},
                writer=f"chain_{chain}",
                seal_at_exit=False,
            ) as rec,
            attach(rec, *holders, step=0, iter=0, plate=0, chain=chain),
        ):
            save_again(REAL / place, folder, chain, made)

    with Archive(folder_store) as archive:
        run = archive.run("run")
        for chain, made in enumerate(draws):
            for at, draw in enumerate(made):
                for name, value in draw.values.items():
                    field = run.field(name, layer=f"thetas_{chain}.draw_{at}")
                    found = field.select({"step": 0}).array()
                    assert found.dtype == value.dtype
                    np.testing.assert_array_equal(found, value)
        again = exported(run)
    wanted = tree_of(REAL)
    assert len(again) == 6
    assert again == {path: wanted[path] for path in again}


@dataclass
class SparseDrugComboMCMCSample:
    """A draw as BATCHIE's model of that name has them."""

    values: dict[str, Any]

    def private_parameters_dict(self) -> dict[str, Any]:
        """Return what is this draw's own."""
        return self.values


SparseDrugComboMCMCSample.__module__ = "batchie.models.sparse_combo"


def read_draws(path: Path) -> list[SparseDrugComboMCMCSample]:
    with h5py.File(path) as file:
        groups = [file[f"private_params/{at}"] for at in range(file.attrs["n_thetas"])]
        arrays = [{name: one[()] for name, one in group.items()} for group in groups]
        return [
            SparseDrugComboMCMCSample({**found, **group.attrs})
            for found, group in zip(arrays, groups, strict=True)
        ]


def save_again(real: Path, folder: Path, number: int, draws: list[Any]) -> None:
    """Do what the jobs of this number did that saved the real files."""
    thetas = ThetaHolder(len(draws))
    for draw in draws:
        thetas.add_theta(draw)
    thetas.save_h5(str(folder / f"thetas_{number}.h5"))
    name = f"distance_matrix_chunk_{number}.h5"
    with h5py.File(real / name) as file:
        distances = ChunkedDistanceMatrix(int(file["size"][0]))
        columns = (file[one][()] for one in ("row_indices", "col_indices", "values"))
        for entry in zip(*columns, strict=True):
            distances.add_value(*entry)
    distances.save(str(folder / name))
    name = f"score_chunk_{number}.h5"
    with h5py.File(real / name) as file:
        scores = ChunkedScoresHolder(len(file["scores"]))
        for entry in zip(file["plate_ids"][()], file["scores"][()], strict=True):
            scores.add_score(*entry)
    scores.save_h5(str(folder / name))


def test_what_is_no_file_of_a_plate_folder_is_refused(folder_store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "thetas_0.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut short")
    with TraceRecorder(folder_store, "run", system="batchie") as rec:
        with pytest.raises(InvalidInputError, match="save_h5"):
            attach(rec, Sample, step=0, iter=0, plate=0)
        with attach(rec, ChunkedScoresHolder, step=0, iter=0, plate=0) as job:
            for name in ("notes.txt", "thetas_0.h5", "nothing.h5"):
                with pytest.raises(InvalidInputError, match=name):
                    job.take(tmp_path / name)
