"""A D3-DNA run that was recorded becomes the files that upstream would have written.

The reference holds what happened in the very run that upstream's logger and sampler wrote
the other files of.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.models import Place
from recorder import TraceRecorder
from server.exporters import export
from tests.exporters.ranged import RangedFile, whole
from tests.importers.strict import hdf5_content, npz_content

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from archive_schema.store import Store
    from server.query import Archive

REAL = Path(__file__).parents[1] / "data" / "d3_dna"
STEPS = 32
METADATA = {
    "dataset": "deepstarr",
    "architecture": "transformer",
    "seed": 1001,
    "noise_schedule": {"type": "geometric", "sigma_min": 0.0001, "sigma_max": 20},
}


@pytest.fixture(scope="session")
def truth() -> Mapping[str, NDArray[Any]]:
    """Return states of 16 samples, scores of four, and the noise at each step."""
    with np.load(REAL / "sampling_reference.npz") as loaded:
        return {name: loaded[name] for name in loaded.files}


def recorder(store: Store, samples: int, **more: Any) -> TraceRecorder:
    return TraceRecorder(
        store, "run", system="d3-dna", metadata=METADATA, steps=STEPS, samples=samples, **more
    )


def record_batch(rec: TraceRecorder, truth: Mapping[str, NDArray[Any]], samples: slice) -> None:
    for n in range(STEPS):
        rec.record(
            n,
            samples=samples,
            timestep=float(truth["timestep"][n]),
            noise_level=float(truth["sigma"][n]),
            noise_rate=float(truth["dsigma"][n]),
            sequence=truth["x_states"][n, samples].astype(np.int64),
            score_matrix=truth["score"][n, samples],
            prob_matrix=truth["prob"][n, samples],
        )


def first_four(path: Path) -> bytes:
    """Return upstream's HDF5 file as it would be of four samples."""
    buffer = io.BytesIO()
    with h5py.File(path) as original, h5py.File(buffer, "w") as file:
        original.copy("metadata", file)
        file["metadata"].attrs["num_samples"] = 4
        for name, group in original["steps"].items():
            made = file.create_group(f"steps/{name}")
            made.attrs.update(group.attrs)
            for key, dataset in group.items():
                made[key] = dataset[:4]
    return buffer.getvalue()


def test_a_recorded_run_is_exported_as_upstreams_logger_wrote_it(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]
) -> None:
    """In two batches, in full precision, without a word of the file's format."""
    with recorder(store, 4) as rec:
        record_batch(rec, truth, slice(0, 2))
        record_batch(rec, truth, slice(2, 4))
        rec.outputs(final_sequence=truth["x_states"][33, :4].astype(np.int64))

    made = export(archive.run("run"), "h5")
    ours, theirs = (
        hdf5_content(data)
        for data in (whole(made.file), first_four(REAL / "sampling_visualization_data.h5"))
    )

    assert ours == theirs
    assert any("score_matrix is recorded as float32" in note for note in made.notes)
    assert any("no place for outputs/final_sequence" in note for note in made.notes)


def test_both_formats_of_a_recorded_run_hold_the_same(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]
) -> None:
    """And the one made of the other by way of an import would not differ."""
    with recorder(store, 4) as rec:
        record_batch(rec, truth, slice(0, 4))
    npz = npz_content(whole(export(archive.run("run"), "npz").file))

    with h5py.File(io.BytesIO(whole(export(archive.run("run"), "h5").file))) as file:
        steps = list(file["steps"].values())
        for key, name in (
            ("sequences", "sequence"),
            ("score_matrices", "score_matrix"),
            ("prob_matrices", "prob_matrix"),
        ):
            stacked = np.stack([step[name] for step in steps])
            assert npz[key] == (stacked.dtype.str, stacked.shape, stacked.tobytes())
    assert npz["meta_split"] == ("|O", (), None)
    assert npz["noise_schedule_sigma_max"] == ("<i8", (), np.int64(20).tobytes())
    assert npz["timesteps"][2] == truth["timestep"][:STEPS].tobytes()


