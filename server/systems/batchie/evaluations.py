"""How well the model predicts, and on whose experiments that was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.systems.batchie import EVALUATION, SCREEN
from archive_schema.wire import CoordinateTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.systems.batchie.simulation import Simulation
    from server.systems.layer_file import LayerFile

TRAINED_ON = "the model is evaluated on the experiments that it was trained on"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predictions of every theta for some experiments."""

    step: int
    predictions: NDArray[np.float64]
    """Shape (experiments, thetas)."""
    observations: NDArray[np.float64]
    sample_names: tuple[str, ...]
    chain_ids: NDArray[np.int64]
    rows_from: str | None
    """The screen file whose experiments these are; None if it is none that is recorded."""

    @property
    def warning(self) -> str | None:
        """What a reader of a learning curve must know."""
        trained = self.rows_from is not None and self.rows_from.endswith("training.screen")
        return f"{TRAINED_ON} ({self.rows_from})" if trained else None

    @property
    def draws(self) -> list[int]:
        """Draw of each theta within its chain."""
        seen: dict[int, int] = {}
        found = []
        for chain in self.chain_ids.tolist():
            found.append(seen.get(chain, 0))
            seen[chain] = found[-1] + 1
        return found

    def errors(self) -> dict[str, float | None]:
        """Return BATCHIE's three numbers, as its ``ModelEvaluation`` computes them."""
        if not self.predictions.size:
            return dict.fromkeys(("mse", "mse_variance", "inter_chain_mse_variance"))
        squared = (self.predictions - self.observations[:, None]) ** 2
        chains = [squared[:, self.chain_ids == one].mean() for one in np.unique(self.chain_ids)]
        return {
            "mse": float(squared.mean()),
            "mse_variance": float(squared.mean(axis=1).var()),
            "inter_chain_mse_variance": float(np.var(chains)),
        }

    def by_chain(self) -> tuple[NDArray[np.float64], tuple[int, ...]]:
        """Return predictions, shape (experiments, chains, draws), and the numbers of the chains.

        A chain with fewer draws than the longest ends with NaN.
        """
        chains = tuple(dict.fromkeys(self.chain_ids.tolist()))
        longest = max(self.draws, default=-1) + 1
        values = np.full((len(self.predictions), len(chains), longest), np.nan)
        at = [chains.index(chain) for chain in self.chain_ids.tolist()]
        values[:, at, self.draws] = self.predictions
        return values, chains


def evaluation(simulation: Simulation, step: int) -> Evaluation:
    """Return the evaluation of the model that holds at *step*.

    Raises
    ------
    NotFoundError
        ``not-recorded``.
    """
    return _evaluation(simulation, simulation.nearest(step, EVALUATION)[0])


def evaluations(simulation: Simulation) -> CoordinateTable:
    """Return the learning curve: a row for each evaluation of the latest attempts."""
    found = [
        (folder, _evaluation(simulation, file))
        for folder in simulation.folders
        if folder.current
        for file in simulation.of_kind(folder.step, EVALUATION)
    ]
    columns: dict[str, tuple[Any, ...]] = {
        "iter": tuple(folder.iter for folder, _ in found),
        "plate": tuple(folder.plate for folder, _ in found),
        "experiments": tuple(len(one.observations) for _, one in found),
        "thetas": tuple(len(one.chain_ids) for _, one in found),
    }
    errors = [one.errors() for _, one in found]
    for name in ("mse", "mse_variance", "inter_chain_mse_variance"):
        columns[name] = tuple(error[name] for error in errors)
    columns["rows_from"] = tuple(one.rows_from for _, one in found)
    columns["warning"] = tuple(one.warning for _, one in found)
    index = tuple(folder.step for folder, _ in found)
    return CoordinateTable(axis="step", index=index, coordinates=columns)


def _evaluation(simulation: Simulation, file: LayerFile) -> Evaluation:
    names, observations, predictions = file.alike("sample_names", "observations", "predictions")
    chains = file.dataset("chain_ids")
    if predictions.shape[1:] != chains.shape:
        message = (
            f"{file.about.path} at step {file.step}: expected predictions of {len(chains)} thetas,"
            f" got shape {predictions.shape}"
        )
        raise InvalidInputError(ErrorKind.SHAPE_MISMATCH, message)
    return Evaluation(
        step=file.step,
        predictions=predictions,
        observations=observations,
        sample_names=tuple(names.tolist()),
        chain_ids=chains,
        rows_from=_rows_from(simulation, names.tolist(), observations),
    )


def _rows_from(simulation: Simulation, names: list[str], observations: NDArray[Any]) -> str | None:
    """Return the file with the same samples and observations in the same order."""
    for folder in simulation.folders:
        for file in simulation.of_kind(folder.step, SCREEN) if folder.current else ():
            if file.layer == "advanced_screen" or file.about.hdf5 is None:
                continue
            rows = file.dataset("sample_names"), file.dataset("observations")
            if rows[0].tolist() == names and rows[1].tobytes() == observations.tobytes():
                return f"{folder.path}/{file.layer}"
    return None
