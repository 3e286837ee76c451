"""The experiments of a screen, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.systems.batchie import SCREEN
from archive_schema.wire import CoordinateTable

if TYPE_CHECKING:
    from server.systems.batchie.simulation import Simulation


def screen_table(
    simulation: Simulation, step: int, layer: str, *, hide_masked: bool
) -> CoordinateTable:
    """Return a row for each experiment of a screen file at *step*.

    Parameters
    ----------
    layer
        ``advanced_screen``, ``training.screen`` or ``test.screen``.
    hide_masked
        Whether observations of unobserved plates are left out. A retrospective simulation has
        the true values there.

    Raises
    ------
    NotFoundError
        ``layer-not-found``.
    """
    files = {file.layer: file for file in simulation.of_kind(step, SCREEN)}
    if layer not in files:
        known = ", ".join(files) or "none"
        message = f"step {step} has no screen {layer!r}; expected one of {known}"
        raise NotFoundError(ErrorKind.LAYER_NOT_FOUND, message)
    file = files[layer]
    names, doses, mask, seen_values, samples, plates, ids = file.alike(
        "treatment_names",
        "treatment_doses",
        "observation_mask",
        "observations",
        "sample_names",
        "plate_names",
        "plate_ids",
    )
    control = file.about.attributes().get("control_treatment_name")
    columns: dict[str, Any] = {
        "sample_name": samples,
        "plate_name": plates,
        "plate_id": ids,
    }
    for at in range(names.shape[1]):
        columns[f"treatment_name_{at}"] = names[:, at]
        columns[f"dose_{at}"] = doses[:, at]
        columns[f"control_{at}"] = (names[:, at] == control) | (doses[:, at] <= 0)
    columns["observed"] = mask
    observations = seen_values.tolist()
    if hide_masked:
        observations = [v if seen else None for v, seen in zip(observations, mask, strict=True)]
    listed = {name: tuple(np.asarray(column).tolist()) for name, column in columns.items()}
    return CoordinateTable(
        axis="experiment",
        index=tuple(range(len(mask))),
        coordinates={**listed, "observation": tuple(observations)},
    )