def test_a_run_in_progress_is_exported_as_far_as_its_steps_are_whole(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]
) -> None:
    """The file of a growing run is a good file, and says how long it is."""
    with recorder(store, 4, commit_interval_s=0.0) as rec:
        for n in range(3):
            rec.record(n, samples=slice(0, 4), sequence=truth["x_states"][n, :4].astype(np.int64))
        rec.record(3, samples=slice(0, 4), timestep=0.5)
        rec.flush()
        made = export(archive.run("run"), "h5")
        data = whole(made.file)

    with h5py.File(io.BytesIO(data)) as file:
        assert list(file["steps"]) == ["step_0000", "step_0001", "step_0002"]
        assert file["metadata"].attrs["total_steps"] == 3
    assert any("steps 3 of run 'run'" in note for note in made.notes)


def test_a_run_of_which_nothing_is_recorded_is_no_file(archive: Archive, store: Store) -> None:
    with recorder(store, 4, seal_at_exit=False) as rec:
        rec.flush()
        with pytest.raises(NotFoundError) as caught:
            export(archive.run("run"), "h5")

    assert caught.value.kind is ErrorKind.NOT_RECORDED


@pytest.fixture
def sampled(archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]) -> Archive:
    """Return an archive with all 16 sequences of the reference run, at two steps, and final."""
    states = truth["x_states"].astype(np.int64)
    with recorder(store, 16) as rec:
        for start in range(0, 16, 8):
            for n in range(2):
                part = slice(start, start + 8)
                rec.record(n, samples=part, sequence=states[n, part])
            rec.outputs(samples=part, final_sequence=states[33, part])
    return archive


@pytest.mark.parametrize("format_", ["fasta", "txt", "csv"])
def test_final_sequences_are_the_bytes_that_upstreams_sampler_saves(
    sampled: Archive, format_: str
) -> None:
    made = export(sampled.run("run"), format_)

    assert whole(made.file) == (REAL / f"final_sequences.{format_}").read_bytes()
    assert made.notes == ()
    assert made.filename == f"run.{format_}"


def test_final_sequences_as_arrays_are_those_that_upstreams_sampler_saves(
    sampled: Archive, truth: Mapping[str, NDArray[Any]]
) -> None:
    run = sampled.run("run")
    npz, hdf5 = (whole(export(run, f"sequences-{kind}").file) for kind in ("npz", "h5"))

    assert npz_content(npz) == npz_content((REAL / "final_sequences.npz").read_bytes())
    assert hdf5_content(hdf5) == hdf5_content((REAL / "final_sequences.h5").read_bytes())
    with np.load(io.BytesIO(whole(export(run, "onehot-npz").file))) as loaded:
        one_hot = loaded["arr_0"]
    assert one_hot.shape == (16, 249, 4)
    np.testing.assert_array_equal(one_hot.argmax(-1), truth["x_states"][33])
    np.testing.assert_array_equal(one_hot.sum(-1), 1)


def test_any_range_of_a_text_is_that_of_the_whole(sampled: Archive) -> None:
    file = export(sampled.run("run"), "fasta", samples=slice(1, 12, 5)).file
    expected = (REAL / "final_sequences.fasta").read_bytes().split(b">")
    text = b"".join(b">" + expected[1 + n] for n in (1, 6, 11))

    assert whole(file) == text
    for start, stop in ((0, 5), (3, 300), (250, 520), (len(text) - 1, len(text))):
        assert b"".join(file.read(start, stop)) == text[start:stop]


def test_without_a_final_sequence_the_last_state_stands_in_and_it_is_said(
    archive: Archive, store: Store
) -> None:
    """It is the state before the last update: close, and not the same."""
    with recorder(store, 2) as rec:
        for n in range(2):
            tokens = np.full((2, 3), n + 3)
            rec.record(n, samples=slice(0, 2), sequence=tokens)

    made = export(archive.run("run"), "fasta")

    assert whole(made.file) == b">seq_0\nNNN\n>seq_1\nNNN\n"
    assert "before the update of step 1" in made.notes[0]


def test_a_run_without_sequences_has_no_fasta(archive: Archive, store: Store) -> None:
    with recorder(store, 2) as rec:
        rec.record(0, samples=slice(0, 2), score_matrix=np.zeros((2, 3, 4), np.float16))

    with pytest.raises(NotFoundError, match="neither outputs/final_sequence nor trace/sequence"):
        export(archive.run("run"), "fasta")


