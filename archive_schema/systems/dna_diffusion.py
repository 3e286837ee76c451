"""DNA-Diffusion: continuous diffusion over one-hot DNA, guided by cell type.

A step is one turn of the sampler's loop, in its order: step 0 follows the largest model timestep.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration

if TYPE_CHECKING:
    from numpy.typing import NDArray

BASES: Final = "ACGT"
"""Rows of the one-hot matrix, in order."""
_MATRIX: Final = ("channel", "nucleotide", "position")

SYSTEM: Final = SystemDeclaration(
    name="dna-diffusion",
    title="DNA-Diffusion by cell type",
    vocabulary=BASES,
    fields={
        Place.TRACE: {
            "x": FieldDeclaration(("sample", *_MATRIX), description="state after the step"),
            "eps": FieldDeclaration(
                ("sample", "guidance", *_MATRIX),
                description="what the network gave: 0 conditional, 1 unconditional",
            ),
            "cross": FieldDeclaration(
                ("sample", *_MATRIX),
                description="cross-attention's output that was added to eps, conditional half",
            ),
            "tokens": FieldDeclaration(
                ("sample", "position"), tokens=True, description="largest row of x"
            ),
        },
        Place.INPUTS: {
            "x_T": FieldDeclaration(("sample", *_MATRIX), description="noise that x began as"),
        },
        Place.OUTPUTS: {
            "final_sequence": FieldDeclaration(("sample", "position"), tokens=True),
        },
    },
)

TIMESTEP: Final = "timestep"
BETA: Final = "beta"
"""Step coordinates: the model's timestep, T-1 to 0, and its noise variance."""

CELL_TYPE: Final = "cell_type"
TAG: Final = "tag"
CLASS_ID: Final = "class_id"
GUIDANCE_SCALE: Final = "guidance_scale"
SEED: Final = "seed"
BATCH: Final = "batch"
LENGTH: Final = "length"
"""Sample coordinates. A tag is the name in full, ``K562_ENCLB843GMH``, its cell type what is
before the first underscore. `LENGTH` is there only where sequences have not all the same."""

CELL_TYPES: Final = {
    1: "GM12878_ENCLB441ZZZ",
    2: "HepG2_ENCLB029COU",
    3: "hESCT0_ENCLB449ZZZ",
    4: "K562_ENCLB843GMH",
}
"""Tags by class id, of the published weights. The order is that of the training table: other
training data have others."""
UNCONDITIONAL: Final = "unconditional"
"""What stands for the tag of class 0."""

PADDING: Final = 255
"""Token after the end of a sequence that is shorter than others."""

SEQUENCES_FILE: Final = "{tag}.txt"
TIMESTEPS_FILE: Final = "{tag}_save_timesteps.txt"
"""Upstream gives both the name of the first, and so has only one of them."""
CROSS_FILE: Final = "cross_att_values_{tag}.npy"
_SEQUENCES: Final = re.compile(r"(?:final_)?(.+?)(?:_save_timesteps)?\.txt")
_CROSS: Final = re.compile(r"cross_att_values_(.+)\.npy")


def cell_type_of(tag: str) -> str:
    """Return the cell type that *tag* names.

    Examples
    --------
    >>> cell_type_of("K562_ENCLB843GMH"), cell_type_of("K562")
    ('K562', 'K562')
    """
    return tag.partition("_")[0] or tag


def tag_of_sequences(name: str) -> str | None:
    """Return the tag of a file of sequences, final ones or those of all steps; None for others.

    Examples
    --------
    >>> tag_of_sequences("K562_ENCLB843GMH.txt"), tag_of_sequences("final_K562.txt")
    ('K562_ENCLB843GMH', 'K562')
    """
    match = _SEQUENCES.fullmatch(name)
    return match[1] if match else None


def tag_of_cross(name: str) -> str | None:
    """Return the tag of a file of cross maps; None for other files."""
    match = _CROSS.fullmatch(name)
    return match[1] if match else None


OTHER_LETTERS: Final = "BDEFHIJKLMNOPQRSUVWXYZabcdefghijklmnopqrstuvwxyz*.-"
"""What may stand in a sequence that somebody edited: a token that is its own ASCII code, 78 for
N."""


def _codes() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    tokens, letters = np.full(256, PADDING, np.uint8), np.full(256, ord("N"), np.uint8)
    bases, others = (np.frombuffer(text.encode(), np.uint8) for text in (BASES, OTHER_LETTERS))
    tokens[bases], tokens[others] = np.arange(len(bases)), others
    letters[: len(bases)], letters[others] = bases, others
    return tokens, letters


TOKENS, LETTERS = _codes()
"""Token by letter, `PADDING` where it is none, and letter by token, N where it is none; uint8,
shape (256,)."""
