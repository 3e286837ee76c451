"""From the path and the parameters of a request to planned slices; nothing is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.parameters import parameter_names, slice_request
from server.query import LAYER, LayerSlices, matching_fields, narrowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from archive_schema.selection import Selector
    from server.parameters import SliceRequest
    from server.query import FieldView, RunView, Slice


def planned(field: FieldView, request: SliceRequest, step: int | None = None) -> Slice:
    """Return the slice of *field* that is asked for.

    Parameters
    ----------
    step
        As the path names it.

    Raises
    ------
    InvalidInputError, NotFoundError
        As `narrowed` and `FieldView.select`.
    """
    selectors: Mapping[str, Selector] = request.selectors
    fixed = () if step is None else ("step",)
    if request.named:
        known = parameter_names(field.dims, fixed)
        selectors = narrowed(field.run, selectors, request.named, choosable(field, fixed), known)
    if step is not None:
        selectors = {"step": step, **selectors}
    return field.select(selectors, missing=request.missing)


def planned_layers(
    run: RunView, path: Mapping[str, str], query_string: bytes, step: int | None
) -> tuple[LayerSlices, SliceRequest]:
    """Return the slices of each layer that matches the glob in *path*; errors as `planned`."""
    slices: dict[str, Slice] = {}
    fixed = (LAYER,) if step is None else (LAYER, "step")
    for field in matching_fields(run, path[LAYER], path["field"]):
        dims = field.dims if LAYER in field.dims else (LAYER, *field.dims)
        request = slice_request(query_string, dims, fixed)
        slices[field.spec.layer or ""] = planned(field, request, step)
    return LayerSlices(slices), request


def choosable(field: FieldView, fixed: Sequence[str] = ()) -> dict[str, Sequence[int]]:
    """Return the steps and samples of *field* that coordinates may choose from."""
    axes: dict[str, Sequence[int]] = {"step": field.steps} if field.stepped else {}
    if field.spec.sampled:
        axes["sample"] = range(field.run.samples)
    return {axis: entries for axis, entries in axes.items() if axis not in fixed}
