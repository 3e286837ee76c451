"""DNA-Diffusion's own objects are recorded, and nothing of what they do changes."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archive_schema.errors import ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from archive_schema.systems.dna_diffusion import CELL_TYPES
from examples.dna_diffusion_model import Diffusion, UNet
from recorder import TraceRecorder
from recorder.capture import Capture
from recorder.integrations.dna_diffusion import attach, describe, weights_sha256
from server.exporters import export
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from server.query import RunView

REAL: Final = Path(__file__).parents[1] / "data/dna_diffusion"
STEPS, LENGTH, GUIDANCE = 3, 16, 1.5


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(store: Store) -> Iterator[Archive]:
    with Archive(store) as archive:
        yield archive


@pytest.fixture
def diffusion() -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(UNet(2, length=LENGTH), STEPS).eval()


def sampled(diffusion: Any, classes: list[int], seed: int) -> list[Any]:
    torch.manual_seed(seed)
    shape = (len(classes), 1, 4, LENGTH)
    states: list[Any] = diffusion.sample(torch.tensor(classes).float(), shape, GUIDANCE)
    return states


def values(run: RunView, name: str, *, place: Place = Place.TRACE, layer: str | None = None) -> Any:
    return run.field(name, place=place, layer=layer).select({}).array()


@contextmanager
def dying(diffusion: Diffusion, calls: int | None) -> Iterator[None]:
    """Let the network's call after so many fail, as a process that is interrupted."""
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if calls is not None and made > calls:
            raise KeyboardInterrupt

    handle = diffusion.model.final_conv.register_forward_hook(count)
    try:
        yield
    finally:
        handle.remove()


