"""Fields of real traces, step by step, one of each kind that samplers hand over.

The example sampler (a trained network over real regulatory DNA) gives scores, probabilities,
tokens and layers; files as the upstream programs write them give the rest. These are looked for
in ``tests/data``, or in the folder that ``DATA`` names; fields of a system that is not there are
left out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
import torch

from benchmarks.traces import QUICK, STEPS, trace
from examples.dna_sampler import DATA, GeometricNoise, Sampler, encode, read_fasta, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Field = NDArray[Any]

FILES: Final = Path(os.environ.get("DATA", Path(__file__).parents[1] / "tests" / "data"))
NOISE: Final = "noise"
"""How the names of fields without any structure begin."""
_LAYERS: Final = ("blocks.0", "blocks.5")
_SAMPLES: Final = 50
_STEPS: Final = 64


def fields() -> dict[str, Field]:
    """Return fields by name: shape (step, …), of the dtype in which they are stored."""
    found = dict(_sampled())
    simulated = trace()
    every = slice(None, None, max(1, STEPS // 8))
    found["simulated score, float16"] = simulated.score_matrix[every]
    found["simulated probability, float16"] = simulated.prob_matrix[every]
    found["simulated tokens 100 x 249, uint8"] = simulated.sequence[every].astype("uint8")
    for source in (_d3_dna, _dna_diffusion, _dmd2, _vizfold):
        found.update(source())
    random = np.random.default_rng(0)
    found[f"{NOISE}, float32"] = random.normal(size=(4, 8, 256, 256)).astype("float32")
    found[f"{NOISE}, float16"] = found[f"{NOISE}, float32"].astype("float16")
    found[f"{NOISE}, uint8"] = random.integers(0, 256, (4, 64, 64, 64), "uint8")
    return found


def _sampled() -> Iterator[tuple[str, Field]]:
    """Train the example sampler and run it: fields of every 4th step."""
    real, noise = encode(read_fasta(DATA), length=200), GeometricNoise()
    network = train(real, noise, iterations=60 if QUICK else 300)
    taken: dict[str, list[Field]] = {name: [] for name in ("score", "prob", "x", *_LAYERS)}
    given: dict[str, torch.Tensor] = {}
    for layer in _LAYERS:
        network.get_submodule(layer).register_forward_hook(_keeps(given, layer))
    sampler = Sampler(network, noise, steps=_STEPS, length=real.shape[1])
    for step in sampler.steps(_SAMPLES, torch.Generator().manual_seed(0)):
        if step.index % 4 == 0:
            tensors = {"score": step.score, "prob": step.prob, "x": step.x, **given}
            for name, tensor in tensors.items():
                taken[name].append(tensor.numpy().copy())
    fields = {name: np.stack(values) for name, values in taken.items()}
    for field, name in (("score", "score"), ("prob", "probability")):
        yield f"sampler {name}, float32", fields[field]
        yield f"sampler {name}, float16", fields[field].astype("float16")
    yield "sampler tokens, uint8", fields["x"].astype("uint8")
    yield "sampler tokens, int64", fields["x"]
    for layer in _LAYERS:
        values = fields[layer]
        bits = ((values.view("uint32") + 0x8000) >> 16).astype("uint16")
        yield f"sampler {layer}, float32", values
        yield f"sampler {layer}, float16", values.astype("float16")
        yield f"sampler {layer}, bfloat16 bits", bits
        yield f"sampler {layer}, bfloat16 widened", (bits.astype("uint32") << 16).view("float32")


def _keeps(given: dict[str, torch.Tensor], layer: str) -> Callable[..., None]:
    def hook(_module: torch.nn.Module, _given: object, output: torch.Tensor) -> None:
        given[layer] = output.detach()

    return hook


def _d3_dna() -> Iterator[tuple[str, Field]]:
    folder = FILES / "d3_dna"
    if not folder.exists():
        return
    with h5py.File(folder / "sampling_visualization_data.h5") as file:
        steps = [file["steps"][name] for name in sorted(file["steps"])]
        for name in ("score_matrix", "prob_matrix"):
            yield f"d3-dna {name}, float16", np.stack([step[name][()] for step in steps])
        tokens = np.stack([step["sequence"][()] for step in steps])
        yield "d3-dna sequence, uint8", tokens.astype("uint8")
    with np.load(folder / "sampling_reference.npz") as file:
        yield "d3-dna score, float32", file["score"]
        yield "d3-dna prob, float32", file["prob"]


def _dna_diffusion() -> Iterator[tuple[str, Field]]:
    folder = FILES / "dna_diffusion"
    if not folder.exists():
        return
    with np.load(folder / "reference_run.npz") as file:
        yield "dna-diffusion x, float32", file["x"]
        yield "dna-diffusion eps_cond, float32", file["eps_cond"]
    for path in sorted(folder.glob("cross_att_values_*.npy")):
        yield "dna-diffusion cross attention, float32", np.load(path)


def _dmd2() -> Iterator[tuple[str, Field]]:
    folder = FILES / "dmd2"
    if not folder.exists():
        return
    batches = [np.load(path) for path in sorted(folder.glob("data/activations/imagenet/*.npz"))]
    for name in ("encoder_bottleneck", "midblock"):
        yield f"dmd2 {name}, float32", np.stack([batch[name] for batch in batches])
    images = [np.load(path)["data"] for path in sorted(folder.glob("imagenet64/*.npz"))]
    yield "dmd2 images, uint8", np.stack(images).reshape(len(images), -1, 3, 64, 64)


def _vizfold() -> Iterator[tuple[str, Field]]:
    folder = FILES / "vizfold" / "openfold_1UBQ"
    if not folder.exists():
        return
    for name in ("msa_row_attn", "triangle_start_attn"):
        paths = sorted(folder.glob(f"attention_files_1UBQ/{name}_*.npz"))
        values = np.stack([np.load(path)["attn"] for path in paths])
        yield f"vizfold {name}, float32", values
        yield f"vizfold {name}, float16", values.astype("float16")
    for path in sorted(folder.glob("representations/*_pair_*.npy")):
        yield "vizfold pair, float16", np.load(path)[None]
    singles = [np.load(path) for path in sorted(folder.glob("representations/*_single_*.npy"))]
    yield "vizfold single, float32", np.stack(singles)
