"""Record the jobs of a BATCHIE simulation, each a process of its own.

``python record_batchie.py STORE --run ID`` runs the jobs of one plate folder as a workflow would:
chains at the same time, then chunks of distances and of scores. What is above `JOBS` has the names
and signatures of BATCHIE's library; with it installed, import them from there, and let a job call
the program's ``main``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from recorder import TraceRecorder
from recorder.integrations.batchie import attach

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHAINS, DRAWS, CHUNKS, PLATES = 2, 3, 2, 4


@dataclass
class Sample:
    """One draw of the parameters of a model."""

    W: NDArray[np.float64]
    V0: NDArray[np.float64]
    precision: float

    def private_parameters_dict(self) -> dict[str, Any]:
        """Return what is this draw's own."""
        return asdict(self)


class ThetaHolder:
    """The draws of a chain."""

    def __init__(self, n_thetas: int) -> None:
        self.n_thetas = n_thetas
        self.thetas: list[Sample] = []

    def add_theta(self, theta: Sample) -> None:
        """Add a draw."""
        self.thetas.append(theta)

    def save_h5(self, fn: str) -> None:
        """Write all draws."""
        with h5py.File(fn, "w") as file:
            file.attrs["n_thetas"] = self.n_thetas
            file.attrs["theta_class"] = type(self.thetas[0]).__name__
            file.attrs["theta_module"] = type(self.thetas[0]).__module__
            file.create_group("shared_params")
            private = file.create_group("private_params")
            for number, theta in enumerate(self.thetas):
                group = private.create_group(str(number))
                for name, value in theta.private_parameters_dict().items():
                    if isinstance(value, np.ndarray):
                        group.create_dataset(name, data=value, compression="gzip")
                    else:
                        group.attrs[name] = value


class ChunkedDistanceMatrix:
    """Some of the distances between thetas."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: list[tuple[int, int, float]] = []

    def add_value(self, i: int, j: int, value: float) -> None:
        """Add the distance of two thetas."""
        self.entries.append((i, j, value))

    def save(self, filename: str) -> None:
        """Write them."""
        rows, columns, values = (np.array(one) for one in zip(*self.entries, strict=True))
        with h5py.File(filename, "w") as file:
            file.create_dataset("row_indices", data=rows, compression="gzip")
            file.create_dataset("col_indices", data=columns, compression="gzip")
            file.create_dataset("values", data=values, compression="gzip")
            file.create_dataset("size", data=np.array([self.size]), compression="gzip")


class ChunkedScoresHolder:
    """Scores of some plates."""

    def __init__(self, size: int) -> None:
        self.scores = np.zeros(size)
        self.plate_ids = np.zeros(size, int)
        self.current_index = 0

    def add_score(self, plate_id: int, score: float) -> None:
        """Add the score of a plate; lower is better."""
        self.plate_ids[self.current_index] = plate_id
        self.scores[self.current_index] = score
        self.current_index += 1

    def save_h5(self, fn: str) -> None:
        """Write them."""
        with h5py.File(fn, "w") as file:
            file.create_dataset("scores", data=self.scores)
            file.create_dataset("plate_ids", data=self.plate_ids)
            file.attrs["current_index"] = self.current_index


def train(folder: Path, chain: int) -> None:
    """Draw a chain."""
    rng = np.random.default_rng(chain)
    holder = ThetaHolder(DRAWS)
    for _ in range(DRAWS):
        holder.add_theta(Sample(rng.random((2, 3)), rng.random(4), float(rng.random())))
    holder.save_h5(str(folder / f"thetas_{chain}.h5"))


def measure(folder: Path, chunk: int) -> None:
    """Measure every other distance."""
    size = CHAINS * DRAWS
    pairs = [(i, j) for i in range(size) for j in range(i)]
    matrix = ChunkedDistanceMatrix(size)
    for i, j in pairs[chunk::CHUNKS]:
        matrix.add_value(i, j, (i * size + j) / 7)
    matrix.save(str(folder / f"distance_matrix_chunk_{chunk}.h5"))


def score(folder: Path, chunk: int) -> None:
    """Score every other plate."""
    plates = range(chunk, PLATES, CHUNKS)
    holder = ChunkedScoresHolder(len(plates))
    for plate in plates:
        holder.add_score(plate, 1 / (1 + plate))
    holder.save_h5(str(folder / f"score_chunk_{chunk}.h5"))


JOBS = {
    **{f"train-{chain}": (train, chain, ThetaHolder) for chain in range(CHAINS)},
    **{f"measure-{chunk}": (measure, chunk, ChunkedDistanceMatrix) for chunk in range(CHUNKS)},
    **{f"score-{chunk}": (score, chunk, ChunkedScoresHolder) for chunk in range(CHUNKS)},
}
ITER, PLATE = 0, 0


def record(store: str, run: str, folder: Path, job: str) -> None:
    """Do one job, recorded by a writer of its own; the last of all to leave seals the run."""
    program, number, saver = JOBS[job]
    with (
        TraceRecorder(
            store,
            run,
            system="batchie",
            metadata={"screen": "synth"},
            writer=f"iter_{ITER}-plate_{PLATE}-{job}",
            writers=len(JOBS),
        ) as rec,
        attach(
            rec,
            saver,
            step=ITER * PLATES + PLATE,
            iter=ITER,
            plate=PLATE,
            chain=number if program is train else None,
        ),
    ):
        program(folder, number)


def main() -> None:
    """Run all jobs, or one."""
    parser = argparse.ArgumentParser(description="Record a plate folder of BATCHIE.")
    parser.add_argument("store", help="a path, or a URL such as s3://bucket/archive")
    parser.add_argument("--run", required=True, help="id of the new run")
    parser.add_argument("--folder", type=Path, default=Path(), help="where BATCHIE's files go")
    parser.add_argument("--job", choices=JOBS, help="only this one")
    arguments = parser.parse_args()
    if arguments.job is not None:
        record(arguments.store, arguments.run, arguments.folder, arguments.job)
        return
    for kind in ("train", "measure", "score"):
        jobs = [job for job in JOBS if job.startswith(kind)]
        command = [sys.executable, __file__, *sys.argv[1:], "--job"]
        processes = [subprocess.Popen([*command, job]) for job in jobs]  # noqa: S603
        failed = [job for job, one in zip(jobs, processes, strict=True) if one.wait()]
        if failed:
            sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
