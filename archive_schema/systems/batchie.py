"""BATCHIE: Bayesian experiments on drug combinations, as its simulations write them.

A run is one simulation of one screen; a step is one plate folder, ``iter_I/plate_J/<screen>/``; a
layer is one file in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from archive_schema.models import Place
from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration

if TYPE_CHECKING:
    from collections.abc import Mapping

ITER: Final = "iter"
PLATE: Final = "plate"
ATTEMPT: Final = "attempt"
"""Step coordinates. A plate folder that was done again is another step, of the next attempt."""
SELECTED: Final = "selected_plate"
"""Step coordinate: id of the plate that was chosen; -1 where none was eligible."""

METADATA_FILE: Final = "screen_metadata.json"
"""The last file that is written to a plate folder; its numbers become step coordinates."""
SELECTED_FILE: Final = "selected_plate"
UNOBSERVED: Final = "n_unobserved_plates"
"""Of the metadata: a simulation is at its end when there are none."""

PRIVATE: Final = "private_params"
SHARED: Final = "shared_params"
"""Groups of a file of thetas."""
SHARED_PREFIX: Final = "shared_"


def _ragged(*dims: str, description: str = "") -> FieldDeclaration:
    return FieldDeclaration(dims, ragged=True, description=description)


_FILE: Final = {
    "file": _ragged("byte", description="what of the file is no value, as JSON"),
    "content": _ragged("byte", description="the bytes of a file that holds no arrays"),
}


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of HDF5 file: how its layers are named, and what must be in it."""

    name: str
    pattern: re.Pattern[str]
    """Of layers; its group, if it has one, is the number of the chunk or chain."""
    fields: Mapping[str, FieldDeclaration]
    required: frozenset[str]
    """Datasets, and attributes of the root, without which a file is not whole."""
    parts: bool = field(default=False)
    """Whether there is one for each chunk or chain, numbered from 0."""

    def number(self, layer: str) -> int:
        """Return the number of the chunk or chain; 0 for a kind without."""
        match = self.pattern.fullmatch(layer)
        return int(match[1] or 0) if match and self.pattern.groups else 0


_EXPERIMENT: Final = ("experiment",)
_SCREEN_FIELDS: Final = {
    "treatment_names": _ragged("experiment", "treatment"),
    "treatment_doses": _ragged("experiment", "treatment"),
    "treatment_ids": _ragged("experiment", "treatment", description="-1 for the control"),
    "observations": _ragged(*_EXPERIMENT),
    "observation_mask": _ragged(*_EXPERIMENT, description="whether the plate is observed"),
    "sample_ids": _ragged(*_EXPERIMENT),
    "sample_names": _ragged(*_EXPERIMENT),
    "plate_ids": _ragged(*_EXPERIMENT, description="of this file only; join plates by name"),
    "plate_names": _ragged(*_EXPERIMENT),
    "treatment_mapping_names": _ragged("treatment_row"),
    "treatment_mapping_doses": _ragged("treatment_row"),
    "treatment_mapping_ids": _ragged("treatment_row"),
    "sample_mapping_names": _ragged("sample_row"),
    "sample_mapping_ids": _ragged("sample_row"),
}
_THETA_FIELDS: Final = {
    "W": _ragged("draw", "sample_id", "embedding"),
    "W0": _ragged("draw", "sample_id"),
    "V2": _ragged("draw", "treatment_id", "embedding"),
    "V1": _ragged("draw", "treatment_id", "embedding"),
    "V0": _ragged("draw", "treatment_id"),
    "alpha": _ragged("draw"),
    "precision": _ragged("draw"),
    "obs_sigma": _ragged("draw"),
    "mean_obs_sigma": _ragged("draw", "grid"),
    "sample_embeddings": _ragged("draw", "sample_id", "one", "embedding"),
    "single_drug_embeddings": _ragged("draw", "drug", "grid", "embedding"),
    "combo_drug_embeddings": _ragged("draw", "drug", "grid", "embedding"),
    "sample_sigma_embeddings": _ragged("draw", "sample_id", "embedding"),
    "single_drug_sigma_embeddings": _ragged("draw", "drug", "embedding"),
    "combo_drug_sigma_embeddings": _ragged("draw", "drug", "embedding"),
    f"{SHARED_PREFIX}single_effect_lookup_keys1": _ragged("effect", description="sample id"),
    f"{SHARED_PREFIX}single_effect_lookup_keys2": _ragged("effect", description="treatment id"),
    f"{SHARED_PREFIX}single_effect_lookup_vals": _ragged("effect"),
}
_DRAW_FIELDS: Final = {
    name: _ragged(*declared.dims[1:])
    for name, declared in _THETA_FIELDS.items()
    if not name.startswith(SHARED_PREFIX)
}

