"""DMD2's visualizer and its successors: activations of diffusion models on images.

A run is one model's data set: a sample is one image, and a layer one of the model's blocks by the
name that the visualizer's hooks give it (``encoder_bottleneck``). A data set that was made in one
forward pass has the one step 0; a trajectory has a step for each noise level.
"""

from __future__ import annotations

import re
from typing import Final

from archive_schema.models import Place
from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration

OUTPUT: Final = "output"
"""The field of a layer: what the block gave out."""
IMAGE: Final = "image"
"""The picture of a sample: generated, or real where the data set is of real images."""
RECONSTRUCTED: Final = "reconstructed_image"
PROJECTION: Final = "umap"
"""Where each step of a trajectory lies in the projection of the data set."""

SIGMA: Final = "sigma"
"""Step coordinate, the noise level as the model takes it; so is TIMESTEP where it counts those."""
TIMESTEP: Final = "timestep"

SAMPLE_ID: Final = "sample_id"
CLASS_ID: Final = "class_id"
CLASS: Final = "class"
SYNSET: Final = "synset_id"
CONDITIONING_SIGMA: Final = "conditioning_sigma"
ORIGINAL_PATH: Final = "original_path"
SOURCE: Final = "source"
CAPTION: Final = "caption"
SEED: Final = "seed"
ACTIVATION_PATH: Final = "activation_path"
BATCH_INDEX: Final = "batch_index"
IMAGE_PATH: Final = "image_path"
RECONSTRUCTED_PATH: Final = "reconstructed_path"
UMAP_AXES: Final = ("umap_x", "umap_y", "umap_z")
"""Sample coordinates."""

RENAMED: Final = {"class_label": CLASS_ID, "class_name": CLASS}
"""Keys of ``dataset_info.json`` that are called otherwise here; batch files say ``class_id``."""

CLASS_NAMES: Final = "class_names"
CLASS_SYNSETS: Final = "class_synsets"
"""Inputs, the codebook of the run: the entry at a class id is that class."""
CLASS_ORDER: Final = "class_order"
"""Metadata: how the classes are numbered, an `archive_schema.systems.imagenet.ClassOrder`."""

ACTIVATION_DIGEST: Final = "activation_digest"
"""Sample coordinate of imported runs: tells the file at `ACTIVATION_PATH` from others there."""

MODEL: Final = "model"
"""Metadata: the name of the folders below ``activations`` and ``metadata``."""
GUIDANCE: Final = "guidance"
"""The axis that layers of a guided sampler have: 0 is conditional, 1 unconditional."""

_SIDES: Final = {"encoder_bottleneck": 8, "midblock": 8}
_ENCODER_SIDES: Final = (64,) * 4 + (32,) * 4 + (16,) * 4 + (8,) * 4
_DECODER_SIDES: Final = (8,) * 6 + (16,) * 5 + (32,) * 5 + (64,) * 5
_BLOCK: Final = re.compile(r"(encoder|decoder)_block_([0-9]{1,2})")


def known_shape(layer: str, features: int) -> tuple[int, int, int] | None:
    """Return (channel, row, column) of a layer of the 64 x 64 model; None if it is none.

    Its blocks have a fixed height and width, and as many channels as the rest of *features*, the
    length of the flattened activation.

    Examples
    --------
    >>> known_shape("midblock", 49152), known_shape("decoder_block_20", 786432)
    ((768, 8, 8), (192, 64, 64))
    """
    side = _SIDES.get(layer)
    if match := _BLOCK.fullmatch(layer):
        sides = _ENCODER_SIDES if match[1] == "encoder" else _DECODER_SIDES
        at = int(match[2])
        side = sides[at] if at < len(sides) else None
    if side is None or features == 0 or features % (side * side):
        return None
    return features // (side * side), side, side


def layer_axes(shape: tuple[int, ...], *, guided: bool = False) -> tuple[str, ...]:
    """Return the names of a layer's axes, from the shape of one sample of one forward pass."""
    names = {1: ("feature",), 2: ("token", "feature"), 3: ("channel", "row", "column")}
    inner = names.get(len(shape)) or tuple(f"axis_{at}" for at in range(len(shape)))
    return ("sample", *((GUIDANCE,) if guided else ()), *inner)


_PICTURE: Final = ("sample", "row", "column", "channel")

SYSTEM: Final = SystemDeclaration(
    name="dmd2",
    title="DMD2 visualizer, diffviews and adapt_diff",
    fields={
        Place.TRACE: {
            IMAGE: FieldDeclaration(_PICTURE, description="what the model predicts at the step"),
            "noised_image": FieldDeclaration(_PICTURE, description="what the model is given"),
            PROJECTION: FieldDeclaration(("sample", "axis"), description="x, y and perhaps z"),
        },
        Place.INPUTS: {
            IMAGE: FieldDeclaration(_PICTURE, description="photographs, as a model is given them"),
            CLASS_NAMES: FieldDeclaration(("class",), description="by class id"),
            CLASS_SYNSETS: FieldDeclaration(("class",), description="by class id"),
            "dataset_info": FieldDeclaration(("byte",), description="of files; dmd2_files"),
            "activation_files": FieldDeclaration(("file_byte",)),
            "embeddings": FieldDeclaration(("table_byte",)),
        },
        Place.OUTPUTS: {
            IMAGE: FieldDeclaration(_PICTURE),
            RECONSTRUCTED: FieldDeclaration(_PICTURE),
        },
    },
    layers={"*": {OUTPUT: FieldDeclaration(("sample", "channel", "row", "column"))}},
)
