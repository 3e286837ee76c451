"""Which steps and samples of a run a file holds, while it grows and when it is sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from server.exporters.cut import cut_run
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from server.query import Archive

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
TOKENS = np.zeros((4, 2), np.int64)


def started(archive: Archive, *, samples: int = 4) -> Builder:
    """Record two fields of tiles of two samples: score at steps 0 and 1, sequence at 0."""
    run = Builder(archive.store, steps=5, samples=samples)
    run.declare(spec_of("score", VALUES, tile=2), spec_of("sequence", TOKENS, tile=2))
    run.put_step("trace/score", VALUES, 0).put_step("trace/score", VALUES, 1)
    return run.put_step("trace/sequence", TOKENS, 0)


def test_a_step_that_is_still_arriving_is_left_out(archive: Archive) -> None:
    """A file with half a step would look like one whose sampler had failed."""
    started(archive)

    cut = cut_run(archive.run("run"))

    assert cut.steps == (0,)
    assert not cut.whole
    assert "steps 1 of run 'run' are not recorded for all 4 samples" in cut.notes[0]


def test_a_sealed_run_keeps_steps_that_lack_a_field(archive: Archive) -> None:
    """An oracle may have failed there; nothing more will come."""
    started(archive).seal()
    run = archive.run("run")

    cut = cut_run(run)

    assert cut.steps == (0, 1)
    assert cut.whole
    assert cut.notes == ()
    assert cut.steps_of(run.field("sequence")) == (0,)
    assert not cut.has(run.field("sequence"), 1)


def test_a_batch_that_is_complete_can_be_had_while_others_are_not(archive: Archive) -> None:
    run = started(archive, samples=8)

    with pytest.raises(NotFoundError) as caught:
        cut_run(archive.run("run"))
    cut = cut_run(archive.run("run"), samples=slice(0, 4))

    assert caught.value.kind is ErrorKind.NOT_RECORDED
    assert "samples with all fields: 0:4" in str(caught.value)
    assert run.manifest.samples == 8
    assert (cut.steps, cut.samples) == ((0,), range(4))


def test_fields_with_a_cadence_of_their_own_are_not_waited_for(archive: Archive) -> None:
    run = Builder(archive.store, steps=4, samples=4)
    run.declare(spec_of("score", VALUES, tile=4), spec_of("map", VALUES, tile=4, every=2))
    run.put("trace/score", VALUES, 0).put("trace/map", VALUES, 0).put("trace/score", VALUES, 1)
    before = cut_run(archive.run("run"))
    run.put("trace/score", VALUES, 2)
    after = cut_run(archive.run("run"))

    assert before.steps == (0, 1)
    assert after.steps == (0, 1)


def test_steps_asked_for_one_by_one_must_be_there(archive: Archive) -> None:
    """A slice takes what there is; a number means that step."""
    started(archive)
    run = archive.run("run")

    assert cut_run(run, steps=slice(0, 9)).steps == (0,)
    assert cut_run(run, steps=0).steps == (0,)
    assert cut_run(run, steps=(1, 0), fields=["score"]).steps == (0, 1)
    for steps, kind in ((1, ErrorKind.NOT_RECORDED), (3, ErrorKind.STEP_NOT_RECORDED)):
        with pytest.raises(NotFoundError) as caught:
            cut_run(run, steps=steps)
        assert caught.value.kind is kind


def test_samples_are_taken_as_numpy_takes_them(archive: Archive) -> None:
    started(archive).seal()
    run = archive.run("run")

    assert cut_run(run, samples=-1).samples == range(3, 4)
    assert list(cut_run(run, samples=slice(None, None, -2)).samples) == [3, 1]
    assert cut_run(run, samples=(2, 0)).samples == (2, 0)
    with pytest.raises(InvalidInputError) as caught:
        cut_run(run, samples=4)
    assert caught.value.kind is ErrorKind.SELECTION_OUT_OF_BOUNDS


def test_fields_are_chosen_by_name_and_must_exist(archive: Archive) -> None:
    started(archive).seal()
    run = archive.run("run")

    cut = cut_run(run, fields=["sequence"])

    assert [f.spec.name for f in cut.fields(*Place)] == ["sequence"]
    assert cut.steps == (0,)
    with pytest.raises(NotFoundError, match="expected some of score, sequence"):
        cut_run(run, fields=["scores"])


def test_inputs_that_lack_samples_are_left_out_and_named(archive: Archive) -> None:
    run = Builder(archive.store, steps=1, samples=4)
    run.declare(
        spec_of("score", VALUES, tile=4), spec_of("labels", VALUES, tile=2, place=Place.INPUTS)
    )
    run.put("trace/score", VALUES).put("inputs/labels", VALUES[:2]).seal()

    cut = cut_run(archive.run("run"))

    assert cut.fields(Place.INPUTS) == []
    assert cut.notes == ("not recorded for all samples asked for, left out: inputs/labels",)
    assert len(cut_run(archive.run("run"), samples=slice(2)).fields(Place.INPUTS)) == 1
