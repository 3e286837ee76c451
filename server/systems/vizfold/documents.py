"""What is told of a prediction, as documents."""

from typing import Any

from archive_schema.wire import WireDocument
from server.systems.vizfold.prediction import Prediction


class PredictionDocument(WireDocument):
    """What there is to ask for: what the offline reader of VizFold calls metadata."""

    run: str
    protein_id: str
    sequence: str | None
    attention_types: tuple[str, ...]
    layers_by_type: dict[str, tuple[int, ...]]
    layer_names_by_type: dict[str, tuple[str, ...]]
    heads_by_type: dict[str, dict[int, tuple[int, ...]]]
    residue_indices_by_type: dict[str, dict[int, tuple[int, ...]]]
    """Where there is a map a residue: of which residues, at the last pass."""
    sparse_types: tuple[str, ...]
    """Those of which some layer has only the strongest entries."""
    recycles: tuple[int, ...]
    """Passes that are recorded."""
    schema_version: str | None
    archive_kind: str
    model_family: str | None
    model_version: str | None
    structure_available: bool
    capabilities: tuple[str, ...]
    extras: dict[str, Any]


class SummaryDocument(WireDocument):
    """Statistics a layer, by ``<layer>/<field>``."""

    run: str
    recycle: int | None
    """None where nobody knows which pass it is."""
    attention: dict[str, dict[str, float | None]]
    activations: dict[str, dict[str, float | None]]


def describe(prediction: Prediction) -> PredictionDocument:
    """Return what there is to ask for."""
    layers: dict[str, list[int]] = {}
    names: dict[str, list[str]] = {}
    heads: dict[str, dict[int, tuple[int, ...]]] = {}
    residues: dict[str, dict[int, tuple[int, ...]]] = {}
    last = prediction.step() if prediction.run.steps else 0
    for one in prediction.attention:
        if one.layer not in names.setdefault(one.kind, []):
            names[one.kind].append(one.layer)
            layers.setdefault(one.kind, []).append(one.number)
            heads.setdefault(one.kind, {})[one.number] = one.heads
        told = one.residues(last)
        if told:
            residues.setdefault(one.kind, {})[one.number] = tuple(told)
    fields = prediction.run.fields()
    recorded = {field.spec.name for field in fields}
    structure = bool({"pdb", "final_atom_positions", "coordinates"} & recorded)
    capabilities = ["metadata", "partial_loading"]
    capabilities += ["attention"] if names else []
    capabilities += ["structure"] if structure else []
    told_of = prediction.run.manifest.metadata

    def text(*keys: str) -> str | None:
        return next((str(told_of[key]) for key in keys if told_of.get(key) is not None), None)

    return PredictionDocument(
        run=prediction.run.manifest.id,
        protein_id=prediction.protein,
        sequence=prediction.sequence,
        attention_types=tuple(prediction.kinds()),
        layers_by_type={kind: tuple(found) for kind, found in layers.items()},
        layer_names_by_type={kind: tuple(found) for kind, found in names.items()},
        heads_by_type=heads,
        residue_indices_by_type=residues,
        sparse_types=tuple(sorted({one.kind for one in prediction.attention if one.sparse})),
        recycles=tuple(sorted(prediction.passes)),
        schema_version=text("schema_version", "archive_version", "spec_version"),
        archive_kind="trace-archive",
        model_family=text("model_family", "model_name", "model"),
        model_version=text("model_version", "config_version", "config"),
        structure_available=structure,
        capabilities=tuple(capabilities),
        extras={
            "num_residues": text("num_residues"),
            "num_recycles": text("num_recycles"),
            "arrays": {field.path: list(field.shape) for field in fields},
        },
    )
