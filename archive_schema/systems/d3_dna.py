"""D3-DNA: discrete diffusion over DNA, as its visualization logger records it.

What the logger's files and a run have in common lies here too: an importer and an exporter
have to agree on names, and on what an imported run keeps of its file.
"""

from __future__ import annotations

from typing import Final

from archive_schema.models import Place
from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration

_MATRIX: Final = ("sample", "position", "channel")

SYSTEM: Final = SystemDeclaration(
    name="d3-dna",
    title="D3-DNA discrete diffusion",
    vocabulary="ACGT",
    fields={
        Place.TRACE: {
            "sequence": FieldDeclaration(
                ("sample", "position"), tokens=True, description="state before the step's update"
            ),
            "score_matrix": FieldDeclaration(_MATRIX, description="exp(log-score): ratios"),
            "prob_matrix": FieldDeclaration(
                _MATRIX, description="staggered score x transition, unnormalised"
            ),
            "stag_scores": FieldDeclaration(_MATRIX),
            "transition_matrices": FieldDeclaration(_MATRIX),
            "attribution_matrix": FieldDeclaration(_MATRIX),
            "oracle_mse": FieldDeclaration(("sample",)),
            "oracle_predictions": FieldDeclaration(("sample", "output")),
            "ground_truth_labels": FieldDeclaration(("sample", "output")),
        },
        Place.INPUTS: {
            "original_samples": FieldDeclaration(("sample", "position"), tokens=True),
            "ground_truth_labels": FieldDeclaration(("sample", "output")),
            "ground_truth_predictions": FieldDeclaration(("sample", "output")),
            "ground_truth_oracle_predictions": FieldDeclaration(("sample", "output")),
            "dataset_indices": FieldDeclaration(("sample",)),
            "sigma_values": FieldDeclaration(("noise",)),
        },
        Place.OUTPUTS: {
            "final_sequence": FieldDeclaration(("sample", "position"), tokens=True),
        },
    },
)

NPZ_KEYS: Final = {
    "sequence": "sequences",
    "score_matrix": "score_matrices",
    "prob_matrix": "prob_matrices",
    "attribution_matrix": "attribution_matrices",
    "oracle_mse": "oracle_mses",
}
"""Keys of trace fields in an NPZ file and in the viewer's JSON; others have the field's name."""

COORDINATES: Final = {
    "timestep": "timesteps",
    "noise_level": "noise_levels",
    "noise_rate": "noise_rates",
}
"""Step coordinates, float64, and their keys in an NPZ file."""

ATTRIBUTES: Final = (
    "dataset",
    "num_samples",
    "sequence_length",
    "total_steps",
    "architecture",
    "split",
    "save_oracle_mse",
)
"""Metadata that the logger writes, in its order."""

NOISE_SCHEDULE: Final = "noise_schedule"
"""The metadata that is itself a group: ``type``, ``sigma_min``, ``sigma_max``."""

SIGMA_VALUES: Final = "sigma_values"
"""The one input that lies in the noise schedule's group."""

IMPORTED: Final = "imported"
"""Metadata of an imported run: ``format``, ``generation``, and ``dtypes`` that JSON does not
tell, by attribute (``sigma_max``, ``noise_schedule.sigma_max``)."""

LOGGER_DTYPES: Final = {
    "sequence": "int64",
    "score_matrix": "float16",
    "prob_matrix": "float16",
    "oracle_mse": "float32",
    "oracle_predictions": "float32",
    "original_samples": "int64",
    "ground_truth_labels": "float32",
    "ground_truth_predictions": "float32",
    "dataset_indices": "int64",
}
"""What the logger casts to, whatever it is handed. An imported run keeps what its file had."""
