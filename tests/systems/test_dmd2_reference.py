"""What DMD2's programs saved, given out by a model again and recorded, is what they saved."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from archive_schema.systems.dmd2 import known_shape
from recorder import TraceRecorder
from recorder.integrations.dmd2 import attach, layer_modules, picture
from server.exporters import MadeFile, export_tree
from server.query import Archive
from tests.server_fixture import served
from tests.systems.dmd2_files import LAYERS, REAL
from tests.systems.saved import savez_compressed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from archive_schema.store import Store

BATCH: Final = 4
TOLD: Final = ("synset_id", "original_path", "source")
"""What a loop over real photographs says of each beside its class, if it is one."""


@dataclass(frozen=True)
class Reference:
    """The first samples of a real data set, as its files have them."""

    model: str
    count: int

    @property
    def list_path(self) -> str:
        """Return the path of the list of samples."""
        return f"metadata/{self.model}/dataset_info.json"

    @property
    def batches(self) -> list[slice]:
        """Return the samples of each file; the last may have fewer."""
        return [slice(at, min(at + BATCH, self.count)) for at in range(0, self.count, BATCH)]

    @property
    def info(self) -> dict[str, Any]:
        """Return ``dataset_info.json``, cut to the samples."""
        found: dict[str, Any] = json.loads((REAL / self.list_path).read_text())
        return {**found, "num_samples": self.count, "samples": found["samples"][: self.count]}

    def arrays(self) -> list[dict[str, NDArray[np.float32]]]:
        """Return the arrays of each file, flat, in their order."""
        found = []
        for at, samples in enumerate(self.batches):
            with np.load(REAL / f"activations/{self.model}/batch_{at:06d}.npz") as file:
                count = samples.stop - samples.start
                found.append({name: file[name][:count] for name in file.files})
        return found

    def layer(self, name: str) -> NDArray[np.float32]:
        """Return the activations of a layer, flat, of all samples."""
        return np.concatenate([one[name] for one in self.arrays()])

    @property
    def predicted(self) -> str:
        """Return the folder of what the model gave out: of photographs, their reconstructions."""
        name = f"{self.model}_reconstructed"
        return name if (REAL / "images" / name).exists() else self.model

    def pictures(self, folder: str) -> NDArray[np.uint8]:
        """Return the pixels of a folder of PNGs."""
        paths = [REAL / f"images/{folder}/sample_{at:06d}.png" for at in range(self.count)]
        return np.stack([np.asarray(Image.open(io.BytesIO(path.read_bytes()))) for path in paths])


class Given(nn.Module):
    """A block that gives out what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.output = torch.zeros(1, 2, 4, 4)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        """Return it, whatever comes in."""
        del x, embedding
        return self.output


class UNet(nn.Module):
    """A ``DhariwalUNet``: encoder and decoder by resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleDict({name: Given() for name in ("64x64_conv", "8x8_block3")})
        self.dec = nn.ModuleDict({name: Given() for name in ("8x8_in0", "64x64_block3")})
        self.prediction = torch.zeros(0)

    def forward(
        self, x: torch.Tensor, noise_labels: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Go through the blocks."""
        del class_labels
        for block in (*self.enc.values(), *self.dec.values()):
            x = block(x, noise_labels)
        return self.prediction


class Precond(nn.Module):
    """An ``EDMPrecond`` around a U-Net."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.model = unet

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predict."""
        prediction: torch.Tensor = self.model(x, sigma.log() / 4, class_labels)
        return prediction