def captured(name: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(REAL / name) as arrays:
        return dict(arrays)


class ReferenceLayer(nn.Module):
    """Gives out what a layer of the real network gave at the first step."""

    def __init__(self, given: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.given = torch.from_numpy(given)

    def forward(self) -> Tensor:
        """Return it."""
        return self.given


class ReferenceNetwork(nn.Module):
    """Gives out what the real network gave, by the timestep it is asked for."""

    output_attention = False

    def __init__(self, run: dict[str, Any], cross: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.run = run
        self.cross = cross
        for name, given in captured("reference_layers_step_0000.npz").items():
            self.add_module(name, ReferenceLayer(given))

    def forward(self, _: Tensor, time: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of both halves, and the cross map."""
        np.testing.assert_array_equal(classes, self.run["class_ids"])
        for layer in self.children():
            layer()
        at = 49 - int(time[0])
        noise = np.concatenate([self.run["eps_cond"][at], self.run["eps_uncond"][at]])
        return torch.from_numpy(noise), torch.from_numpy(self.cross[at]).repeat(2, 1, 1, 1)


class ReferenceDiffusion(Diffusion):
    """Goes through the real run's states; its own loop and its own doubling of batches."""

    def p_sample_guided(self, *args: Any, **given: Any) -> tuple[Tensor, Tensor]:
        """Return the real state, where the same formula gives it but for rounding."""
        made, cross = super().p_sample_guided(*args, **given)
        real = torch.from_numpy(self.model.run["x"][49 - given["t_index"]])
        torch.testing.assert_close(made, real, rtol=2e-5, atol=2e-5)
        return real, cross


def test_the_recording_of_the_real_run_is_what_was_captured_of_it(
    store: Store, archive: Archive
) -> None:
    """Every array that was captured by hand, and the files that its script wrote."""
    real = captured("reference_run.npz")
    cross = np.load(REAL / "cross_att_values_HepG2_ENCLB029COU.npy")
    diffusion = ReferenceDiffusion(ReferenceNetwork(real, cross))
    with (
        TraceRecorder(store, "r", system="dna-diffusion", steps=50, samples=4) as rec,
        attach(
            rec,
            diffusion,
            cell_types=CELL_TYPES,
            keep=("x", "eps", "x_T", "tokens", "cross"),
            layers={"*": {"every": 50}, "time_mlp": {"every": 50, "field": "cond", "half": "cond"}},
        ),
    ):
        torch.manual_seed(1)
        diffusion.sample(torch.full((4,), 2.0), (4, 1, 4, 200), 1.0)

    run = archive.run("r")
    np.testing.assert_array_equal(values(run, "x"), real["x"])
    eps = values(run, "eps")
    np.testing.assert_array_equal(eps[:, :, 0], real["eps_cond"])
    np.testing.assert_array_equal(eps[:, :, 1], real["eps_uncond"])
    np.testing.assert_array_equal(values(run, "tokens"), real["tokens"])
    np.testing.assert_array_equal(values(run, "cross"), cross)
    # Drawn anew from the same seed, on this machine.
    np.testing.assert_allclose(values(run, "x_T", place=Place.INPUTS), real["x_T"], atol=1e-5)
    steps, samples = run.ledger.step_coordinates, run.ledger.sample_coordinates
    np.testing.assert_array_equal(steps["timestep"].array(range(50)), real["t_index"])
    np.testing.assert_array_equal(steps["beta"].array(range(50)), real["beta"].astype(float))
    assert {name: known.values[3] for name, known in samples.items()} == {
        "class_id": 2, "cell_type": "HepG2", "tag": "HepG2_ENCLB029COU", "guidance_scale": 1.0,
        "batch": 0,
    }  # fmt: skip
    layers = captured("reference_layers_step_0000.npz")
    for name in layers:
        halves = values(run, "output", layer=name)[0]
        np.testing.assert_array_equal(np.concatenate([halves[:, 0], halves[:, 1]]), layers[name])
    np.testing.assert_array_equal(values(run, "cond", layer="time_mlp")[0], layers["time_mlp"][:4])
    assert run.field("output", layer="cross_attn").dims == (
        "step", "sample", "guidance", "row", "feature"
    )  # fmt: skip
    for name, format_ in (
        ("HepG2_ENCLB029COU.txt", "txt"),
        ("HepG2_ENCLB029COU_save_timesteps.txt", "tsv"),
    ):
        assert b"".join(export(run, format_).read()) == (REAL / name).read_bytes()


def test_what_was_cut_short_goes_on_and_cell_types_share_a_run(
    store: Store, archive: Archive, diffusion: Diffusion
) -> None:
    """Batches that are whole are not sampled again; the others are, from the same seed."""
    drawn: dict[int, list[Any]] = {}

    def sample(*, dies_at: int | None = None) -> list[int]:
        made = []
        with (
            TraceRecorder(
                store, "r", system="dna-diffusion", steps=STEPS, samples=12, tile=2,
                metadata=describe(diffusion, cell_types=CELL_TYPES),
            ) as rec,
            attach(rec, diffusion, cell_types=CELL_TYPES, layers={"mid_*": {}}) as attached,
        ):  # fmt: skip
            for class_id, count in [(1, 4), (1, 2), (4, 4), (4, 2)]:
                start = attached.next_sample
                if attached.due(count, seed=start):
                    with dying(diffusion, 2 if start == dies_at else None):
                        drawn[start] = sampled(diffusion, [class_id] * count, start)
                    made.append(start)
        return made

    with pytest.raises(KeyboardInterrupt):
        sample(dies_at=6)
    made = sample()

    assert made == [6, 10]
    run = archive.run("r")
    whole = np.concatenate([np.array(drawn[start]) for start in (0, 4, 6, 10)], axis=1)
    np.testing.assert_array_equal(values(run, "x"), whole)
    np.testing.assert_array_equal(
        values(run, "final_sequence", place=Place.OUTPUTS), whole[-1, :, 0].argmax(1)
    )
    samples = run.ledger.sample_coordinates
    assert list(samples["cell_type"].values.values()) == ["GM12878"] * 6 + ["K562"] * 6
    assert list(samples["seed"].values.values()) == [0] * 4 + [4] * 2 + [6] * 4 + [10] * 2
    assert list(samples["batch"].values.values()) == list(samples["seed"].values.values())
    assert run.manifest.metadata["weights_sha256"] == weights_sha256(diffusion.model)


def test_a_batch_that_is_drawn_otherwise_the_second_time_is_a_conflict(
    store: Store, diffusion: Diffusion
) -> None:
    """Two trajectories are never mixed in one sample."""
    options: Any = {"system": "dna-diffusion", "steps": STEPS, "samples": 2}
    with pytest.raises(KeyboardInterrupt), TraceRecorder(store, "r", **options) as rec:
        with attach(rec, diffusion, cell_types=CELL_TYPES), dying(diffusion, 2):
            sampled(diffusion, [1, 2], 0)
    with pytest.raises(ConflictError, match=r"x_T|trace/x|trace/eps"):
        with TraceRecorder(store, "r", **options) as rec:
            with attach(rec, diffusion, cell_types=CELL_TYPES) as attached:
                assert attached.due(2)
                sampled(diffusion, [1, 2], 1)


def test_what_the_network_did_for_no_step_is_not_recorded(
    store: Store, archive: Archive, diffusion: Diffusion
) -> None:
    """A batch that broke off is begun anew in the same process, after other uses of the network."""
    options: Any = {"system": "dna-diffusion", "steps": STEPS, "samples": 2}
    with TraceRecorder(store, "r", **options) as rec:
        with attach(rec, diffusion, cell_types=CELL_TYPES, layers={"final_conv": {}}) as attached:
            with pytest.raises(KeyboardInterrupt), dying(diffusion, 1):
                sampled(diffusion, [1, 2], 0)
            diffusion.model(torch.zeros(3, 1, 4, LENGTH), torch.zeros(3), torch.zeros(3).long())
            assert attached.due(2, seed=0)
            states = sampled(diffusion, [1, 2], 0)

    run = archive.run("r")
    np.testing.assert_array_equal(values(run, "x"), states)
    assert values(run, "output", layer="final_conv").shape == (STEPS, 2, 2, 1, 4, LENGTH)


def test_everything_is_as_it_was_when_it_is_detached(store: Store, diffusion: Diffusion) -> None:
    """Also after an error, and where somebody else had wrapped the method before."""
    plain = sampled(diffusion, [1, 2], 0)
    with TraceRecorder(store, "r", system="dna-diffusion", steps=STEPS) as rec:
        with pytest.raises(InvalidInputError, match=r"class ids of 0, 7, .*got \[1\]"):
            with attach(rec, diffusion, cell_types={7: "K562"}, layers={"downs.**": {}}):
                sampled(diffusion, [1, 7], 0)
        assert "p_sample_guided" not in vars(diffusion)
        assert not any(module._forward_hooks for module in diffusion.modules())  # noqa: SLF001
        own = diffusion.p_sample_guided
        diffusion.p_sample_guided = own  # type: ignore[method-assign]
        attached = attach(rec, diffusion, cell_types=CELL_TYPES, layers={"downs.**": "hidden"})
        recorded = sampled(diffusion, [1, 2], 0)
        attached.detach()
        attached.detach()

        assert vars(diffusion)["p_sample_guided"] == own
        assert attached.next_sample == 2
    np.testing.assert_array_equal(recorded, plain)
    np.testing.assert_array_equal(sampled(diffusion, [1, 2], 0), plain)


class Pretrained(nn.Module):
    """Nests the network as the published weights' class does."""

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model
        self.output_attention = False

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Any:
        """Hand on."""
        self.model.output_attention = self.output_attention
        return self.model(x, time, classes)


class Parallel(Pretrained):
    """Nests a network as DistributedDataParallel does."""

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.module: Any = model
        self.output_attention = False

    def forward(self, x: Tensor, time: Tensor, classes: Tensor) -> Any:
        """Hand on."""
        self.module.output_attention = self.output_attention
        return self.module(x, time, classes)


def test_wrapped_networks_have_the_layers_and_the_digest_of_their_own(
    store: Store, archive: Archive, diffusion: Diffusion
) -> None:
    """A layer is named as in the UNet; each half, or both as an axis; axes by their number."""
    network: UNet = diffusion.model
    digest = weights_sha256(network)
    seen: list[Tensor] = []
    hook = network.mid_block1.register_forward_hook(lambda *given: seen.append(given[2]))
    diffusion.model = Parallel(Pretrained(network))
    layers: dict[str, Any] = {
        "mid_block1": Capture(),
        "mid_block2": {"half": "cond", "every": 2},
        "label_emb": "embedding",
        "cross_attn": {"reduce": "mean", "over": "feature"},
        "final_conv": Capture(half="uncond", dims=("sample", "channel", "row", "position")),
    }
    with TraceRecorder(store, "r", system="dna-diffusion", steps=STEPS, samples=2) as rec:
        with attach(rec, diffusion, cell_types=CELL_TYPES, keep=("x",), layers=layers):
            sampled(diffusion, [1, 2], 0)
    hook.remove()

    run = archive.run("r")
    both = values(run, "output", layer="mid_block1")
    np.testing.assert_array_equal(both[:, :, 0], torch.stack(seen)[:, :2])
    np.testing.assert_array_equal(both[:, :, 1], torch.stack(seen)[:, 2:])
    found = {f.path: (f.dims[1:], f.shape) for f in run.fields(Place.LAYERS)}
    assert found == {
        "layers/mid_block1/output": (
            ("sample", "guidance", "channel", "row", "column"), (3, 2, 2, 8, 1, 4)
        ),
        "layers/mid_block2/output": (("sample", "channel", "row", "column"), (2, 2, 8, 1, 4)),
        "layers/label_emb/embedding": (("sample", "guidance", "channel"), (3, 2, 2, 64)),
        "layers/cross_attn/output": (("sample", "guidance", "row"), (3, 2, 2, 4)),
        "layers/final_conv/output": (
            ("sample", "channel", "row", "position"), (3, 2, 1, 4, LENGTH)
        ),
    }  # fmt: skip
    state = network.state_dict()
    assert weights_sha256(diffusion.model) == weights_sha256(state) == digest
    assert weights_sha256({f"module.{name}": one for name, one in state.items()}) == digest
    assert weights_sha256(UNet(2, length=LENGTH)) != digest


def test_what_cannot_be_kept_is_refused_before_anything_is_sampled(
    store: Store, diffusion: Diffusion
) -> None:
    with TraceRecorder(store, "r", system="dna-diffusion") as rec:
        with pytest.raises(InvalidInputError, match=r"keep some of x, eps, .*; got y") as caught:
            attach(rec, diffusion, cell_types=CELL_TYPES, keep=("x", "y"))
        assert caught.value.kind is ErrorKind.INVALID_PARAMETER
        with pytest.raises(InvalidInputError, match=r"'blocks\.\*' matches no module"):
            attach(rec, diffusion, cell_types=CELL_TYPES, layers={"blocks.*": {}})
    assert "p_sample_guided" not in vars(diffusion)
