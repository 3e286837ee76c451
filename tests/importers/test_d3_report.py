"""What an import says of a file: which generation it is, what it lacks, what is odd in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from archive_schema.models import Place
from recorder.importers import import_file
from tests.importers.d3_files import (
    LoggedRun,
    evaluated,
    generation_0,
    generation_1,
    generation_a,
    generation_s,
    sampled,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archive_schema.store import Store
    from recorder.importers import ImportReport
    from server.query import Archive


def report_of(run: LoggedRun, store: Store, folder: Path) -> ImportReport:
    return import_file("d3-dna", run.write_hdf5(folder / "file.h5"), store, "run")


@pytest.mark.parametrize(
    ("make", "generation", "missing"),
    [
        (generation_0, "0", ("prob_matrix at every step", "noise_rate at steps 4")),
        (
            generation_1,
            "1",
            (
                "oracle_predictions at every step",
                "metadata original_samples",
                "metadata ground_truth_labels",
                "metadata ground_truth_predictions",
                "metadata dataset_indices",
            ),
        ),
        (
            generation_a,
            "A",
            (
                "metadata ground_truth_labels",
                "metadata ground_truth_predictions",
                "metadata dataset_indices",
            ),
        ),
        (evaluated, "B", ()),
        (sampled, "B", ()),
        (
            lambda: generation_s(245),
            "S",
            (
                "metadata save_oracle_mse",
                "prob_matrix at every step",
                "noise_rate at every step",
            ),
        ),
    ],
    ids=["0", "1", "A", "B evaluated", "B sampled", "S"],
)
def test_a_generation_is_told_by_what_a_file_holds(
    store: Store,
    tmp_path: Path,
    make: Callable[[], LoggedRun],
    generation: str,
    missing: tuple[str, ...],
) -> None:
    report = report_of(make(), store, tmp_path)

    assert report.generation == generation
    assert report.missing == missing


def test_the_report_counts_what_was_found(store: Store, tmp_path: Path) -> None:
    """Numbers in the metadata say what was planned."""
    report = report_of(generation_s(0, 245), store, tmp_path)

    assert (report.run, report.steps, report.samples, report.known) == ("run", 2, 3, False)
    assert "total_steps says 250; there are 2" in report.odd


def test_an_oracle_that_failed_is_missing_at_those_steps(store: Store, tmp_path: Path) -> None:
    run = evaluated(6)
    for step in (1, 2, 3, 5):
        del run.steps[step]["oracle_mse"]

    report = report_of(run, store, tmp_path)

    assert report.missing == ("oracle_mse at steps 1:4,5",)


def test_values_that_float16_could_not_hold_are_counted(store: Store, tmp_path: Path) -> None:
    run = sampled()
    run.steps[1]["score_matrix"][0, 0, :2] = np.inf

    report = report_of(run, store, tmp_path)

    assert any("score_matrix: 2 values are infinite" in odd for odd in report.odd)


def test_what_is_not_imported_is_named(store: Store, archive: Archive, tmp_path: Path) -> None:
    """Nothing is lost without a word."""
    path = sampled().write_hdf5(tmp_path / "file.h5")
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 3
        file["extra"] = np.arange(3)
        file["metadata"].attrs["imported"] = "x"
        file["steps/step_0001"].attrs["step"] = 7
        file["steps/step_0002"].attrs["range"] = [0, 1]
        file["steps/step_0002/score_matrix"].attrs["unit"] = "1"
        file["steps/final"] = np.arange(3)
        file["steps/step_0003/names"] = ["a", "b"]
        file["steps/step_0003/samples"] = np.arange(3)
        file["metadata/nested/inner"] = np.arange(3)

    report = import_file("d3-dna", path, store, "run")

    said = "\n".join(report.odd)
    for part in (
        "attribute 'version' of / ", "/extra ", "'imported' of /metadata", "says that it is step 7",
        "'range' of /steps/step_0002", "'unit' of /steps/step_0002/score_matrix", "/steps/final",
        "/steps/step_0003/names", "/steps/step_0003/samples", "/metadata/nested",
    ):  # fmt: skip
        assert part in said
    assert archive.run("run").steps == (0, 1, 2, 3)
    assert {f.spec.name for f in archive.run("run").fields()} == {
        "sequence",
        "score_matrix",
        "prob_matrix",
    }


def test_an_imported_run_is_served_like_a_recorded_one(
    store: Store, archive: Archive, real_files: Path
) -> None:
    """Axes have names, tokens are ids, samples are found by their place in the data set."""
    import_file("d3-dna", real_files / "evaluation_visualization_data.npz", store, "run")
    run = archive.run("run")
    score = run.field("score_matrix")

    with h5py.File(real_files / "evaluation_visualization_data.h5") as file:
        expected = file["steps/step_0017/score_matrix"][3:5]
        indices = file["metadata/dataset_indices"][()].tolist()
    found = score.select({"step": 17, "sample": slice(3, 5)}).array()

    np.testing.assert_array_equal(found, expected)
    assert score.dims == ("step", "sample", "position", "channel")
    assert run.field("sequence").spec.stored_dtype == "uint8"
    assert run.field("original_samples", place=Place.INPUTS).dtype == np.int64
    assert run.ledger.step_coordinates["timestep"].values[0] == 1.0
    assert run.ledger.sample_coordinates["dataset_index"].array(range(8)).tolist() == indices
    assert run.manifest.metadata["noise_schedule"] == {
        "type": "geometric",
        "sigma_min": 0.0001,
        "sigma_max": 20,
    }
    assert run.sealed


def test_progress_counts_up_to_the_whole(store: Store, real_files: Path) -> None:
    seen: list[tuple[int, int]] = []

    import_file(
        "d3-dna",
        real_files / "sampling_visualization_data.npz",
        store,
        "run",
        progress=lambda done, total: seen.append((done, total)),
    )

    assert len(seen) == 32
    assert seen == sorted(seen)
    assert seen[-1] == (24 * 249 * 16 * 32, 24 * 249 * 16 * 32)


def test_large_steps_are_taken_over_in_tiles(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    """A reader of a few samples, and the importer's memory, want no tile of a whole step."""
    path = sampled(2, samples=300).write_npz(tmp_path / "file.npz")

    import_file("d3-dna", path, store, "run")

    ledger = archive.run("run").field("score_matrix").ledger
    assert ledger.counts([0, 1]).tolist() == [[128, 128, 44]] * 2
