"""Arrays and runs as xarray's objects, with the names of their axes and their coordinates.

Not imported before it is needed: xarray is an extra, and takes longer to import than all else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from archive_schema.wire import steps_of
from clients.axis import SAMPLE, STEP
from clients.coordinates import chosen, coordinates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from archive_schema.wire import RunDocument
    from clients.arrays import Array
    from clients.exchange import Operation
    from clients.options import Options
    from clients.slices import Source
    from clients.slicing import Selection


def axis_coordinates(
    source: Source, selection: Selection, options: Options
) -> Operation[dict[str, xarray.Variable]]:
    """Fetch the coordinates of *selection*: of axes that it keeps, and of those it dropped."""
    found: dict[str, xarray.Variable] = {}
    for axis, length in zip(selection.axes, source.document.shape, strict=True):
        taken = axis.taken
        if taken is None:
            continue
        numbers = [taken] if isinstance(taken, int) else list(taken)
        if axis.dim in (STEP, SAMPLE):
            columns = yield from coordinates(source.run, axis.dim, numbers, options)
        elif taken == range(length or 0):
            continue  # 0, 1, 2, … says nothing
        else:
            columns = {axis.dim: np.array(numbers, np.int64)}
        dims, at = ((), 0) if isinstance(taken, int) else ((axis.dim,), slice(None))
        # A coordinate may have the name of another axis, which xarray cannot place.
        for name, column in columns.items():
            if name == axis.dim or name not in source.document.dims:
                found[name] = xarray.Variable(dims, column[at])
    return found


def run_coordinates(run: RunDocument, options: Options) -> Operation[dict[str, xarray.Variable]]:
    """Fetch all coordinates of a run's steps and samples."""
    found: dict[str, xarray.Variable] = {}
    for dim in (STEP, SAMPLE):
        columns = yield from coordinates(run, dim, chosen(run, dim, None), options)
        found |= {name: xarray.Variable((dim,), column) for name, column in columns.items()}
    return found


def data_array(
    source: Source,
    selection: Selection,
    values: NDArray[Any],
    coords: Mapping[str, xarray.Variable],
) -> xarray.DataArray:
    """Return *values* with their names."""
    return xarray.DataArray(
        values,
        coords,
        selection.dims,
        name=source.document.name,
        attrs=dict(source.document.attributes),
    )


def dataset(
    run: RunDocument, arrays: Mapping[str, Array], coords: Mapping[str, xarray.Variable]
) -> xarray.Dataset:
    """Return *arrays* of one run as a dataset that fetches what is computed with.

    A field recorded at other steps than the run has a step axis of its own: ``step_<field>``.
    """
    every = steps_of(run.step_ranges)
    variables: dict[str, xarray.Variable] = {}
    axes: dict[str, xarray.Variable] = dict(coords)
    for name, array in arrays.items():
        dims = list(array.dims)
        if STEP in dims and array.steps != every:
            dims[dims.index(STEP)] = f"{STEP}_{name}"
            axes[f"{STEP}_{name}"] = xarray.Variable((f"{STEP}_{name}",), list(array.steps))
        lazy = indexing.LazilyIndexedArray(RemoteArray(array))
        variables[name] = xarray.Variable(dims, lazy, array.attributes)
    attrs = {**run.metadata, "run": run.id, "system": run.system}
    return xarray.Dataset(variables, axes, attrs)


class RemoteArray(BackendArray):
    """An array whose values xarray asks for by position, also on the step axis."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape = tuple(length or 0 for length in array.shape)
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        values: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._fetch
        )
        return values

    def _fetch(self, key: tuple[Any, ...]) -> NDArray[Any]:
        picks = dict(zip(self._array.dims, key, strict=True))
        if STEP in picks:
            numbers = np.array(self._array.steps)[picks[STEP]]
            picks[STEP] = int(numbers) if numbers.ndim == 0 else numbers
        return self._array.select(**picks).read()