class Adapter:
    """An adapter of adapt_diff around an ``EDMPrecond``."""

    hookable_layers = LAYERS

    def __init__(self, unet: UNet) -> None:
        self._model = Precond(unet)

    def forward(
        self, x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Do what the model does."""
        prediction: torch.Tensor = self._model(x, sigma, class_labels)
        return prediction

    def __call__(self, *args: Any) -> torch.Tensor:
        """Do what the model does, as loops call it."""
        return self.forward(*args)

    def register_activation_hooks(self, names: list[str], hook: Callable[..., None]) -> list[Any]:
        """Put a hook on layers."""
        return [layer_modules(self._model)[name].register_forward_hook(hook) for name in names]


def give(unet: UNet, arrays: dict[str, NDArray[np.float32]], pictures: NDArray[np.uint8]) -> None:
    """Let the blocks give out *arrays*, and the model predict *pictures*."""
    modules = layer_modules(unet)
    for name, flat in arrays.items():
        shape = known_shape(name, flat.shape[1])
        assert shape is not None
        vars(modules[name])["output"] = torch.from_numpy(flat.reshape(len(flat), *shape))
    # The middle of what becomes one and the same pixel value.
    unet.prediction = (torch.from_numpy(pictures).permute(0, 3, 1, 2) + 0.5) / 127.5 - 1


@torch.no_grad()
def record(
    store: Store, reference: Reference, around: type[Precond | Adapter], *, inside: bool = False
) -> None:
    """Do what the scripts that wrote the files do: one pass a batch; *inside*, hook the U-Net."""
    info, unet = reference.info, UNet()
    model = around(unet)
    told = {key: info[key] for key in ("conditioning_sigma", "seed")}
    images, predicted = map(reference.pictures, (reference.model, reference.predicted))
    keep = () if inside else ("image",)
    with (
        TraceRecorder(
            store, "run", system="dmd2", metadata={"model": reference.model, **told}
        ) as rec,
        attach(rec, unet if inside else model, LAYERS, keep=keep) as attached,
    ):
        for samples, arrays in zip(reference.batches, reference.arrays(), strict=True):
            listed = info["samples"][samples]
            known = {key: [one[key] for one in listed] for key in TOLD if key in listed[0]}
            give(unet, arrays, predicted[samples])
            known["class_id"] = [one["class_label"] for one in listed]
            sigma = torch.full((len(listed),), info["conditioning_sigma"])
            levels = sigma[:1].tolist() if inside else None
            with attached.batch(samples, sigmas=levels, **known) as batch:
                noise = torch.randn(len(listed), 3, 64, 64) * sigma[0]
                made = picture(model(noise, sigma))
                of_photographs = reference.predicted != reference.model
                batch.images = images[samples] if of_photographs else made
            if of_photographs:
                rec.outputs(samples, reconstructed_image=made)


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.mark.parametrize(
    ("reference", "around", "inside"),
    [
        pytest.param(Reference("imagenet", 8), Precond, False, id="generated"),
        pytest.param(Reference("imagenet", 7), Precond, True, id="the-last-batch-is-short"),
        pytest.param(Reference("imagenet_real", 8), Adapter, False, id="photographs"),
    ],
)
def test_a_recorded_run_is_the_real_data_set(
    store: Store,
    tmp_path: Path,
    reference: Reference,
    around: type[Precond | Adapter],
    *,
    inside: bool,
) -> None:
    """Fields are equal in every value; files byte for byte, but the list, which says more."""
    record(store, reference, around, inside=inside)

    with Archive(store) as archive:
        run = archive.run("run")
        for name in LAYERS:
            flat = reference.layer(name)
            found = run.field("output", layer=name).select({}).array()
            assert (found.shape, found.dtype) == ((1, len(flat), 128, 8, 8), flat.dtype)
            np.testing.assert_array_equal(found.reshape(flat.shape), flat)
        found = run.field("image", place=Place.OUTPUTS).select({}).array()
        np.testing.assert_array_equal(found, reference.pictures(reference.model))
        if not inside:
            found = run.field("image").select({"step": 0}).array()
            np.testing.assert_array_equal(found, reference.pictures(reference.predicted))
        assert run.ledger.step_coordinates["sigma"].values == {0: 80.0}
        made = {f.path: b"".join(MadeFile(f).parts()) for f in export_tree(run).files}

    info, theirs = json.loads(made.pop(reference.list_path)), reference.info
    assert made == files_of(reference, tmp_path)
    assert info.pop("layer_shapes") == {name: [128, 8, 8] for name in LAYERS}
    for mine, one in zip(info.pop("samples"), theirs.pop("samples"), strict=True):
        assert one.items() <= mine.items()
    assert info.items() <= theirs.items()
    assert set(theirs) - set(info) <= {"adapter", "checkpoint", "split"}


def files_of(reference: Reference, folder: Path) -> dict[str, bytes]:
    """Return the files of a data set but its list; a batch that was cut is saved as they do."""
    listed = reference.info["samples"]
    paths = {one[key] for one in listed for key in ("image_path", "reconstructed_path")
             if key in one}  # fmt: skip
    found = {path: (REAL / path).read_bytes() for path in paths}
    for at, arrays in enumerate(reference.arrays()):
        path = listed[at * BATCH]["activation_path"]
        beside = REAL / f"{path}.json"
        if beside.exists():
            found[f"{path}.json"] = beside.read_bytes()
        file = REAL / f"{path}.npz"
        if len(arrays["midblock"]) < BATCH:
            file = folder / "short.npz"
            savez_compressed(file, **arrays)
        found[f"{path}.npz"] = file.read_bytes()
    return found


def test_rows_and_means_of_a_recorded_run_are_those_of_numpy(store: Store) -> None:
    reference = Reference("imagenet", 8)
    record(store, reference, Precond)

    with served(store.url) as url:
        rows = httpx.get(f"{url}/runs/run/export", params={"format": "npy"})
        asked = {"reduce": "mean", "over": "sample", "format": "npy"}
        means = {
            name: httpx.get(f"{url}/runs/run/layers/{name}/output", params=asked) for name in LAYERS
        }

    ordered = [np.concatenate([a[name] for name in sorted(a)], axis=1) for a in reference.arrays()]
    flat = np.concatenate(ordered)
    saved = io.BytesIO()
    np.save(saved, flat)
    assert rows.content == saved.getvalue()
    for name, answer in means.items():
        mean = np.load(io.BytesIO(answer.content))
        wanted = reference.layer(name).astype(np.float64).mean(axis=0)
        np.testing.assert_array_equal(mean, wanted.reshape(1, 128, 8, 8))


def test_a_unet_that_is_told_no_noise_level_is_not_recorded_without(store: Store) -> None:
    """It is given images that were scaled, and a logarithm: neither is what users ask for."""
    unet = UNet()
    with TraceRecorder(store, "run", system="dmd2") as rec:
        with pytest.raises(InvalidInputError, match="the model around the U-Net to keep image of"):
            attach(rec, unet, keep=("image",))
        with (
            attach(rec, unet) as attached,
            pytest.raises(InvalidInputError, match="expected sigmas= of each step"),
            attached.batch(slice(0, 1)),
        ):
            pass
