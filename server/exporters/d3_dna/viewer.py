"""The JSON that d3-viz reads: ``{"metadata": {…}, "steps": [{…}]}``, arrays nested."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.d3_dna import COORDINATES, NPZ_KEYS
from server.exporters.d3_dna.log import Log, listed
from server.exporters.json_text import JsonArray
from server.exporters.virtual_file import Content, Literal, VirtualFile

if TYPE_CHECKING:
    from archive_schema.systems.attributes import Attribute
    from server.exporters.cut import Cut
    from server.query.field import FieldView

_METADATA: Final = ("dataset", "num_samples", "sequence_length", "total_steps", "architecture")
_INPUTS: Final = (
    "original_samples",
    "ground_truth_labels",
    "ground_truth_predictions",
    "dataset_indices",
)
_MATRICES: Final = (
    "score_matrix",
    "prob_matrix",
    "stag_scores",
    "transition_matrices",
    "attribution_matrix",
)
_COLUMNS: Final = ("ground_truth_labels", "ground_truth_predictions", "oracle_predictions")
"""Read as rows of outputs by the viewer, also where there is one output a sample."""


def viewer_json(cut: Cut) -> tuple[VirtualFile, tuple[str, ...]]:
    """Return the viewer's JSON of *cut*, and notes on what it does not hold."""
    log = Log.of(cut)
    notes = list(cut.notes)
    metadata: dict[str, bytes | JsonArray] = {
        key: _text(log.attributes[key]) for key in _METADATA if key in log.attributes
    }
    # The viewer's slider runs over total_steps, and it looks up num_samples rows.
    metadata |= {"num_samples": _text(len(cut.samples)), "total_steps": _text(len(cut.steps))}
    inputs = {field.spec.name: field for field in log.inputs}
    metadata |= {name: _array(log, inputs[name], None) for name in _INPUTS if name in inputs}
    parts: list[Content] = [Literal(b'{"metadata":'), *_object(metadata), Literal(b',"steps":[')]
    for at, step in enumerate(cut.steps):
        parts += [Literal(b"," if at else b""), *_object(_step(log, step))]
    parts.append(Literal(b"]}\n"))
    shown = {"sequence", "oracle_mse", "oracle_predictions", *_MATRICES}
    left = [f.path for f in cut.fields(*Place) if f.spec.name not in (*shown, *inputs)]
    if left:
        notes.append(f"the viewer does not know {listed(left)}: left out")
    return VirtualFile(parts), tuple(notes)


def _step(log: Log, step: int) -> dict[str, bytes | JsonArray]:
    attributes = log.step_attributes(step)
    members: dict[str, bytes | JsonArray] = {"step": _text(step)}
    members |= {name: _text(attributes.get(name)) for name in COORDINATES}
    # The viewer looks it up without asking whether it is there.
    members["oracle_mses"] = b"[]"
    for field in log.traced:
        name = field.spec.name
        known = name in ("sequence", "oracle_predictions", *_MATRICES)
        # A value for the whole batch, as one oracle gives it, is no list of samples.
        listed_by_sample = name == "oracle_mse" and field.spec.sampled
        if log.cut.has(field, step) and (known or listed_by_sample):
            members[NPZ_KEYS.get(name, name)] = _array(log, field, step)
    return members


def _array(log: Log, field: FieldView, step: int | None) -> JsonArray:
    values = log.values(field, step)
    columns = field.spec.name in _COLUMNS and len(values.shape) == 1
    return JsonArray(values, columns=columns)


def _object(members: dict[str, bytes | JsonArray]) -> list[Content]:
    parts: list[Content] = []
    for at, (name, value) in enumerate(members.items()):
        before = b"," if at else b"{"
        parts.append(Literal(before + json.dumps(name).encode() + b":"))
        parts.append(Literal(value) if isinstance(value, bytes) else value)
    return [*parts, Literal(b"}")]


def _text(value: Attribute | None) -> bytes:
    plain: Any = value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(plain, float) and not math.isfinite(plain):
        plain = None
    return json.dumps(plain).encode()
