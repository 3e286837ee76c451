"""Data folders as DMD2's programs write them, small, and as odd as they come."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from tests.systems.saved import savez_compressed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

REAL: Final = Path(__file__).parents[1] / "data/dmd2/data"
LAYERS: Final = ("encoder_bottleneck", "midblock")
FEATURES: Final = 2 * 8 * 8
MODEL: Final = "imagenet"


def activations(count: int, seed: int, layers: Sequence[str] = LAYERS) -> dict[str, NDArray[Any]]:
    """Return what a batch's file holds."""
    rng = np.random.default_rng(seed)
    return {one: rng.standard_normal((count, FEATURES)).astype(np.float32) for one in layers}


def write_npz(root: Path, name: str, arrays: dict[str, NDArray[Any]], model: str = MODEL) -> Path:
    """Write a file of activations, as its programs do."""
    path = root / "activations" / model / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    savez_compressed(path, **arrays)
    return path


def write_json(root: Path, path: str, document: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps(document, indent=2))


def write_picture(root: Path, path: str, seed: int = 0, side: int = 8) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(out.getvalue())


def sample(number: int, batch: int, index: int, model: str = MODEL, **others: Any) -> Any:
    """Return a sample as ``dataset_info.json`` lists it."""
    return {
        "sample_id": f"sample_{number:06d}",
        "class_label": number % 3,
        "image_path": f"images/{model}/sample_{number:06d}.png",
        "activation_path": f"activations/{model}/batch_{batch:06d}",
        "batch_index": index,
        **others,
    }


def write_info(root: Path, samples: list[Any], model: str = MODEL, **others: Any) -> None:
    """Write ``dataset_info.json``, which comes last."""
    labels = {"0": ["n1", "tench"], "1": ["n2", "goldfish"], "2": ["n3", "shark"]}
    document = {
        "model_type": model,
        "num_samples": len(samples),
        "layers": list(LAYERS),
        "conditioning_sigma": 80.0,
        "seed": 10,
        "class_labels": labels,
        **others,
        "samples": samples,
    }
    write_json(root, f"metadata/{model}/dataset_info.json", document)


def write_set(root: Path, sizes: Sequence[int] = (4, 2), *, pictures: bool = True) -> list[Any]:
    """Write a whole data set of batches of *sizes*; return its list of samples."""
    samples: list[Any] = []
    for batch, size in enumerate(sizes):
        write_npz(root, f"batch_{batch:06d}", activations(size, batch))
        samples += [sample(len(samples) + at, batch, at) for at in range(size)]
    for number, one in enumerate(samples if pictures else ()):
        write_picture(root, one["image_path"], number)
    write_info(root, samples)
    return samples
