"""D3-DNA: discrete diffusion over DNA, as its visualization logger records it."""

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
