"""A run as D3-DNA's visualization logger would hold it in memory before it saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.models import Place
from archive_schema.systems.attributes import attribute_from_json
from archive_schema.systems.d3_dna import (
    ATTRIBUTES,
    COORDINATES,
    IMPORTED,
    LOGGER_DTYPES,
    NOISE_SCHEDULE,
    SYSTEM,
)
from server.exporters.hdf5_tree import encoded_text
from server.exporters.values import Conversion, Values, cast_to

if TYPE_CHECKING:
    from pydantic import JsonValue

    from archive_schema.ledger import Coordinate
    from archive_schema.systems.attributes import Attribute
    from server.exporters.cut import Cut
    from server.query.field import FieldView


@dataclass(frozen=True, slots=True)
class Log:
    """What the logger would write of a cut.

    A recorded run becomes a log of the logger's latest generation. An imported run is the
    log that its file was written from.
    """

    cut: Cut
    imported: Mapping[str, Any] | None
    """What an imported run keeps of its file; None for a recorded run."""
    attributes: Mapping[str, Attribute]
    schedule: Mapping[str, Attribute] | None
    coordinates: Mapping[str, Coordinate]
    inputs: list[FieldView]
    traced: list[FieldView]

    @classmethod
    def of(cls, cut: Cut) -> Log:
        """Return the log of *cut*."""
        run = cut.run
        found = run.manifest.metadata.get(IMPORTED)
        imported = found if isinstance(found, Mapping) else None
        known = dict(run.ledger.step_coordinates)
        names = [*COORDINATES, *(n for n in known if imported and n not in COORDINATES)]
        return cls(
            cut,
            imported,
            _imported_attributes(cut, imported) if imported else recorded_attributes(cut),
            _schedule(run.manifest.metadata, imported),
            {name: known[name] for name in names if name in known},
            _in_order(cut.fields(Place.INPUTS), Place.INPUTS),
            _in_order(cut.fields(Place.TRACE), Place.TRACE),
        )

    @property
    def writes_none(self) -> bool:
        """Whether the logger's NPZ would hold None for a split that is not there."""
        metadata = self.cut.run.manifest.metadata
        return not self.imported or self.imported["format"] == "hdf5" or "split" in metadata

    def values(
        self, field: FieldView, steps: int | tuple[int, ...] | None, *, text: bool = False
    ) -> Values:
        """Return the values of *field*; *text* where a format has no ``U`` strings."""
        conversion = None
        if not self.imported:
            conversion = _as_logged(field)
        if text and field.dtype.kind == "U":
            conversion = encoded_text(field.dtype)
        return Values(field, steps, self.cut.samples, conversion=conversion)

    def step_attributes(self, step: int) -> dict[str, Attribute]:
        """Return the attributes of one step's group."""
        attributes: dict[str, Attribute] = {"step": np.int64(step)}
        for name, coordinate in self.coordinates.items():
            value = coordinate.values.get(step)
            if value is None:
                continue
            if not self.imported:
                attributes[name] = np.float64(value)
            elif isinstance(value, str):
                attributes[name] = value
            else:
                attributes[name] = np.dtype(coordinate.dtype).type(value)
        return attributes

    def notes(self) -> list[str]:
        """Say what the logger's formats have no place for, and what is cast."""
        notes = []
        lost = [f.path for f in self.cut.fields(Place.LAYERS, Place.OUTPUTS)]
        if lost:
            notes.append(f"the format has no place for {listed(lost)}: left out")
        known = dict(self.cut.run.ledger.step_coordinates)
        coordinates = [name for name in known if name not in self.coordinates]
        if coordinates:
            notes.append(f"the format has no place for {listed(coordinates)}: left out")
        if not self.imported:
            notes += (
                f"{field.spec.name} is recorded as {field.dtype} and written as"
                f" {field_conversion.dtype}, as the logger does"
                for field in (*self.inputs, *self.traced)
                if (field_conversion := _as_logged(field)) and field_conversion.dtype != field.dtype
            )
        return notes


def recorded_attributes(cut: Cut) -> dict[str, Attribute]:
    """Return the attributes that the logger writes, from metadata or from what is recorded."""
    run = cut.run
    given: dict[str, JsonValue] = {
        "dataset": "unknown",
        "num_samples": len(cut.samples),
        "total_steps": len(cut.steps),
        "architecture": "transformer",
        "save_oracle_mse": any(f.spec.name == "oracle_mse" for f in cut.fields(Place.TRACE)),
    }
    length = _sequence_length(cut)
    if length is not None:
        given["sequence_length"] = length
    said = {key: value for key, value in run.manifest.metadata.items() if value is not None}
    given.update((key, said[key]) for key in ATTRIBUTES if key in said)
    return _counted(
        cut, {key: attribute_from_json(given[key], None) for key in ATTRIBUTES if key in given}
    )


def _imported_attributes(cut: Cut, imported: Mapping[str, Any]) -> dict[str, Attribute]:
    dtypes = imported.get("dtypes", {})
    return _counted(
        cut,
        {
            key: attribute_from_json(value, dtypes.get(key))
            for key, value in cut.run.manifest.metadata.items()
            if key not in (IMPORTED, NOISE_SCHEDULE) and value is not None
        },
    )


def _counted(cut: Cut, attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Let a file that is only a part of a run describe itself."""
    if not (cut.whole and cut.run.sealed):
        counts = {"num_samples": len(cut.samples), "total_steps": len(cut.steps)}
        attributes |= {key: count for key, count in counts.items() if key in attributes}
    return attributes


def _schedule(
    metadata: Mapping[str, JsonValue], imported: Mapping[str, Any] | None
) -> dict[str, Attribute] | None:
    """Return the noise schedule; None if an imported file had none."""
    schedule = metadata.get(NOISE_SCHEDULE)
    if not isinstance(schedule, Mapping):
        return None if imported else {}
    dtypes = imported.get("dtypes", {}) if imported else {}
    return {
        key: attribute_from_json(value, dtypes.get(f"{NOISE_SCHEDULE}.{key}"))
        for key, value in sorted(schedule.items(), key=_in_schedule)
        if value is not None
    }


def _in_schedule(item: tuple[str, Any]) -> int:
    known = ("type", "sigma_min", "sigma_max")
    return known.index(item[0]) if item[0] in known else len(known)


def _sequence_length(cut: Cut) -> int | None:
    for field in cut.run.fields(Place.TRACE):
        if "position" in field.dims:
            return field.shape[field.dims.index("position")]
    return None


def _as_logged(field: FieldView) -> Conversion | None:
    """Return how the logger changes what it is handed: its dtype, and labels to two axes."""
    spec = field.spec
    dtype = np.dtype(LOGGER_DTYPES.get(spec.name, field.dtype))
    if spec.name == "ground_truth_labels" and spec.place is Place.INPUTS and len(spec.dims) == 1:
        return Conversion(
            f"{dtype} column", dtype, lambda values: values.astype(dtype)[..., None], (1,)
        )
    return None if dtype == field.dtype else cast_to(dtype)


def _in_order(fields: list[FieldView], place: Place) -> list[FieldView]:
    declared = list(SYSTEM.fields[place])
    return sorted(
        fields,
        key=lambda f: declared.index(f.spec.name) if f.spec.name in declared else len(declared),
    )


def listed(names: list[Any]) -> str:
    """Return *names* as a sentence holds them."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""  # noqa: PLR2004
    return ", ".join(map(str, names[:8])) + more
