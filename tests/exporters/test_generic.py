"""Runs of any system as plain HDF5 and NPZ."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place, StepColumn
from server.exporters import export, formats_of
from tests.exporters.ranged import whole
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from server.query import Archive

RNG = np.random.default_rng(0)
SCORE = RNG.normal(size=(3, 4, 2)).astype(np.float32)
LAYER = RNG.normal(size=(3, 4, 5)).astype(np.float16)
LABELS = np.array(["a", "ü", "bc", ""])
IMAGE = RNG.integers(0, 255, (2, 2), np.uint8)
RAGGED = [np.arange(n + 1, dtype=np.int32) for n in range(2)]


@pytest.fixture
def recorded(archive: Archive) -> Archive:
    """Return an archive with a run of every kind of field."""
    run = Builder(archive.store, steps=3, samples=4)
    run.declare(
        spec_of("score", SCORE[0], tile=3),
        spec_of("output", LAYER[0], place=Place.LAYERS, layer="blocks/1.mlp", tile=4, every=2),
        spec_of("labels", LABELS, place=Place.INPUTS, tile=4),
        spec_of("image", IMAGE, place=Place.OUTPUTS),
        spec_of("plates", RAGGED[0], ragged=True),
    )
    for step in range(3):
        run.put_step("trace/score", SCORE[step], step)
    for step in (0, 2):
        run.put("layers/blocks%2F1.mlp/output", LAYER[step], step)
    run.put("inputs/labels", LABELS).put("outputs/image", IMAGE)
    columns = (
        StepColumn(name="sigma", dtype="float64", step=(0, 1), value=(0.5, "NaN")),
        StepColumn(name="phase", dtype="str", step=(0, 1, 2), value=("a", "b", "c")),
    )
    plates = [run.columns("trace/plates", step, 0, values) for step, values in enumerate(RAGGED)]
    run.commit(*plates, coordinates=columns).seal()
    return archive


def test_an_hdf5_file_has_a_group_a_step_and_layers_below_it(recorded: Archive) -> None:
    made = export(recorded.run("run"), "h5")

    with h5py.File(io.BytesIO(whole(made.file))) as file:
        assert file.attrs["run"] == "run"
        assert json.loads(file.attrs["metadata"]) == {}
        assert list(file["steps"]) == ["step_0000", "step_0001", "step_0002"]
        for step in range(3):
            group = file[f"steps/step_{step:04d}"]
            np.testing.assert_array_equal(group["score"], SCORE[step])
            assert list(group["score"].attrs["dims"]) == ["sample", "axis0"]
            assert group.attrs["phase"] == "abc"[step]
            assert ("layers" in group) == (step != 1)
        first, second, third = file["steps"].values()
        assert first.attrs["sigma"] == 0.5
        assert np.isnan(second.attrs["sigma"])
        assert "sigma" not in third.attrs
        np.testing.assert_array_equal(third["layers/blocks%2F1.mlp/output"], LAYER[2])
        np.testing.assert_array_equal(second["plates"], RAGGED[1])
        assert "plates" not in third
        assert file["inputs/labels"].asstr()[()].tolist() == LABELS.tolist()
        np.testing.assert_array_equal(file["outputs/image"], IMAGE)
    assert (made.filename, made.media_type) == ("run.h5", "application/x-hdf5")


def test_an_npz_file_stacks_what_is_there_at_every_step(recorded: Archive) -> None:
    made = export(recorded.run("run"), "npz", samples=slice(1, 3))

    with np.load(io.BytesIO(whole(made.file))) as loaded:
        assert set(loaded.files) == {
            "steps", "steps/sigma", "steps/phase", "trace/score", "inputs/labels",
            "outputs/image", "trace/plates/step_0000", "trace/plates/step_0001",
            "layers/blocks%2F1.mlp/output/step_0000", "layers/blocks%2F1.mlp/output/step_0002",
        }  # fmt: skip
        np.testing.assert_array_equal(loaded["trace/score"], SCORE[:, 1:3])
        np.testing.assert_array_equal(loaded["steps/sigma"], [0.5, np.nan, np.nan])
        assert loaded["steps/phase"].tolist() == ["a", "b", "c"]
        assert loaded["inputs/labels"].tolist() == ["ü", "bc"]
        np.testing.assert_array_equal(
            loaded["layers/blocks%2F1.mlp/output/step_0002"], LAYER[2, 1:3]
        )
        np.testing.assert_array_equal(loaded["trace/plates/step_0001"], RAGGED[1])


def test_a_cut_has_the_steps_and_fields_asked_for(recorded: Archive) -> None:
    made = export(recorded.run("run"), "npz", steps=slice(None, None, 2), fields=["output"])

    with np.load(io.BytesIO(whole(made.file))) as loaded:
        assert loaded["steps"].tolist() == [0, 2]
        np.testing.assert_array_equal(loaded["layers/blocks%2F1.mlp/output"], LAYER[[0, 2]])
        assert "trace/score" not in loaded


def test_the_same_question_gives_the_same_file_and_another_another(recorded: Archive) -> None:
    """A client that goes on with a download compares the digest."""
    run = recorded.run("run")
    digests = [
        export(run, "npz").file.digest,
        export(run, "npz", samples=slice(0, 3)).file.digest,
        export(run, "npz", steps=slice(0, 2)).file.digest,
        export(run, "h5").file.digest,
    ]

    assert len(set(digests)) == 4
    assert export(recorded.run("run"), "npz").file.digest == digests[0]


def test_an_unknown_format_is_refused_and_the_known_ones_named(recorded: Archive) -> None:
    with pytest.raises(InvalidInputError, match="h5, npz") as caught:
        export(recorded.run("run"), "xlsx")

    assert caught.value.kind is ErrorKind.FORMAT_NOT_ACCEPTABLE
    assert set(formats_of("generic")) == {"h5", "npz", "generic-h5", "generic-npz"}
    assert {"h5", "npz", "json", "fasta", "txt", "csv"} <= set(formats_of("d3-dna"))
