"""Parts of a run are whole tiles, and together they are the run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError
from recorder import part, this_rank
from recorder.ownership import check_aligned, owned_part, uncovered


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 40))
def test_parts_are_whole_tiles_that_make_up_the_run(
    samples: int, tile: int, world_size: int
) -> None:
    parts = [part(samples, tile, rank, world_size) for rank in range(world_size)]

    bounds = [(one.start, one.stop) for one in parts]
    assert [n for start, stop in bounds for n in range(start, stop)] == list(range(samples))
    counts = [-(-(stop - start) // tile) for start, stop in bounds]
    assert max(counts) - min(counts) <= 1
    for one in bounds:
        check_aligned(one, tile, samples, "the run")
    assert not uncovered(bounds, (0, samples))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_what_no_part_holds_is_found(drawn: list[tuple[int, int]], first: int, last: int) -> None:
    parts = [(min(one), max(one)) for one in drawn]
    whole = (min(first, last), max(first, last))

    gaps = uncovered(parts, whole)

    held = {n for start, stop in parts for n in range(start, stop)}
    assert [n for gap in gaps for n in range(*gap)] == sorted(set(range(*whole)) - held)
    assert all(start < stop for start, stop in gaps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 10, 4, 4), r"a rank in \[0, 4\), got 4"),
        ((100, 10, -1, 4), r"a rank in \[0, 4\), got -1"),
        ((100, 0, 0, 4), "tile of 1 or more, got 0"),
        ((100, 10, 0, 0), "world_size of 1 or more, got 0"),
    ],
)
def test_a_part_of_nothing_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        part(*arguments)

    assert caught.value.kind is ErrorKind.INVALID_PARAMETER


@pytest.mark.parametrize(
    ("owns", "expected"),
    [
        (None, None),
        (slice(10, 20), (10, 20)),
        (range(10, 20), (10, 20)),
        (slice(20), (0, 20)),
        (slice(20, None), (20, 100)),
        (slice(100, 100), (100, 100)),
    ],
)
def test_a_part_is_given_as_a_slice(owns: Any, expected: Any) -> None:
    assert owned_part(owns, 100) == expected


@pytest.mark.parametrize(
    ("owns", "samples", "message"),
    [
        (slice(0, 101), 100, r"within \[0, 100\), got \[0, 101\)"),
        (slice(20, 10), 100, r"got \[20, 10\)"),
        (slice(-10, None), 100, r"got \[-10, 100\)"),
        (slice(0, 10, 2), 100, r"owns as slice\(start, stop\)"),
        ((0, 10), 100, r"owns as slice\(start, stop\), got \(0, 10\)"),
        (slice(0.5, 10), 100, "the first sample of owns as an integer, got float"),
        (slice(0, 10), None, "expected samples= of a run"),
    ],
)
def test_what_is_no_part_is_refused(owns: Any, samples: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        owned_part(owns, samples)


@pytest.mark.parametrize("owned", [(250, 500), (0, 250)])
def test_a_part_of_half_a_tile_is_told_which_would_do(owned: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match=r"such as \[(200, 500|0, 300)\)") as caught:
        check_aligned(owned, 100, 1000, "field 'x'")

    assert caught.value.kind is ErrorKind.TILE_MISALIGNED


def test_the_end_of_the_run_is_a_boundary() -> None:
    check_aligned((900, 950), 100, 950, "field 'x'")
    check_aligned((130, 130), 100, 950, "field 'x'")
    check_aligned((130, 170), 0, 950, "a field without a sample axis")


@pytest.mark.parametrize(
    ("environment", "number", "world_size"),
    [
        ({}, 0, 1),
        ({"RANK": "2", "WORLD_SIZE": "4"}, 2, 4),
        ({"RANK": "2"}, 0, 1),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, 1, 3),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, 1, 3),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "16"}, 5, 8),
        # A batch script is one process, whatever the job has tasks for.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, 0, 1),
        # srun starts one torchrun a host, which starts the ranks.
        (
            {"RANK": "9", "WORLD_SIZE": "16", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            9,
            16,
        ),
    ],
)
def test_a_process_knows_its_rank_from_its_launcher(
    environment: dict[str, str], number: int, world_size: int
) -> None:
    me = this_rank(environment)

    assert (me.number, me.world_size, me.writer) == (number, world_size, f"rank-{number}")
    assert me.part(1000, 10) == part(1000, 10, number, world_size)


@pytest.mark.parametrize(
    "environment",
    [{"RANK": "first", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}],
)
def test_a_rank_that_is_none_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="expected RANK"):
        this_rank(environment)
