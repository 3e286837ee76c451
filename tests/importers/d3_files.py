"""Writes what D3-DNA's logger wrote through its generations, with h5py and NumPy alone."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

PLURAL = {
    "sequence": "sequences",
    "score_matrix": "score_matrices",
    "prob_matrix": "prob_matrices",
    "oracle_mse": "oracle_mses",
    "timestep": "timesteps",
    "noise_level": "noise_levels",
    "noise_rate": "noise_rates",
}


@dataclass
class LoggedRun:
    """What a logger has in memory when it is told to save."""

    attributes: dict[str, Any]
    steps: dict[int, dict[str, Any]]
    """By number: scalars are attributes, arrays are datasets."""
    schedule: dict[str, Any] | None = field(
        default_factory=lambda: {"type": "geometric", "sigma_min": 1e-4, "sigma_max": 20}
    )
    datasets: dict[str, NDArray[Any]] = field(default_factory=dict)
    schedule_datasets: dict[str, NDArray[Any]] = field(default_factory=dict)

    def write_hdf5(self, path: Path) -> Path:
        """Save as HDF5."""
        with h5py.File(path, "w") as file:
            metadata = file.create_group("metadata")
            _put(metadata, self.attributes)
            _put(metadata, self.datasets)
            if self.schedule is not None:
                schedule = metadata.create_group("noise_schedule")
                _put(schedule, self.schedule)
                _put(schedule, self.schedule_datasets)
            steps = file.create_group("steps")
            for number, values in self.steps.items():
                _put(steps.create_group(f"step_{number:04d}"), {"step": number, **values})
        return path

    def npz_members(self) -> dict[str, Any]:
        """Return what would be saved as NPZ: a key that the first step lacks is left out."""
        members: dict[str, Any] = {f"meta_{key}": value for key, value in self.attributes.items()}
        members.setdefault("meta_split", np.array(None))
        members |= self.datasets
        schedule = (self.schedule or {}) | self.schedule_datasets
        members |= {f"noise_schedule_{key}": value for key, value in schedule.items()}
        members["steps"] = np.array(list(self.steps))
        for name in next(iter(self.steps.values())):
            stacked = np.array([values[name] for values in self.steps.values()])
            members[PLURAL.get(name, name)] = stacked
        return members

    def write_npz(self, path: Path) -> Path:
        """Save as NPZ, compressed."""
        np.savez_compressed(path, **self.npz_members())
        return path


def _put(group: h5py.Group, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            group.create_dataset(name, data=value)
        else:
            group.attrs[name] = value


def attributes_of(samples: int, length: int, steps: int, **more: Any) -> dict[str, Any]:
    """Return the logger's own attributes."""
    return {
        "dataset": "deepstarr",
        "num_samples": samples,
        "sequence_length": length,
        "total_steps": steps,
        "architecture": "transformer",
        "save_oracle_mse": False,
        **more,
    }


def step_of(
    rng: np.random.Generator,
    at: int,
    of: int,
    *,
    samples: int = 3,
    length: int = 7,
    letters: int = 4,
) -> dict[str, Any]:
    """Return one step as sampling logs it since generation 1."""
    time = 1 - at / of * (1 - 1e-5)
    sigma = 1e-4 ** (1 - time) * 20.0**time
    shape = (samples, length, letters)
    return {
        "timestep": time,
        "noise_level": sigma,
        "noise_rate": sigma * float(np.log(20.0 / 1e-4)),
        "sequence": rng.integers(0, letters, (samples, length)),
        "score_matrix": np.exp(rng.normal(size=shape)).astype(np.float16),
        "prob_matrix": rng.normal(size=shape).astype(np.float16),
    }


def sampled(steps: int = 4, *, samples: int = 3, letters: int = 4, first: int = 0) -> LoggedRun:
    """Return a sampling run."""
    rng = np.random.default_rng(steps)
    numbers = range(first, first + steps)
    logged = {n: step_of(rng, n - first, steps, samples=samples, letters=letters) for n in numbers}
    return LoggedRun(attributes_of(samples, 7, steps), logged)


def evaluated(steps: int = 4, *, samples: int = 3, outputs: int = 2) -> LoggedRun:
    """Return an evaluation of generation B."""
    run = sampled(steps, samples=samples)
    rng = np.random.default_rng(1)
    run.attributes |= {"save_oracle_mse": True, "split": "test"}
    run.datasets = {
        "original_samples": rng.integers(0, 4, (samples, 7)),
        "ground_truth_labels": rng.normal(size=(samples, outputs)).astype(np.float32),
        "ground_truth_predictions": rng.normal(size=(samples, outputs)).astype(np.float32),
        "dataset_indices": rng.permutation(100)[:samples],
    }
    for values in run.steps.values():
        values["oracle_mse"] = rng.normal(size=samples).astype(np.float32)
        values["oracle_predictions"] = rng.normal(size=(samples, outputs)).astype(np.float32)
    return run


def generation_0(steps: int = 4) -> LoggedRun:
    """Return sampling before prob_matrix, with the extra denoising step that has no rate."""
    run = sampled(steps)
    run.steps[steps] = {
        **step_of(np.random.default_rng(9), steps, steps),
        "timestep": 1e-5,
    }
    del run.steps[steps]["noise_rate"]
    for values in run.steps.values():
        del values["prob_matrix"]
    return run


def generation_1() -> LoggedRun:
    """Return an evaluation whose oracle_mse is a mean of squared predictions."""
    run = sampled()
    run.attributes |= {"save_oracle_mse": True, "split": "test"}
    for values in run.steps.values():
        values["oracle_mse"] = np.ones(3, np.float32)
    return run


def generation_a() -> LoggedRun:
    """Return an evaluation with ground truth at every step."""
    run = sampled()
    run.attributes |= {"save_oracle_mse": True, "split": "test", "has_original_samples": True}
    rng = np.random.default_rng(2)
    run.datasets = {
        "original_samples": rng.integers(0, 4, (3, 7)),
        "ground_truth_oracle_predictions": rng.normal(size=(3, 2)).astype(np.float32),
    }
    for values in run.steps.values():
        values["oracle_mse"] = rng.normal(size=3).astype(np.float32)
        values["oracle_predictions"] = rng.normal(size=(3, 2)).astype(np.float32)
        values["ground_truth_labels"] = rng.normal(size=(3, 2)).astype(np.float32)
    return run


def generation_s(*numbers: int) -> LoggedRun:
    """Return real sequences scored at fixed noise levels: sparse steps, more attributes."""
    rng = np.random.default_rng(3)
    attributes = attributes_of(3, 7, 250)
    del attributes["save_oracle_mse"]
    attributes |= {
        "checkpoint_path": "/models/deepstarr.ckpt",
        "config_path": "/models/config.yaml",
        "timestamp": "2025-09-01T12:00:00.000001",
        "default_sigma_idx": 245,
    }
    run = LoggedRun(attributes, {n: step_of(rng, n, 250) for n in numbers})
    for values in run.steps.values():
        del values["noise_rate"], values["prob_matrix"]
    run.schedule_datasets = {"sigma_values": np.geomspace(20, 1e-4, 250).astype(np.float32)}
    return run


def npz_bytes(members: Mapping[str, Any]) -> bytes:
    """Return an NPZ file of *members*."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()
