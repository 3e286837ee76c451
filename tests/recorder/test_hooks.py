"""Layers are recorded by globs, as they were when they ran, at the step that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.records import RunRecords
from recorder import Capture, TraceRecorder
from tests.recorder.reading import committed, zarr_array

if TYPE_CHECKING:
    from archive_schema.store import Store

WIDTH, LENGTH = 3, 5


class Block(nn.Module):
    """Adds a number to what it gets, in place, and tells of it in several ways."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Change what was given."""
        x += self.number
        inner: Tensor = self.inner(x)
        return inner


class Model(nn.Module):
    """Three blocks, of which each changes its input in place, and a head of several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(10.0**n) for n in range(3))
        self.head = Head()
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers one after the other."""
        x = x.clone()
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)[0]
        return out


class Head(nn.Module):
    """Gives a tuple, whose second entry is a dict."""

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Double, and transpose."""
        return x * 2, {"attention": x.transpose(1, 2)}


def inputs(step: int, samples: int = 4) -> Tensor:
    return torch.arange(samples * LENGTH * WIDTH, dtype=torch.float32).view(
        samples, LENGTH, WIDTH
    ) + step * 1000  # fmt: skip


def run(
    store: Store, patterns: dict[str, Any], *, steps: int = 3, model: Any = None, **options: Any
) -> None:
    """Sample 3 steps of 4 samples."""
    network = Model() if model is None else model
    with TraceRecorder(store, "r", steps=steps, samples=4, **options) as rec:
        rec.attach(network, patterns)
        for n in range(steps):
            with torch.inference_mode():
                network(inputs(n))
            rec.record(n)


def layers(store: Store) -> dict[str, Any]:
    return {path: f.spec for path, f in RunRecords(store, "r").ledger.fields.items()}


def test_a_glob_chooses_layers(folder_store: Store) -> None:
    """One star stays within a part of the name, and each layer is kept as it was when it ran."""
    run(folder_store, {"blocks.*": "hidden", "blocks.2.**": Capture()})

    assert set(layers(folder_store)) == {
        "layers/blocks.0/hidden", "layers/blocks.1/hidden", "layers/blocks.2/hidden",
        "layers/blocks.2.inner/output",
    }  # fmt: skip
    for layer, added in (("blocks.0", 1), ("blocks.1", 11), ("blocks.2", 111)):
        read = zarr_array(folder_store, "r", f"layers/{layer}/hidden")
        np.testing.assert_array_equal(read, np.stack([inputs(n) + added for n in range(3)]))


def test_what_is_kept_can_be_cut_cast_and_reduced(folder_store: Store) -> None:
    dims = ("sample", "position", "channel")
    patterns = {
        "blocks.0": Capture(dtype="float16", every=2, dims=dims),
        "blocks.1": {"positions": slice(1, 3), "field": "few"},
        "blocks.2": {"reduce": "mean", "over": ("position",), "dims": dims, "field": "mean"},
        "blocks.2.inner": Capture(reduce="std", over="channel", dims=dims),
        "head": Capture(output=0, samples=slice(0, 2)),
    }
    run(folder_store, patterns)

    hidden = np.stack([inputs(n) for n in range(3)])
    every = zarr_array(folder_store, "r", "layers_every_2/blocks.0/output")
    np.testing.assert_array_equal(every, (hidden[::2] + 1).astype("float16"))
    few = zarr_array(folder_store, "r", "layers/blocks.1/few")
    np.testing.assert_array_equal(few, hidden[:, :, 1:3] + 11)
    mean = zarr_array(folder_store, "r", "layers/blocks.2/mean")
    np.testing.assert_allclose(mean, (hidden + 111).mean(axis=2))
    spread = zarr_array(folder_store, "r", "layers/blocks.2.inner/output")
    np.testing.assert_allclose(spread, hidden.std(axis=3), rtol=1e-6)
    head = zarr_array(folder_store, "r", "layers/head/output")
    np.testing.assert_array_equal(head[:, :2], (hidden[:, :2] + 111) * 2)
    assert np.isnan(head[:, 2:]).all()
    specs = layers(folder_store)
    assert specs["layers/blocks.0/output"].dims == ("step", *dims)
    assert specs["layers/blocks.2/mean"].dims == ("step", "sample", "channel")
    assert specs["layers/head/output"].tile == 2


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("min", lambda x: x.min(axis=(1, 2))), ("max", lambda x: x.max(axis=(1, 2))),
        ("sum", lambda x: x.sum(axis=(1, 2))), ("mean", lambda x: x.mean(axis=(1, 2))),
        ("l2", lambda x: np.sqrt((x**2).sum(axis=(1, 2)))),
    ],
)  # fmt: skip
def test_reductions_are_those_of_numpy(folder_store: Store, how: Any, expected: Any) -> None:
    dims = ("sample", "position", "channel")
    capture = Capture(reduce=how, over=("position", "channel"), dims=dims, dtype="float64")
    run(folder_store, {"blocks.0": capture}, steps=1)

    (tile,) = committed(folder_store, "r").values()
    np.testing.assert_allclose(tile, expected(inputs(0).numpy() + 1.0), rtol=1e-6)


def test_nested_outputs_are_chosen(folder_store: Store) -> None:
    class Second(nn.Module):
        """Hands on the dict of the head."""

        def __init__(self) -> None:
            super().__init__()
            self.head = Head()
            self.tell = nn.Identity()

        def forward(self, x: Tensor) -> object:
            return self.tell(self.head(x)[1])

    run(folder_store, {"tell": Capture(output="attention")}, steps=1, model=Second())

    (tile,) = committed(folder_store, "r").values()
    np.testing.assert_array_equal(tile, inputs(0).transpose(1, 2))


def test_a_half_of_a_guided_batch_is_kept(folder_store: Store) -> None:
    """The conditional half comes first."""
    model = Model()
    with TraceRecorder(folder_store, "r", steps=1, samples=4) as rec:
        rec.attach(model, {"blocks.0": Capture(half="cond"), "blocks.1": Capture(half="uncond")})
        model(torch.cat([inputs(0), inputs(1)]))
        rec.record(0)

    read = {path: tile for (path, _, _), tile in committed(folder_store, "r").items()}
    np.testing.assert_array_equal(read["layers/blocks.0/output"], inputs(0) + 1)
    np.testing.assert_array_equal(read["layers/blocks.1/output"], inputs(1) + 11)


def test_samples_of_the_run_are_kept_whatever_the_batch(folder_store: Store) -> None:
    """Samples 2 to 6 of batches of 4: their tiles are what a batch has of them."""
    model = Model()
    with TraceRecorder(folder_store, "r", steps=1, samples=12) as rec:
        rec.attach(model, {"blocks.0": Capture(samples=slice(2, 6))})
        for start in (0, 4, 8):
            model(inputs(start))
            rec.record(0, samples=slice(start, start + 4), x=np.zeros(4))

    read = {at: tile for at, tile in committed(folder_store, "r").items() if "layers" in at[0]}
    assert list(read) == [("layers/blocks.0/output", 0, 1), ("layers/blocks.0/output", 0, 2)]
    np.testing.assert_array_equal(read["layers/blocks.0/output", 0, 1], (inputs(0) + 1)[2:])
    np.testing.assert_array_equal(read["layers/blocks.0/output", 0, 2], (inputs(4) + 1)[:2])


def test_a_call_of_several_is_chosen(folder_store: Store) -> None:
    model = Model()
    patterns = {"blocks.0": Capture(call=1), "blocks.1": Capture(call="last")}
    with TraceRecorder(folder_store, "r", steps=1, samples=4) as rec:
        rec.attach(model, patterns)
        for call in range(3):
            model(inputs(call))
        rec.record(0)

    read = {path: tile for (path, _, _), tile in committed(folder_store, "r").items()}
    np.testing.assert_array_equal(read["layers/blocks.0/output"], inputs(1) + 1)
    np.testing.assert_array_equal(read["layers/blocks.1/output"], inputs(2) + 11)


def test_a_layer_that_runs_twice_in_a_step_must_be_told_apart(folder_store: Store) -> None:
    model = Model()
    with TraceRecorder(folder_store, "r", steps=1, samples=4) as rec:
        rec.attach(model, {"blocks.0": Capture()})
        model(inputs(0))
        model(inputs(0))
        with pytest.raises(InvalidInputError, match=r"'blocks\.0' ran 2 times") as caught:
            rec.record(0)

    assert caught.value.kind is ErrorKind.INVALID_PARAMETER


def test_a_last_pass_belongs_to_no_step(folder_store: Store) -> None:
    """Samplers denoise once more after their last step."""
    model = Model()
    with TraceRecorder(folder_store, "r", steps=1, samples=8) as rec:
        rec.attach(model, {"blocks.0": Capture()})
        for start in (0, 4):
            samples = slice(start, start + 4)
            model(inputs(start))
            rec.record(0, samples=samples)
            final = model(inputs(99))
            rec.outputs(samples=samples, final=final)

    read = zarr_array(folder_store, "r", "layers/blocks.0/output")
    np.testing.assert_array_equal(read[0], torch.cat([inputs(0), inputs(4)]) + 1)


def test_a_glob_that_matches_nothing_is_told_at_once(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r") as rec:
        with pytest.raises(InvalidInputError, match=r"blocks\.0, blocks\.0\.inner") as caught:
            rec.attach(Model(), {"blocks.*": Capture(), "layers.*": Capture()})

    assert caught.value.kind is ErrorKind.PATTERN_UNMATCHED


def test_a_glob_whose_layers_never_run_is_told_at_the_first_step(folder_store: Store) -> None:
    model = Model()
    with TraceRecorder(folder_store, "r", samples=4) as rec:
        rec.attach(model, {"unused": Capture(), "blocks.0": Capture()})
        assert set(rec.plan().waiting) == {"unused", "blocks.0"}
        model(inputs(0))
        with pytest.raises(InvalidInputError, match="'unused' matches has run") as caught:
            rec.record(0)

    assert caught.value.kind is ErrorKind.PATTERN_UNMATCHED


def test_one_layer_is_not_captured_twice_under_one_name(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r") as rec:
        with pytest.raises(InvalidInputError, match="captured already"):
            rec.attach(Model(), {"blocks.*": Capture(), "blocks.0": Capture()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce": "median", "dims": ("sample", "position")}, "reduce of mean"),
        ({"reduce": "mean"}, "axes named in dims"),
        ({"reduce": "mean", "over": "sample", "dims": ("sample", "x")}, "but for sample"),
        ({"half": "left"}, "half of cond, uncond, both; got"),
        ({"every": 0}, "every of 1 or more"),
        ({"feild": "x"}, "expected options of field, .*; got feild"),
        ({"field": "a b"}, "expected a name"),
    ],
)
def test_captures_are_checked_before_the_model_runs(
    folder_store: Store, options: Any, message: str
) -> None:
    with TraceRecorder(folder_store, "r") as rec:
        with pytest.raises(InvalidInputError, match=message):
            rec.attach(Model(), {"blocks.0": options})


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("head", {}, "expected a tensor; choose one by output=, got a tuple of 2"),
        ("head", {"output": 5}, "an output with an entry 5"),
        ("head", {"output": 1}, "got a dict with 'attention'"),
        ("blocks.0", {"dims": ("sample", "x")}, r"axes \('sample', 'x'\), got shape \(4, 5, 3\)"),
        ("blocks.0", {"dtype": "float17"}, "torch dtype, got 'float17'"),
    ],
)
def test_an_output_that_is_not_as_expected_names_its_layer(
    folder_store: Store, pattern: str, options: Any, message: str
) -> None:
    model = Model()
    with TraceRecorder(folder_store, "r", samples=4) as rec:
        rec.attach(model, {pattern: options})
        with pytest.raises(InvalidInputError, match=message):
            model(inputs(0))


def test_hooks_go_with_the_recorder(folder_store: Store) -> None:
    model = Model()
    with pytest.raises(RuntimeError, match="sampler"), TraceRecorder(folder_store, "r") as rec:
        rec.attach(model, {"blocks.*": "x"})
        raise RuntimeError("sampler")

    assert not any(module._forward_hooks for module in model.modules())  # noqa: SLF001
    assert np.isfinite(model(inputs(0)).numpy()).all()


def test_autocast_and_gradients_are_no_hindrance(folder_store: Store) -> None:
    """A layer gives bfloat16 under autocast; what is recorded is that, widened exactly."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
    with TraceRecorder(folder_store, "r", steps=1, samples=4) as rec:
        rec.attach(model, {"0": Capture()})
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(inputs(0))
        rec.record(0)
        out.float().sum().backward()

    (spec,) = layers(folder_store).values()
    assert (spec.source_dtype, spec.stored_dtype) == ("bfloat16", "float32")
    (tile,) = committed(folder_store, "r").values()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(tile, model[0](inputs(0)).float())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_recorded_if_it_was_attached_before(folder_store: Store) -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2))
    with TraceRecorder(folder_store, "r", steps=12, samples=4) as rec:
        rec.attach(model, {"?": Capture()})
        compiled = torch.compile(model, backend="eager")
        with torch.inference_mode():
            for n in range(12):
                compiled(inputs(n))
                rec.record(n)

    read = zarr_array(folder_store, "r", "layers/1/output")
    with torch.inference_mode():
        expected = torch.stack([torch.tanh(model[0](inputs(n))) for n in range(12)])
    np.testing.assert_allclose(read, expected, rtol=1e-5, atol=1e-6)
