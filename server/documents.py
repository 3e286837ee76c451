"""What the service says of runs, steps and fields, as documents of `archive_schema.wire`."""

from __future__ import annotations

import math
from bisect import bisect_left
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.annotations import tags_of
from archive_schema.dtypes import numpy_dtype
from archive_schema.ledger import ABSENT
from archive_schema.models import Place
from archive_schema.wire import (
    AnnotationsDocument,
    Changes,
    CoordinateTable,
    FieldDocument,
    FieldSummary,
    FieldTable,
    LayerDocument,
    LayerTable,
    RunDocument,
    RunSummary,
    StepDocument,
    WriterDocument,
    step_ranges,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.annotations import Annotations
    from archive_schema.ledger import Coordinate
    from archive_schema.openings import Opening
    from server.query import FieldView, RunView


def run_summary(run: RunView, annotations: Annotations | None) -> RunSummary:
    """Return a run as it stands in a list, with what people said of it since."""
    return RunSummary(**_summary(run, annotations))


def annotations_document(run: RunView, annotations: Annotations | None) -> AnnotationsDocument:
    """Return what people said of a run."""
    return AnnotationsDocument(
        tags=tags_of(run.manifest, annotations),
        note="" if annotations is None else annotations.note,
        changed=None if annotations is None else annotations.time,
    )


def run_document(run: RunView, annotations: Annotations | None) -> RunDocument:
    """Return everything about a run but its values, with what people said of it since."""
    ledger, manifest, seal = run.ledger, run.manifest, run.records.seal
    return RunDocument(
        **_summary(run, annotations),
        uid=manifest.uid,
        step_ranges=step_ranges(run.steps),
        declared_steps=manifest.steps,
        declared_samples=manifest.samples,
        declared_writers=manifest.writers,
        writers=tuple(_writer(one) for one in run.writers),
        step_coordinates={c.name: c.dtype for c in _listed(ledger.step_coordinates)},
        sample_coordinates={c.name: c.dtype for c in _listed(ledger.sample_coordinates)},
        fields=field_table(run, Place.TRACE).fields,
        layers=layer_table(run).layers,
        inputs=field_table(run, Place.INPUTS).fields,
        outputs=field_table(run, Place.OUTPUTS).fields,
        sealed=None if seal is None else seal.time,
        version=run.version,
    )


def _writer(opening: Opening) -> WriterDocument:
    claim = opening.claim
    return WriterDocument(
        name=claim.writer,
        state=opening.state,
        reason=opening.reason,
        host=claim.host,
        process=claim.process,
        samples=claim.samples,
        opened=claim.time,
        heard=datetime.fromtimestamp(opening.heard_s, UTC),
        tiles=opening.tiles,
    )


def field_table(run: RunView, place: Place) -> FieldTable:
    """Return the fields of one place."""
    return FieldTable(fields=tuple(field_document(field) for field in run.fields(place)))


def layer_table(run: RunView) -> LayerTable:
    """Return every layer with its fields."""
    fields: dict[str, list[FieldDocument]] = {}
    for field in run.fields(Place.LAYERS):
        fields.setdefault(field.spec.layer or "", []).append(field_document(field))
    layers = (LayerDocument(name=name, fields=tuple(found)) for name, found in fields.items())
    return LayerTable(layers=tuple(layers))


def field_document(field: FieldView) -> FieldDocument:
    """Return one field over all its recorded steps."""
    spec, ledger = field.spec, field.ledger
    steps = ledger.steps
    counts = ledger.counts(steps)
    if spec.ragged:
        held = sum(math.prod(ledger.shape_at(step) or ()) for step in steps)
    elif spec.sampled:
        held = int(counts[counts != ABSENT].sum()) * math.prod(spec.tail)
    else:
        held = int((counts != ABSENT).sum()) * math.prod(spec.tail)
    return FieldDocument(
        name=spec.name,
        layer=spec.layer,
        dims=field.dims,
        shape=field.shape,
        dtype=spec.dtype,
        place=spec.place.value,
        source_dtype=spec.source_dtype,
        ragged=spec.ragged,
        steps=step_ranges(field.steps),
        bytes=held * numpy_dtype(spec.dtype).itemsize,
        stored_bytes=ledger.nbytes,
        complete=_complete(field, counts),
        attributes=spec.attributes,
    )


def step_document(run: RunView, step: int) -> StepDocument:
    """Return one recorded step: its coordinates, and the fields recorded at it."""
    fields = []
    for field in (*run.fields(Place.TRACE), *run.fields(Place.LAYERS)):
        at = bisect_left(field.steps, step)
        if at == len(field.steps) or field.steps[at] != step:
            continue
        spec = field.spec
        shape = field.ledger.shape_at(step) if spec.ragged else field.shape[1:]
        fields.append(
            FieldSummary(
                name=spec.name,
                layer=spec.layer,
                dims=spec.dims[1:],
                shape=shape or (),
                dtype=spec.dtype,
            )
        )
    coordinates = {
        c.name: _plain(c.values[step])
        for c in _listed(run.ledger.step_coordinates)
        if step in c.values
    }
    return StepDocument(step=step, coordinates=coordinates, fields=tuple(fields))


def step_table(run: RunView, steps: Sequence[int]) -> CoordinateTable:
    """Return the coordinates of *steps*; None where a step has none."""
    return _table("step", _listed(run.ledger.step_coordinates), steps)


def sample_table(run: RunView, samples: Sequence[int]) -> CoordinateTable:
    """Return the coordinates of *samples*; None where a sample has none."""
    return _table("sample", _listed(run.ledger.sample_coordinates), samples)


def changes(run: RunView, since: str | None) -> Changes:
    """Return what is new since a version; everything without one."""
    found = run.changes(since) if since else None
    return Changes(
        version=run.version,
        status=run.status,
        steps=step_ranges(run.steps if found is None else found.steps),
        samples=run.samples,
        fields=tuple(f.path for f in run.fields()) if found is None else found.fields,
    )


def _complete(field: FieldView, counts: NDArray[np.int64]) -> bool:
    """Return whether all samples are there, given those in each tile, shape (steps, tiles)."""
    if not field.spec.sampled:
        return bool((counts != ABSENT).all())
    starts = np.arange(0, field.run.samples, field.spec.tile)
    expected = np.minimum(field.spec.tile, field.run.samples - starts)
    there = counts[:, : len(starts)]
    return there.shape[1] == len(starts) and bool((there >= expected).all())


def _summary(run: RunView, annotations: Annotations | None) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "id": manifest.id,
        "system": manifest.system,
        "status": run.status,
        "created": manifest.created,
        "tags": tags_of(manifest, annotations),
        "note": "" if annotations is None else annotations.note,
        "metadata": manifest.metadata,
        "steps": len(run.steps),
        "samples": run.samples,
        "stored_bytes": sum(field.ledger.nbytes for field in run.fields()),
    }


def _table(
    axis: str, coordinates: Sequence[Coordinate], positions: Sequence[int]
) -> CoordinateTable:
    columns = {c.name: tuple(_plain(c.values.get(at)) for at in positions) for c in coordinates}
    return CoordinateTable(axis=axis, index=tuple(positions), coordinates=columns)


def _listed(coordinates: dict[str, Coordinate]) -> list[Coordinate]:
    # Another thread may add a coordinate of a run that grows; a copy is made in one go.
    return list(coordinates.copy().values())


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
