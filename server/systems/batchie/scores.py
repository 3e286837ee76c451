"""Scores of plates, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.systems.batchie import SCORES, SELECTED
from archive_schema.wire import CoordinateTable

if TYPE_CHECKING:
    from server.systems.batchie.simulation import Simulation


def score_table(simulation: Simulation, step: int) -> CoordinateTable:
    """Return a row for each plate: its score and rank, whether it was selected or is observed.

    Ids belong to the screen that was scored; names are what plates of other files are joined by.
    ``observed`` is as the screen after the step says, and None while that is not there. Plates
    that were not scored, because they were observed or chosen before, have no score.
    """
    files = simulation.of_kind(step, SCORES)
    scored: dict[int, list[float]] = {}
    for file in files:
        ids, values = file.alike("plate_ids", "scores")
        for plate, value in zip(ids.tolist(), values.tolist(), strict=True):
            scored.setdefault(plate, []).append(value)
    selected = simulation.coordinate(SELECTED, step)
    plates: dict[int, dict[str, Any]] = {plate: {} for plate in scored}
    screen = simulation.screen_before(step)
    if screen is not None:
        ids, names, mask = screen.alike("plate_ids", "plate_names", "observation_mask")
        current = screen.step == step and screen.layer == "advanced_screen"
        for plate in np.unique(ids).tolist():
            rows = ids == plate
            plates.setdefault(plate, {}).update(
                name=str(names[rows][0]),
                experiments=int(rows.sum()),
                observed=bool(mask[rows].all()) if current else None,
            )
    # A plate that is scored twice has no one score: BATCHIE refuses it, too.
    single = {plate: values[0] for plate, values in scored.items() if len(values) == 1}
    ranked = sorted(single, key=lambda plate: (np.isnan(single[plate]), single[plate]))
    rank = {plate: at for at, plate in enumerate(ranked)}
    order = sorted(plates)
    columns: dict[str, tuple[Any, ...]] = {
        "plate_name": tuple(plates[plate].get("name") for plate in order),
        "plate_id": tuple(order),
        "experiments": tuple(plates[plate].get("experiments") for plate in order),
        "score": tuple(single.get(plate) for plate in order),
        "rank": tuple(rank.get(plate) for plate in order),
        "times_scored": tuple(len(scored.get(plate, ())) for plate in order),
        "selected": tuple(None if selected is None else plate == selected for plate in order),
        "observed": tuple(plates[plate].get("observed") for plate in order),
    }
    return CoordinateTable(axis="row", index=tuple(range(len(order))), coordinates=columns)
