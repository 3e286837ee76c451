"""DMD2's models are recorded as they are, by hooks that go again."""

from __future__ import annotations

import io
import json
import runpy
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from examples.dmd2_model import EDMPrecond, karras, sample
from recorder import TraceRecorder
from recorder.integrations.dmd2 import attach, layer_modules, picture
from server.exporters import MadeFile, export_tree
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from archive_schema.store import Store
    from server.query import RunView

EXAMPLES = Path(__file__).parents[2] / "examples"
SIDE, CLASSES = 8, 1000


class Adapter:
    """An adapter as adapt_diff has them: hooks by layer name, and a forward of its own."""

    hookable_layers = ("encoder_bottleneck", "midblock")

    def __init__(self, model: EDMPrecond) -> None:
        self._model = model
        self.classes, self.resolution = model.classes, model.resolution

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Do what the model does."""
        made: torch.Tensor = self._model(x, sigma, class_labels)
        return made

    def __call__(self, *args: Any) -> torch.Tensor:
        """Do what the model does, as samplers call it here."""
        return self.forward(*args)

    def register_activation_hooks(
        self, layer_names: list[str], hook_fn: Callable[..., None]
    ) -> list[Any]:
        """Put a hook on layers, by the names that adapters have for them."""
        modules = layer_modules(self._model)
        return [modules[name].register_forward_hook(hook_fn) for name in layer_names]


@pytest.fixture(scope="module")
def model() -> EDMPrecond:
    torch.manual_seed(3)
    return EDMPrecond(SIDE, 4).eval()


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def recorder(store: Store) -> TraceRecorder:
    return TraceRecorder(store, run="run", system="dmd2", metadata={"model": "imagenet"})


def reference(
    model: EDMPrecond, labels: torch.Tensor, steps: int, seed: int, scale: float | None
) -> tuple[list[np.ndarray[Any, Any]], torch.Tensor]:
    """Return what the middle block gave out in each call, and the images, without a recorder."""
    seen: list[np.ndarray[Any, Any]] = []
    hook = layer_modules(model)["midblock"].register_forward_hook(
        lambda _, __, output: seen.append(output.numpy().copy())
    )
    images = sample(model, labels, karras(steps), torch.Generator().manual_seed(seed), scale)
    hook.remove()
    return seen, images


def hooks_of(model: EDMPrecond) -> int:
    return sum(len(vars(one)["_forward_hooks"]) for one in model.modules())


def read(store: Store, *path: str) -> Any:
    with Archive(store) as archive:
        return archive.run("run").field(path[0], layer=path[1]).select({}).array()


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("scale", [None, 1.5])
def test_what_is_recorded_is_what_the_blocks_gave_out(
    store: Store, model: EDMPrecond, scale: float | None, *, adapted: bool
) -> None:
    labels = torch.tensor([1, 7, 999])
    expected, images = reference(model, labels, 3, 5, scale)
    whole: Any = Adapter(model) if adapted else model
    before = dict(vars(whole)), hooks_of(model)

    with (
        recorder(store) as rec,
        attach(rec, whole, guidance_scale=scale, keep=("image",)) as attached,
        attached.batch(slice(0, 3), class_id=labels, seed=5) as batch,
    ):
        generator = torch.Generator().manual_seed(5)
        batch.images = sample(whole, labels, karras(3), generator, scale)

    with Archive(store) as archive:
        run = archive.run("run")
        found = run.field("output", layer="midblock").select({}).array()
        seen = np.stack(expected)
        if scale is not None:
            seen = seen.reshape(3, 2, *seen.shape[1:]).swapaxes(1, 2)
        np.testing.assert_array_equal(found, seen)
        final = run.field("image", place=Place.OUTPUTS).select({}).array()
        np.testing.assert_array_equal(final, images.numpy())
        np.testing.assert_array_equal(run.field("image").select({"step": 2}).array(), final)
        names = run.ledger.sample_coordinates["class"].values
        assert (names[0], names[2]) == ("goldfish", "toilet_tissue")
        file = io.BytesIO(tree_of(run, steps=0)["activations/imagenet/batch_000000.npz"])
        np.testing.assert_array_equal(np.load(file)["midblock"], expected[0].reshape(3, -1))
        levels = run.ledger.step_coordinates["sigma"].values
        assert [levels[at] for at in range(3)] == pytest.approx(karras(3))
    assert (vars(whole), hooks_of(model)) == before


def test_a_batch_that_fails_leaves_the_model_as_it_was(store: Store, model: EDMPrecond) -> None:
    before = dict(vars(model))

    with pytest.raises(KeyError, match="stop"), recorder(store) as rec, attach(rec, model) as found:
        with found.batch(slice(0, 1)):
            raise KeyError("stop")

    assert vars(model) == before


def test_what_the_model_does_outside_of_a_batch_is_not_recorded(
    store: Store, model: EDMPrecond
) -> None:
    with recorder(store) as rec, attach(rec, model) as attached:
        x = torch.zeros(2, 3, SIDE, SIDE)
        with torch.no_grad():
            model(x, torch.ones(2))
            with attached.batch(slice(0, 2)):
                model(x, torch.ones(2) * 80)

    assert read(store, "output", "midblock").shape == (1, 2, 8, SIDE // 2, SIDE // 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ["nothing_*"]}, "matches no layer of the model; it has encoder_block_0"),
        ({"keep": ["video"]}, "expected to keep some of image, noised_image; got video"),
    ],
)
def test_wrong_options_are_refused_at_once(
    store: Store, model: EDMPrecond, options: dict[str, Any], words: str
) -> None:
    with recorder(store) as rec, pytest.raises(InvalidInputError, match=words):
        attach(rec, model, **options)


def test_a_guided_sampler_that_calls_the_model_once_is_told(
    store: Store, model: EDMPrecond
) -> None:
    with (
        pytest.raises(RuntimeError, match="two calls of the model in each step, got 1"),
        recorder(store) as rec,
        attach(rec, model, guidance_scale=2.0) as attached,
        attached.batch(slice(0, 1)),
        torch.no_grad(),
    ):
        model(torch.zeros(1, 3, SIDE, SIDE), torch.ones(1))


def test_pictures_are_made_as_upstream_makes_them() -> None:
    tensor = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)

    assert picture(tensor).flatten().tolist() == [0, 0, 127, 255, 255]


def draw(store: Store, model: EDMPrecond, broken_at: float | None = None) -> list[slice]:
    """Sample batch by batch as the example does; return the batches that were drawn."""
    labels, sigmas = torch.arange(5), karras(3)
    drawn: list[slice] = []

    def observed(_: Any, given: tuple[Any, ...], __: Any) -> None:
        if drawn[-1].start == 2 and broken_at == float(given[1][0]):
            raise KeyboardInterrupt

    hook = model.register_forward_hook(observed)
    try:
        with recorder(store) as rec, attach(rec, model) as attached:
            for samples in (slice(0, 2), slice(2, 4), slice(4, 5)):
                if not attached.due(samples, len(sigmas)):
                    continue
                drawn.append(samples)
                generator = torch.Generator().manual_seed(samples.start)
                with attached.batch(samples, sigmas=sigmas, class_id=labels[samples]) as batch:
                    batch.images = sample(model, labels[samples], sigmas, generator)
    finally:
        hook.remove()
    return drawn


def tree_of(run: RunView, **how: Any) -> dict[str, bytes]:
    return {f.path: b"".join(MadeFile(f).parts()) for f in export_tree(run, **how).files}


def test_a_sampler_that_was_cut_short_goes_on_where_it_stood(
    store: Store, model: EDMPrecond
) -> None:
    """A batch that was cut short is drawn again as it was, one that is there is not drawn."""
    whole = open_store(f"memory://{uuid.uuid4().hex}")
    draw(whole, model)
    with pytest.raises(KeyboardInterrupt):
        draw(store, model, broken_at=float(np.float32(karras(3)[1])))

    drawn = draw(store, model)

    assert drawn == [slice(2, 4), slice(4, 5)]
    with Archive(whole) as first, Archive(store) as second:
        assert second.run("run").sealed
        assert tree_of(first.run("run")) == tree_of(second.run("run"))


def test_the_example_records_what_the_visualizer_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    small = ["--samples", "5", "--batch", "2", "--steps", "2", "--resolution", "8"]
    monkeypatch.setattr(sys, "argv", ["record_dmd2.py", str(tmp_path), "--run", "run", *small])

    runpy.run_path(str(EXAMPLES / "record_dmd2.py"), run_name="__main__")

    with Archive(open_store(tmp_path)) as archive:
        run = archive.run("run")
        one, several = tree_of(run, steps=0), tree_of(run)
    listed = [json.loads(tree["metadata/imagenet/dataset_info.json"]) for tree in (one, several)]
    assert [info["num_samples"] for info in listed] == [5, 10]
    assert listed[0]["layer_shapes"]["midblock"] == [16, 4, 4]
    assert listed[1]["samples"][5]["sample_id"] == "sample_000000_t1"
    assert listed[1]["samples"][5]["conditioning_sigma"] == pytest.approx(0.002)
    assert "images/imagenet/sample_000004.png" in one
