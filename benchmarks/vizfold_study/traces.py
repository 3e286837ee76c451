"""What the study stores: a folding model's activations, attention and outputs, array by array.

The shapes are those of the original: 8 heads, single (N, 384), pair (N, N, 128), attention
(8, N, N). *random* holds its random normals, which no codec shrinks. *realistic* holds attention
and float16 activations with the roughness of real ones, from the sample beside this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HEADS: Final = 8
SINGLE: Final = 384
PAIR: Final = 128
SAMPLE: Final = Path(__file__).parent / "sample_1UBQ.npz"
"""OpenFold on ubiquitin: attention of 3 blocks (3, 8, 76, 76), and corners of pair and single."""


@dataclass(frozen=True, slots=True)
class FoldingTrace:
    """One run of a folding model.

    Parameters
    ----------
    residues : int
        N of the shapes.
    layers : int
        How many; each has single, pair and attention.
    """

    residues: int
    layers: int
    kind: Literal["random", "realistic"] = "random"

    @property
    def paths(self) -> list[str]:
        """Names of all arrays, as the original's HDF5 and Zarr have them."""
        layers = [f"layer_{number}" for number in range(self.layers)]
        return [
            *(
                path
                for layer in layers
                for path in (
                    f"activations/{layer}/single",
                    f"activations/{layer}/pair",
                    f"attention/{layer}",
                )
            ),
            "outputs/coords",
            "outputs/conf",
        ]

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the shape of one array."""
        n = self.residues
        shapes = {"single": (n, SINGLE), "pair": (n, n, PAIR), "coords": (n, 3), "conf": (n,)}
        return shapes.get(path.rpartition("/")[2], (HEADS, n, n))

    def nbytes(self, path: str) -> int:
        """Return the bytes of one array."""
        short = self.kind == "realistic" and path.startswith("activations")
        return (2 if short else 4) * math.prod(self.shape(path))

    def array(self, path: str) -> NDArray[Any]:
        """Return one array; the same at every call, in every process."""
        random = np.random.default_rng([42, self.residues, *path.encode()])
        name, shape = path.rpartition("/")[2], self.shape(path)
        if self.kind == "random" or name in ("coords", "conf"):
            return random.standard_normal(shape, dtype=np.float32)
        return _realistic(random, name, shape)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield all arrays, one at a time: a large run does not fit memory."""
        for path in self.paths:
            yield path, self.array(path)


def _realistic(
    random: np.random.Generator, name: str, shape: tuple[int, ...]
) -> NDArray[np.float32] | NDArray[np.float16]:
    sample = _sample()
    if name.startswith("layer_"):
        maps = sample["attention"]
        layer = maps[int(name.removeprefix("layer_")) % len(maps)]
        logits = np.stack([_larger(random, np.log(head), shape[1:]) for head in layer])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        shares: NDArray[np.float32] = weights / weights.sum(-1, keepdims=True)
        return shares
    channels = np.moveaxis(sample[name].astype(np.float32), -1, 0)
    values = np.empty(shape, np.float16)
    for channel in range(shape[-1]):
        values[..., channel] = _larger(random, channels[channel % len(channels)], shape[:-1])
    return values


def _larger(
    random: np.random.Generator, values: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Interpolate *values* to *shape*, and make them as rough as they were.

    Interpolated values alone are smooth, and would compress better than any real ones.
    """
    smooth = values
    for axis, length in enumerate(shape):
        smooth = _stretched(smooth, axis, length)
    steps = np.diff(values, axis=-1).std()
    left = np.diff(smooth, axis=-1).std()
    noise = np.float32(math.sqrt(max(float(steps**2 - left**2), 0.0) / 2))
    rough: NDArray[np.float32] = smooth + noise * random.standard_normal(shape, dtype=np.float32)
    return rough


def _stretched(values: NDArray[np.float32], axis: int, length: int) -> NDArray[np.float32]:
    """Interpolate one axis linearly to *length* entries."""
    at = np.linspace(0, values.shape[axis] - 1, length, dtype=np.float32)
    low = np.minimum(at.astype(np.intp), values.shape[axis] - 2)
    weight = (
        (at - low)
        .astype(np.float32)
        .reshape([-1 if one == axis else 1 for one in range(values.ndim)])
    )
    lower, upper = values.take(low, axis), values.take(low + 1, axis)
    result: NDArray[np.float32] = lower + weight * (upper - lower)
    return result


@lru_cache(maxsize=1)
def _sample() -> dict[str, NDArray[Any]]:
    with np.load(SAMPLE) as file:
        return {name: file[name] for name in file.files}
