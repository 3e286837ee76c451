"""Which samples of a run a writer owns, in whole tiles, so that no two writers share an object.

A *part* is a half-open range of samples. It begins at a tile boundary and ends at one, or with
the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archive_schema.errors import ErrorKind, invalid
from recorder.arguments import check_at_least, integer

if TYPE_CHECKING:
    from collections.abc import Iterable


def part(samples: int, tile: int, rank: int, world_size: int) -> slice:
    """Return the samples that one of several equal writers owns: whole tiles, in order of ranks.

    The parts are as even as whole tiles allow. Where the tiles cannot be shared out evenly, the
    first ranks have one tile more; where there are fewer tiles than writers, the last ranks have
    an empty part and nothing to record.

    Parameters
    ----------
    samples : int
        Samples of the run.
    tile : int, samples
        Samples in a tile: a batch, or what divides it.
    rank : int
        From 0.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``.

    Examples
    --------
    Ten tiles, the last of which is short, for four writers:

    >>> [part(1000, 100, rank, 4) for rank in range(3)]
    [slice(0, 300, None), slice(300, 600, None), slice(600, 800, None)]
    >>> part(950, 100, 3, 4), part(100, 100, 1, 2)
    (slice(800, 950, None), slice(100, 100, None))
    """
    check_at_least(0, samples=samples)
    check_at_least(1, tile=tile, world_size=world_size)
    if not 0 <= rank < world_size:
        message = f"expected a rank in [0, {world_size}), got {rank}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    each, more = divmod(-(-samples // tile), world_size)
    first = rank * each + min(rank, more)
    last = first + each + (rank < more)
    return slice(min(first * tile, samples), min(last * tile, samples))


def owned_part(owns: object, samples: int | None) -> tuple[int, int] | None:
    """Return ``[start, stop)`` of the samples that a caller says it owns; None for no such word.

    Parameters
    ----------
    samples
        Samples of the run, which have to be declared: the parts of all writers make up a whole.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for what is no range of samples, and ``selection-out-of-bounds``
        for one that the run does not have.
    """
    if owns is None:
        return None
    if not isinstance(owns, slice | range) or owns.step not in (None, 1):
        message = f"expected owns as slice(start, stop), got {owns!r:.100}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    if samples is None:
        message = f"expected samples= of a run in which a writer owns {owns}, got None"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    start = integer("the first sample of owns", owns.start or 0)
    stop = samples if owns.stop is None else integer("the end of owns", owns.stop)
    if not 0 <= start <= stop <= samples:
        message = f"expected owns [start, stop) within [0, {samples}), got [{start}, {stop})"
        raise invalid(ErrorKind.SELECTION_OUT_OF_BOUNDS, message)
    return start, stop


def check_aligned(owned: tuple[int, int], tile: int, samples: int, what: str) -> None:
    """Refuse a part that shares a tile with another writer's.

    Parameters
    ----------
    tile : int, samples
        Size of a tile; 0 where there is no sample axis, and nothing to share.
    what
        Which tiles these are, for the error: ``"field 'x'"``.

    Raises
    ------
    InvalidInputError
        ``tile-misaligned``, with the bounds that would do.
    """
    start, stop = owned
    if not tile or start == stop or not (start % tile or (stop % tile and stop != samples)):
        return
    fitting = start // tile * tile, min(-(-stop // tile) * tile, samples)
    message = (
        f"{what}: expected to own whole tiles of {tile} samples, such as"
        f" [{fitting[0]}, {fitting[1]}), got [{start}, {stop}): two writers would share a tile;"
        f" recorder.part({samples}, {tile}, rank, world_size) splits a run, and a tile= that"
        " divides both bounds fits these"
    )
    raise invalid(ErrorKind.TILE_MISALIGNED, message)


def uncovered(parts: Iterable[tuple[int, int]], whole: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the ranges of *whole* that no part holds, rising.

    Examples
    --------
    >>> uncovered([(5, 9), (0, 4)], (0, 12)), uncovered([(0, 4), (3, 9)], (2, 8))
    ([(4, 5), (9, 12)], [])
    """
    reached, end = whole
    gaps = []
    for start, stop in [*sorted(parts), (end, end)]:
        if reached < min(start, end):
            gaps.append((reached, min(start, end)))
        reached = max(reached, stop)
    return gaps
