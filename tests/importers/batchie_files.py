"""BATCHIE's files as its own code writes them, and trees of them with the odd cases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SCREEN = "synth.screen"


def gzipped(group: Any, **datasets: Any) -> None:
    for name, values in datasets.items():
        group.create_dataset(name, data=values, compression="gzip")


def encoded(texts: Any) -> NDArray[np.bytes_]:
    found: NDArray[np.bytes_] = np.char.encode(np.array(texts), "utf-8")
    return found


def write_screen(
    path: Path, plates: list[str], *, observed: int = 1, sample: str = "sample_A"
) -> None:
    """Write a screen of two experiments a plate, of which the first plates are observed."""
    names = np.repeat(plates, 2)
    count = len(names)
    found = sorted(set(plates))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        gzipped(
            file,
            treatment_names=encoded(
                [["drug_A", "Wirkstoff β"], ["drug_A", "control"]] * len(plates)
            ),
            treatment_doses=np.tile([[1.0, 2.5], [1.0, 0.0]], (len(plates), 1)),
            treatment_ids=np.tile([[0, 1], [0, -1]], (len(plates), 1)),
            observations=np.linspace(0, 1, count),
            observation_mask=np.isin(names, plates[:observed]),
            sample_ids=np.zeros(count, np.int64),
            sample_names=encoded([sample] * count),
            plate_ids=np.array([found.index(name) for name in names]),
            plate_names=encoded(names),
            treatment_mapping_names=encoded(["Wirkstoff β", "control", "drug_A"]),
            treatment_mapping_doses=np.array([2.5, 0.0, 1.0]),
            treatment_mapping_ids=np.array([1, -1, 0]),
            sample_mapping_names=encoded([sample]),
            sample_mapping_ids=np.array([0]),
        )
        file.attrs["control_treatment_name"] = "control"


def write_thetas(
    path: Path, draws: int, *, seed: int = 0, capacity: int | None = None, drifting: bool = False
) -> None:
    """Write a chain; *drifting* makes alpha float32 in some draws and float64 in others."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["n_thetas"] = capacity or draws
        file.attrs["theta_class"] = "SparseDrugComboMCMCSample"
        file.attrs["theta_module"] = "a_module.that_must.never_be_imported"
        shared = file.create_group("shared_params")
        gzipped(shared, single_effect_lookup_vals=np.arange(3.0))
        private = file.create_group("private_params")
        for draw in range(draws):
            group = private.create_group(str(draw))
            gzipped(group, W=rng.random((2, 3)), V0=rng.random(4))
            wide = drifting and draw % 2
            group.attrs["alpha"] = np.float64(draw / 3) if wide else np.float32(draw / 3)
            group.attrs["precision"] = np.float64(draw)


def write_distances(
    path: Path, size: int, pairs: list[tuple[int, int]], *, offset: float = 0.0, **how: Any
) -> None:
    rows, columns = (np.array(axis, np.int64) for axis in zip(*pairs, strict=True))
    datasets = {
        "row_indices": rows,
        "col_indices": columns,
        "values": (rows * 10 + columns) / 7 + offset,
        "size": np.array([size]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values, **(how or {"compression": "gzip"}))


def write_scores(path: Path, scores: dict[int, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("scores", data=np.array(list(scores.values()), np.float64))
        file.create_dataset("plate_ids", data=np.array(list(scores), np.int64))
        file.attrs["current_index"] = len(scores)


def write_metadata(folder: Path, *, unobserved: int, selected: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "selected_plate").write_text(str(selected))
    (folder / "screen_metadata.json").write_text(
        json.dumps({"size": 6, "n_plates": 3, "n_unobserved_plates": unobserved}, indent=4)
    )


def plate_folder(root: Path, iteration: int, plate: int) -> Path:
    return root / f"iter_{iteration}" / f"plate_{plate}" / SCREEN


def lower_triangle(size: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(size) for column in range(row)]


def write_plate(
    folder: Path,
    *,
    seed: int = 0,
    unobserved: int = 1,
    plates: tuple[str, ...] = ("p1", "p2", "p3"),
) -> None:
    """Write a first plate folder of two chains of two draws."""
    write_screen(folder / "training.screen.h5", list(plates))
    write_screen(folder / "test.screen.h5", list(plates[:1]), sample="sample_B")
    for chain in range(2):
        write_thetas(folder / f"thetas_{chain}.h5", 2, seed=seed + chain)
    pairs = lower_triangle(4)
    for chunk in range(2):
        part = pairs[chunk * 3 : chunk * 3 + 3]
        write_distances(folder / f"distance_matrix_chunk_{chunk}.h5", 4, part, offset=seed)
    write_scores(folder / "score_chunk_0.h5", {1: 0.5, 2: 0.25 + seed})
    write_scores(folder / "score_chunk_1.h5", {})
    with h5py.File(folder / "model_evaluation.h5", "w") as file:
        gzipped(
            file,
            predictions=np.random.default_rng(seed).random((2, 4)),
            observations=np.linspace(0, 1, 2),
            chain_ids=np.array([0, 0, 1, 1]),
            sample_names=encoded(["sample_B", "sample_B"]),
        )
    write_screen(folder / "advanced_screen.h5", list(plates), observed=2)
    write_metadata(folder, unobserved=unobserved)