def test_the_viewers_json_holds_what_the_viewer_reads(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]
) -> None:
    """Cut to a few samples and steps, as the viewer wants it; what is not finite is null."""
    score = truth["score"][0, :4].copy()
    score[1, 0] = [np.inf, -np.inf, np.nan, 1.5]
    with recorder(store, 4) as rec:
        rec.declare("oracle_predictions", dims=("sample",))
        rec.declare("ground_truth_labels", place=Place.INPUTS, dims=("sample",))
        for n in range(4):
            rec.record(
                n,
                samples=slice(0, 4),
                timestep=1.0 - n / 4,
                noise_level=20.0 - n,
                sequence=truth["x_states"][n, :4].astype(np.int64),
                score_matrix=score,
                attribution_matrix=score,
                oracle_predictions=np.arange(4, dtype=np.float32),
            )
        rec.inputs(samples=slice(0, 4), ground_truth_labels=np.arange(4, dtype=np.float32))

    made = export(archive.run("run"), "json", steps=slice(0, 4, 2), samples=slice(1, 3))
    found = json.loads(whole(made.file))

    assert found["metadata"] == {
        "dataset": "deepstarr",
        "num_samples": 2,
        "sequence_length": 249,
        "total_steps": 2,
        "architecture": "transformer",
        "ground_truth_labels": [[1.0], [2.0]],
    }
    assert [step["step"] for step in found["steps"]] == [0, 2]
    first = found["steps"][0]
    assert list(first) == [
        "step", "timestep", "noise_level", "noise_rate", "oracle_mses",
        "sequences", "score_matrices", "attribution_matrices", "oracle_predictions",
    ]  # fmt: skip
    assert (first["timestep"], first["noise_level"], first["noise_rate"]) == (1.0, 20.0, None)
    assert first["oracle_mses"] == []
    assert first["oracle_predictions"] == [[1.0], [2.0]]
    assert first["sequences"] == truth["x_states"][0, 1:3].tolist()
    assert first["score_matrices"][0][0] == [None, None, None, 1.5]
    expected = score[2].astype(np.float16)
    np.testing.assert_array_equal(np.array(first["score_matrices"][1], np.float16), expected)


@pytest.mark.parametrize("format_", ["h5", "npz", "json", "csv", "generic-h5", "generic-npz"])
def test_any_range_of_any_file_is_that_of_the_whole(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]], format_: str
) -> None:
    """A download that goes on, and a reader that seeks, get the bytes of the same file."""
    with recorder(store, 4) as rec:
        record_batch(rec, truth, slice(0, 4))
    run = archive.run("run")
    data = whole(export(run, format_).file)
    rng = np.random.default_rng(0)
    lengths = (1, 2, 1000, 70_000, len(data))
    starts = [int(n) for n in rng.integers(0, len(data), 40)]

    for at, start in enumerate(starts):
        stop = start + lengths[at % len(lengths)]
        file = export(run, format_).file
        assert b"".join(file.read(start, stop)) == data[start:stop]


def test_files_are_laid_out_in_any_number_of_threads(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]
) -> None:
    """The HDF5 library keeps one table of open files for the whole process."""
    with recorder(store, 4) as rec:
        record_batch(rec, truth, slice(0, 4))
    run = archive.run("run")
    cuts = [slice(0, n) for n in range(1, 17)]
    expected = [whole(export(run, "h5", steps=cut).file) for cut in cuts]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda cut: whole(export(run, "h5", steps=cut).file), cuts))

    assert found == expected


def test_h5py_reads_a_run_through_ranges_and_fetches_little(
    archive: Archive, store: Store, truth: Mapping[str, NDArray[Any]]
) -> None:
    """As over HTTP: to open the file and read one slice is not to download it."""
    with recorder(store, 4) as rec:
        record_batch(rec, truth, slice(0, 4))
    exported = export(archive.run("run"), "h5").file
    file = RangedFile(exported)

    with h5py.File(file) as opened:
        found = opened["steps/step_0017/score_matrix"][3]

    np.testing.assert_array_equal(found, truth["score"][17, 3].astype(np.float16))
    assert file.read_nbytes < exported.size // 10
