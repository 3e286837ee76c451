"""D3-DNA's own loop is recorded without a change to it, and what is recorded is what it did."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from archive_schema.errors import ConflictError, InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from examples.record_d3_predictor import (
    AnalyticPredictor,
    Denoiser,
    GeometricNoise,
    Network,
    UniformGraph,
    main,
    pc_sampler,
)
from recorder import TraceRecorder
from recorder.integrations.d3_dna import MATRICES, attach, attach_model
from server.exporters import export
from server.query import Archive
from tests.exporters.ranged import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store

REFERENCE = Path(__file__).parents[1] / "data/d3_dna/sampling_reference.npz"
STEPS, LENGTH, SAMPLES = 6, 12, 7
GRAPH, NOISE = UniformGraph(), GeometricNoise()


def opened(store: Store, **options: Any) -> TraceRecorder:
    numbers = {"steps": STEPS, "samples": SAMPLES, "tile": 4} | options
    return TraceRecorder(store, "run", system="d3-dna", **numbers)


def sampled(model: Network, count: int, *, seed: int) -> Tensor:
    torch.manual_seed(seed)
    labels = torch.randn(count, 2)
    return pc_sampler(
        model,
        labels,
        length=LENGTH,
        steps=STEPS,
        predictor=AnalyticPredictor(GRAPH, NOISE),
        denoiser=Denoiser(GRAPH, NOISE),
    )


def values(store: Store, field: str, **where: Any) -> Any:
    with Archive(store) as archive:
        return archive.run("run").field(field, **where).select({}).array()


def finals(store: Store) -> Any:
    return values(store, "final_sequence", place=Place.OUTPUTS)


def test_the_numbers_of_the_real_sampler_come_out_as_they_went_in(folder_store: Store) -> None:
    """States, scores and times as its library gave them; the products as its logger has them."""
    with np.load(REFERENCE) as file:
        reference = {name: file[name] for name in file.files}
    states = torch.from_numpy(reference["x_states"][:, :4].astype(np.int64))
    scores = iter(torch.from_numpy(reference["score"]))
    drawn: Iterator[Tensor] = iter(states[1:])
    steps = len(reference["timestep"]) - 1

    class Predictor(AnalyticPredictor):
        def update_fn(self, score_fn: Any, x: Any, labels: Any, t: Any, step_size: float) -> Tensor:
            super().update_fn(score_fn, x, labels, t, step_size)
            return next(drawn)

    class Last(Denoiser):
        def update_fn(self, score_fn: Any, x: Tensor, labels: Tensor, t: Tensor) -> Tensor:
            super().update_fn(score_fn, x, labels, t)
            return next(drawn)

    x, dt = states[0], (1 - 1e-5) / steps
    labels = torch.from_numpy(reference["labels"][:4])
    times = torch.tensor(reference["timestep"], dtype=torch.float32)
    with (
        opened(folder_store, steps=steps + 1, samples=4) as rec,
        attach(rec, Predictor, Last, dtype="float32", denoiser_step=True),
    ):
        for at in range(steps):
            t = times[at] * torch.ones(4, 1)
            x = Predictor(GRAPH, NOISE).update_fn(lambda *_: next(scores), x, labels, t, dt)
        t = times[-1] * torch.ones(4, 1)
        Last(GRAPH, NOISE).update_fn(lambda *_: next(scores), x, labels, t)

    recorded = [values(folder_store, "sequence"), finals(folder_store)[None]]
    np.testing.assert_array_equal(np.concatenate(recorded), states.numpy())
    np.testing.assert_array_equal(values(folder_store, "score_matrix"), reference["score"])
    np.testing.assert_allclose(
        values(folder_store, "prob_matrix"), reference["prob"], rtol=2e-4, atol=2e-5
    )
    with Archive(folder_store) as archive:
        ledger = archive.run("run").ledger
    known: dict[str, list[Any]] = {
        name: [one.values.get(step, math.nan) for step in range(steps + 1)]
        for name, one in ledger.step_coordinates.items()
    }
    assert known["timestep"] == reference["timestep"].tolist()
    np.testing.assert_allclose(known["noise_level"], reference["sigma"], rtol=1e-5)
    np.testing.assert_allclose(known["noise_rate"], reference["dsigma"], rtol=1e-5)
    names = ("label_0", "label_1")
    column = [[ledger.sample_coordinates[name].values[at] for name in names] for at in range(4)]
    assert column == reference["labels"][:4].tolist()


def test_batches_follow_one_another_and_a_killed_run_goes_on(folder_store: Store) -> None:
    """The network runs once a step, and sampling gives the same sequences as without."""
    model = Network()
    plain = [sampled(model, count, seed=seed) for seed, count in ((0, 4), (1, 3))]
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    original = AnalyticPredictor.update_fn

    for seeds in ((0,), (0, 1)):
        with (
            opened(folder_store, seal_at_exit=len(seeds) == 2) as rec,
            attach(
                rec,
                AnalyticPredictor,
                Denoiser,
                keep=MATRICES,
                dtype="float32",
                oracle=lambda x: x.float().mean(1),
                oracle_targets=torch.ones(SAMPLES),
                model=model,
                layers={"blocks.*": {"dims": ("sample", "channel", "position")}},
            ) as sampling,
        ):
            for seed in seeds:
                if sampling.due((4, 3)[seed], steps=STEPS, seed=seed):
                    torch.testing.assert_close(sampled(model, (4, 3)[seed], seed=seed), plain[seed])
            assert sampling.next_sample == (4, 7)[seeds[-1]]

    sequence = values(folder_store, "sequence")
    assert len(calls) == 2 * (STEPS + 1)
    assert AnalyticPredictor.update_fn is original
    assert sequence.shape == (STEPS, SAMPLES, LENGTH)
    np.testing.assert_array_equal(finals(folder_store), torch.cat(plain))
    np.testing.assert_allclose(
        values(folder_store, "oracle_mse"), (1 - sequence.mean(2)) ** 2, rtol=1e-5
    )
    product = values(folder_store, "stag_scores") * values(folder_store, "transition_matrices")
    np.testing.assert_array_equal(product, values(folder_store, "prob_matrix"))
    assert values(folder_store, "output", layer="blocks.2").shape == (STEPS, SAMPLES, 16, LENGTH)
    with Archive(folder_store) as archive:
        file = whole(export(archive.run("run"), "h5").file)
    with h5py.File(io.BytesIO(file)) as written:
        assert {"prob_matrix", "oracle_mse"} < set(written["steps/step_0005"])
        assert written["steps/step_0005"].attrs["noise_rate"] > 0


def test_a_batch_that_is_broken_off_begins_again_at_its_first_sample(folder_store: Store) -> None:
    model = Network()
    with opened(folder_store) as rec, attach(rec, AnalyticPredictor, Denoiser) as sampling:
        predictor = AnalyticPredictor(GRAPH, NOISE)
        torch.manual_seed(0)
        labels, x = torch.randn(4, 2), GRAPH.sample_limit(4, LENGTH)
        predictor.update_fn(lambda x, *_: torch.ones(*x.shape, 4), x, labels, torch.ones(4, 1), 0.1)
        with pytest.raises(ConflictError, match="label_0"):
            sampled(model, 4, seed=1)  # others, and not the rest of the batch
        assert sampling.next_sample == 0


def test_the_network_alone_can_be_hooked(folder_store: Store) -> None:
    model = Network()
    with opened(folder_store) as rec, attach_model(rec, model, steps=STEPS) as sampling:
        final = [sampled(model, count, seed=seed) for seed, count in ((0, 4), (1, 3))]
        rec.outputs(slice(0, 7), final_sequence=torch.cat(final))
        assert sampling.next_sample == 7
    sampled(model, 4, seed=2)  # of which nothing is recorded any more

    by_model = {name: values(folder_store, name) for name in ("sequence", "score_matrix")}
    assert by_model["sequence"].shape == (STEPS, SAMPLES, LENGTH)
    at = np.take_along_axis(by_model["score_matrix"], by_model["sequence"][..., None], -1)
    np.testing.assert_array_equal(at, np.ones_like(at))


def test_what_nobody_can_record_is_refused_before_anything_is_wrapped(folder_store: Store) -> None:
    original = AnalyticPredictor.update_fn
    with opened(folder_store) as rec:
        with pytest.raises(InvalidInputError, match="score_matrix"):
            attach(rec, AnalyticPredictor, keep=["scores"])
        with pytest.raises(InvalidInputError, match="model="):
            attach(rec, AnalyticPredictor, layers={"blocks.*": {}})
        with pytest.raises(InvalidInputError, match="matches no module"):
            attach(rec, AnalyticPredictor, model=Network(), layers={"nothing.*": {}})
        rec.close()

    assert AnalyticPredictor.update_fn is original


def test_the_example_records_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--run run --samples 5 --batch 2 --steps 2 --length 9"
    monkeypatch.setattr("sys.argv", ["record", str(tmp_path), *options.split()])

    main()

    with Archive(open_store(tmp_path)) as archive:
        run = archive.run("run")
        assert (run.sealed, run.steps, run.samples) == (True, (0, 1), 5)
        assert sorted(run.layers()) == ["blocks.0", "blocks.1", "blocks.2"]
