"""Which of the processes of a job this one is, as its launcher says in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, invalid
from recorder.ownership import part

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAUNCHERS: Final = (
    # The inner launcher counts: torchrun is often started by srun, once a host.
    ("RANK", "WORLD_SIZE"),  # torchrun, and whoever follows it
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # mpirun of Open MPI
    ("PMI_RANK", "PMI_SIZE"),  # mpiexec of MPICH and Intel MPI
    # Those of the step: a batch script itself also has a SLURM_PROCID and SLURM_NTASKS, but it
    # is one process, whatever the job was given.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # srun
)
"""Variables of the rank and of the number of ranks, for each launcher."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One of the processes of a job."""

    number: int
    """From 0."""
    world_size: int

    @property
    def writer(self) -> str:
        """Name of this process as a writer: the same whenever it is started again."""
        return f"rank-{self.number}"

    def part(self, samples: int, tile: int) -> slice:
        """Return the samples that this process owns, as `recorder.part`."""
        return part(samples, tile, self.number, self.world_size)


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return which process of its job this is; rank 0 of 1 where no launcher says anything.

    Understood are torchrun, srun, and the mpirun and mpiexec of Open MPI, MPICH and Intel MPI.
    The tasks of a SLURM array are jobs of their own, each with ranks from 0.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` if a launcher's numbers are none.

    Examples
    --------
    >>> this_rank({"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "0"})
    Rank(number=3, world_size=8)
    >>> this_rank({}).writer
    'rank-0'
    """
    for names in _LAUNCHERS:
        if all(name in environment for name in names):
            number, world_size = (_number(name, environment[name]) for name in names)
            if number >= world_size:
                message = f"expected {names[0]} below {names[1]} {world_size}, got {number}"
                raise invalid(ErrorKind.INVALID_PARAMETER, message)
            return Rank(number, world_size)
    return Rank(0, 1)


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        message = f"expected {name} as a number from 0, got {value!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    return int(value)