SCREEN: Final = FileKind(
    "screen",
    re.compile(r"(?:advanced_screen|.*\.screen)"),
    _SCREEN_FIELDS,
    frozenset(
        ("treatment_names", "treatment_doses", "observations", "observation_mask", "sample_names",
         "plate_names", "control_treatment_name")
    ),
)  # fmt: skip
THETAS: Final = FileKind(
    "thetas",
    re.compile(r"thetas_([0-9]+)"),
    _THETA_FIELDS,
    frozenset(("n_thetas", "theta_class", "theta_module")),
    parts=True,
)
DISTANCES: Final = FileKind(
    "distances",
    re.compile(r"distance_matrix(?:_chunk_([0-9]+))?"),
    {
        "row_indices": _ragged("pair", description="theta: position over all chains"),
        "col_indices": _ragged("pair"),
        "values": _ragged("pair"),
        "size": _ragged("one", description="number of thetas"),
    },
    frozenset(("row_indices", "col_indices", "values", "size")),
    parts=True,
)
SCORES: Final = FileKind(
    "scores",
    re.compile(r"score_chunk_([0-9]+)"),
    {
        "scores": _ragged("plate_entry", description="lower is better"),
        "plate_ids": _ragged("plate_entry"),
    },
    frozenset(("scores", "plate_ids", "current_index")),
    parts=True,
)
EVALUATION: Final = FileKind(
    "evaluation",
    re.compile(r"model_evaluation"),
    {
        "predictions": _ragged("experiment", "theta"),
        "observations": _ragged("experiment"),
        "chain_ids": _ragged("theta"),
        "sample_names": _ragged("experiment"),
    },
    frozenset(("predictions", "observations", "chain_ids", "sample_names")),
)
_DRAW_LAYER: Final = re.compile(r"thetas_[0-9]+\.draw_[0-9]+")
KINDS: Final = (SCREEN, THETAS, DISTANCES, SCORES, EVALUATION)


def draw_layer(chain: int, draw: int) -> str:
    """Return the layer of a draw that is recorded as it is made, before its chain is a file."""
    return f"thetas_{chain}.draw_{draw}"


def is_draw(layer: str) -> bool:
    """Return whether *layer* is a `draw_layer`, and so no file."""
    return _DRAW_LAYER.fullmatch(layer) is not None


def kind_of(layer: str) -> FileKind | None:
    """Return the kind of the HDF5 file that *layer* is; None for any other file."""
    return next((kind for kind in KINDS if kind.pattern.fullmatch(layer)), None)


SYSTEM: Final = SystemDeclaration(
    name="batchie",
    title="BATCHIE screens and simulations",
    fields={
        Place.TRACE: {
            "observations": FieldDeclaration(("sample",), description="of the advanced screen"),
            "observation_mask": FieldDeclaration(("sample",)),
        },
    },
    layers={
        "advanced_screen": _SCREEN_FIELDS | _FILE,
        "*.screen": _SCREEN_FIELDS | _FILE,
        "thetas_*.draw_*": _DRAW_FIELDS,
        "thetas_*": _THETA_FIELDS | _FILE,
        "distance_matrix*": dict(DISTANCES.fields) | _FILE,
        "score_chunk_*": dict(SCORES.fields) | _FILE,
        "model_evaluation": dict(EVALUATION.fields) | _FILE,
        "*": _FILE,
    },
)
