"""A file that is imported and exported again is the file that upstream's logger wrote."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from recorder.importers import import_file
from server.exporters import export
from tests.exporters.ranged import whole
from tests.importers.d3_files import (
    LoggedRun,
    evaluated,
    generation_0,
    generation_1,
    generation_a,
    generation_s,
    sampled,
)
from tests.importers.strict import hdf5_content, npz_content

if TYPE_CHECKING:
    from pathlib import Path

    from archive_schema.store import Store
    from server.query import Archive

REAL = ("sampling_visualization_data", "evaluation_visualization_data")
CONTENT = {"h5": hdf5_content, "npz": npz_content}


def exported(archive: Archive, run: str, format: str, **cut: Any) -> bytes:  # noqa: A002
    return whole(export(archive.run(run), format, **cut).file)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("source", ["h5", "npz"])
def test_real_files_come_back_whole_also_in_the_other_format(
    archive: Archive, store: Store, real_files: Path, name: str, source: str
) -> None:
    """Every group, attribute, dtype, shape and byte; both formats had the same log."""
    report = import_file("d3-dna", real_files / f"{name}.{source}", store, "run")

    for target, content in CONTENT.items():
        found = content(exported(archive, "run", target))
        expected = content((real_files / f"{name}.{target}").read_bytes())

        assert found == expected
        assert list(found) == list(expected)
        assert export(archive.run("run"), target).notes == ()
    assert (report.generation, report.missing, report.odd) == ("B", (), ())


def odd_runs() -> dict[str, LoggedRun]:
    """Return runs of every generation and of every odd shape seen in files."""
    missing_split = sampled()
    many = sampled(3, first=9999)
    failed_first = evaluated()
    for name in ("oracle_mse", "oracle_predictions"):
        del failed_first.steps[0][name]
    one_value = evaluated()
    one_output = evaluated(outputs=1)
    for values in one_value.steps.values():
        values["oracle_mse"] = np.array(0.5, np.float32)
        values["oracle_predictions"] = np.arange(3, dtype=np.float32)
    one_output.datasets["ground_truth_predictions"] = np.arange(3, dtype=np.float32)
    overflowing = sampled()
    overflowing.steps[0]["score_matrix"][0, 0] = [np.inf, -np.inf, np.nan, -0.0]
    no_schedule = sampled()
    no_schedule.schedule = None
    wide = sampled()
    for values in wide.steps.values():
        values["score_matrix"] = values["score_matrix"].astype(np.float32)
    typed = sampled()
    typed.attributes |= {"sigma": np.float32(0.1), "note": "ünï", "limit": float("inf")}
    typed.schedule = {"type": "linear", "sigma_max": 20.0}
    more = sampled()
    for n, values in more.steps.items():
        values |= {"stag_scores": values["score_matrix"] * 2, "lambda_t": n * 0.5}
    fortran = evaluated()
    labels = fortran.datasets["ground_truth_labels"]
    fortran.datasets["ground_truth_labels"] = np.asfortranarray(labels)
    other_original = evaluated()
    other_original.datasets["original_samples"] = np.zeros((5, 7), np.int64)
    ints = sampled()
    for values in ints.steps.values():
        values["sequence"] = values["sequence"].astype(np.int32)
    return {
        "sampled": missing_split,
        "evaluated": evaluated(),
        "0": generation_0(),
        "1": generation_1(),
        "A": generation_a(),
        "S one step": generation_s(245),
        "S all steps": generation_s(0, 1, 2, 244, 245),
        "step_10000": many,
        "absorbing": sampled(letters=5),
        "one sample": sampled(samples=1),
        "one step": sampled(1),
        "many samples": sampled(2, samples=300),
        "oracle failed at first": failed_first,
        "0-d oracle": one_value,
        "one output": one_output,
        "overflow": overflowing,
        "no schedule": no_schedule,
        "float32": wide,
        "typed attributes": typed,
        "more fields": more,
        "Fortran order": fortran,
        "other originals": other_original,
        "int32 tokens": ints,
    }


@pytest.mark.parametrize("name", odd_runs())
def test_every_generation_and_odd_shape_comes_back_as_hdf5(
    archive: Archive, store: Store, tmp_path: Path, name: str
) -> None:
    path = odd_runs()[name].write_hdf5(tmp_path / "file.h5")

    import_file("d3-dna", path, store, "run")

    assert hdf5_content(exported(archive, "run", "h5")) == hdf5_content(path.read_bytes())


@pytest.mark.parametrize(
    "name",
    # Upstream fails to save the others as NPZ, or saves what it lacks at the first step nowhere.
    [name for name in odd_runs() if name not in ("0", "oracle failed at first")],
)
def test_every_generation_and_odd_shape_comes_back_as_npz(
    archive: Archive, store: Store, tmp_path: Path, name: str
) -> None:
    path = odd_runs()[name].write_npz(tmp_path / "file.npz")

    import_file("d3-dna", path, store, "run")

    assert npz_content(exported(archive, "run", "npz")) == npz_content(path.read_bytes())


@pytest.mark.parametrize("name", [name for name in odd_runs() if name != "0"])
def test_an_hdf5_file_becomes_the_npz_that_upstream_would_have_saved(
    archive: Archive, store: Store, tmp_path: Path, name: str
) -> None:
    """Also where an oracle failed at the first step: then its keys are nowhere."""
    run = odd_runs()[name]
    import_file("d3-dna", run.write_hdf5(tmp_path / "file.h5"), store, "run")
    theirs = npz_content(run.write_npz(tmp_path / "file.npz").read_bytes())

    ours = npz_content(exported(archive, "run", "npz"))

    assert ours == theirs


def test_what_an_npz_of_upstream_could_not_hold_is_nan_or_left_out_and_said(
    archive: Archive, store: Store, tmp_path: Path
) -> None:
    """Upstream fails to save a last step without noise_rate."""
    import_file("d3-dna", generation_0().write_hdf5(tmp_path / "file.h5"), store, "run")

    made = export(archive.run("run"), "npz")

    with np.load(io.BytesIO(whole(made.file))) as loaded:
        assert np.isnan(loaded["noise_rates"]).tolist() == [False] * 4 + [True]
        assert loaded["sequences"].shape == (5, 3, 7)
    assert any("noise_rate is not recorded at steps 4" in note for note in made.notes)


def test_the_documented_way_of_loading_works(
    archive: Archive, store: Store, real_files: Path
) -> None:
    """What users' notebooks do with the logger's files, in both formats."""
    import_file("d3-dna", real_files / "evaluation_visualization_data.h5", store, "run")

    with h5py.File(io.BytesIO(exported(archive, "run", "h5")), "r") as f:
        metadata = dict(f["metadata"].attrs)
        assert f"{metadata['dataset']}: {metadata['num_samples']}" == "deepstarr: 8"
        steps = sorted(f["steps"].keys())
        trajectory = []
        for name in steps:
            group = f["steps"][name]
            trajectory.append((group.attrs["timestep"], group.attrs["noise_level"]))
            sequence, score = group["sequence"][:], group["score_matrix"][:]
            prob, mse = group["prob_matrix"][:], group["oracle_mse"][:]
            assert score.shape == prob.shape == (*sequence.shape, 4)
            assert mse.shape == sequence.shape[:1]
    with np.load(io.BytesIO(exported(archive, "run", "npz"))) as data:
        assert str(data["meta_dataset"]) == metadata["dataset"]
        assert data["sequences"].shape == (len(steps), 8, 249)
        assert list(zip(data["timesteps"], data["noise_levels"], strict=True)) == trajectory


def test_a_generation_without_prob_matrix_raises_as_upstreams_file_does(
    archive: Archive, store: Store, tmp_path: Path
) -> None:
    """Nothing is made up for a field that was never there."""
    import_file("d3-dna", generation_0().write_hdf5(tmp_path / "file.h5"), store, "run")

    with h5py.File(io.BytesIO(exported(archive, "run", "h5"))) as f:
        with pytest.raises(KeyError):
            f["steps/step_0000"]["prob_matrix"]


def test_a_cut_file_describes_itself(archive: Archive, store: Store, real_files: Path) -> None:
    """Readers loop over total_steps and num_samples."""
    import_file("d3-dna", real_files / "evaluation_visualization_data.h5", store, "run")

    data = exported(archive, "run", "h5", steps=slice(0, 4), samples=slice(2, 5))

    with (
        h5py.File(io.BytesIO(data)) as f,
        h5py.File(real_files / "evaluation_visualization_data.h5") as original,
    ):
        assert f["metadata"].attrs["num_samples"] == 3
        assert f["metadata"].attrs["total_steps"] == 4
        assert f["metadata"].attrs["sequence_length"] == 249
        assert list(f["steps"]) == [f"step_{n:04d}" for n in range(4)]
        for path in ("steps/step_0003/score_matrix", "metadata/original_samples"):
            np.testing.assert_array_equal(f[path], original[path][2:5])
