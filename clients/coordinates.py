"""Named coordinates along the step and the sample axis, as arrays."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from archive_schema.wire import steps_of
from clients.axis import STEP, AxisSelection, selector_of, taken_text
from clients.documents import run_path
from clients.exchange import Request, changed
from clients.payload import npz_members
from clients.retry import fetched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from archive_schema.wire import RunDocument
    from clients.axis import Pick
    from clients.exchange import Operation, Reply
    from clients.options import Options


def chosen(run: RunDocument, dim: str, pick: Pick | None) -> list[int]:
    """Return the step numbers, or the samples, that *pick* takes of a run; None is all."""
    whole = steps_of(run.step_ranges) if dim == STEP else range(run.samples)
    if pick is None:
        return list(whole)
    taken = AxisSelection(dim, whole).narrow(selector_of(pick, dim)).taken
    return [taken] if isinstance(taken, int) else list(taken or ())


def coordinates(
    run: RunDocument, dim: str, numbers: Sequence[int], options: Options
) -> Operation[dict[str, NDArray[Any]]]:
    """Fetch the coordinates of steps or samples.

    Returns
    -------
    dict of NDArray, shape (len(numbers),)
        First *numbers* themselves, under the name *dim*; then each coordinate, of its dtype.
        Where an entry has no value it is NaN, or an empty text, and integers come as float64.
    """
    declared = run.step_coordinates if dim == STEP else run.sample_coordinates
    index = np.array(numbers, np.int64)
    if not numbers or not declared:
        return {dim: index} | {name: np.empty(0, dtype) for name, dtype in declared.items()}
    # All from the first to the last, because a list may be longer than a URL can be.
    covering = taken_text(range(min(numbers), max(numbers) + 1))
    request = Request(
        f"{run_path(run.id)}/{dim}s", params=((f"{dim}s", covering), ("format", "npz"))
    )
    columns = yield from fetched(request, options.retry, partial(_columns, dim, declared))
    there = columns[dim]
    at = np.searchsorted(there, index)
    if not len(there) or not np.array_equal(there[np.minimum(at, len(there) - 1)], index):
        raise changed(f"run {run.id!r} no longer has all of {dim}s {covering}")
    return {name: column[at] for name, column in columns.items()}


def _columns(dim: str, declared: Mapping[str, str], reply: Reply) -> dict[str, NDArray[Any]]:
    members = npz_members(reply, (dim, *declared))
    return {
        name: _as_declared(column, np.dtype(declared.get(name, column.dtype)))
        for name, column in members.items()
    }


def _as_declared(column: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return *column* as *dtype*, unless an entry without a value made it another kind."""
    alike = column.dtype.kind == dtype.kind or (column.dtype.kind in "iu" and dtype.kind in "iu")
    return column.astype(dtype) if alike else column
