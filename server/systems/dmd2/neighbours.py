"""The nearest neighbours of a sample, exactly: between activations, or in a projection.

Activations are read a few megabytes at a time; a layer after another adds its part to the squared
distances, so no row of all layers is ever put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError, TooLargeError
from archive_schema.systems.dmd2 import UMAP_AXES
from archive_schema.wire import CoordinateTable
from server.systems.dmd2.listing import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archive_schema.selection import Selector
    from server.systems.dmd2.dataset import ImageSet

Metric = Literal["euclidean", "cosine"]
_AT_ONCE: Final = 8 << 20


def neighbour_table(
    dataset: ImageSet, sample: int, count: int, distances: NDArray[np.float64]
) -> CoordinateTable:
    """Return the *count* samples with the least distances but *sample* itself, a row each.

    Parameters
    ----------
    distances : shape (samples,)
        NaN for what is not recorded, which is nobody's neighbour.
    """
    order = np.argsort(distances, kind="stable")
    found = [at for at in order.tolist() if at != sample and not np.isnan(distances[at])][:count]
    columns, rows = listed(dataset, found)
    told = {name: tuple(row[at] for row in rows) for at, name in enumerate(columns)}
    return CoordinateTable(
        axis="rank",
        index=tuple(range(1, len(found) + 1)),
        coordinates={
            "sample": tuple(found),
            "distance": tuple(distances[found].tolist()),
            **told,
        },
    )


def projected_distances(dataset: ImageSet, sample: int) -> NDArray[np.float64]:
    """Return the Euclidean distance of every sample in the projection, as the app takes it.

    Raises
    ------
    NotFoundError
        ``not-recorded`` if the sample has no coordinates there.
    """
    axes = [axis for axis in UMAP_AXES if axis in dataset.run.ledger.sample_coordinates]
    places = np.array(
        [[one.get(axis, np.nan) for axis in axes] for one in dataset.samples], np.float64
    ).reshape(len(dataset.samples), len(axes))
    if not axes or np.isnan(places[sample]).any():
        message = f"sample {sample} of run {dataset.run.manifest.id!r} has no umap_x and umap_y"
        raise NotFoundError(ErrorKind.NOT_RECORDED, message)
    distances: NDArray[np.float64] = np.sqrt(np.square(places - places[sample]).sum(axis=1))
    return distances


def activation_distances(
    dataset: ImageSet,
    sample: int,
    layers: Sequence[str] | None,
    step: int,
    metric: Metric,
    *,
    limit: int,
) -> NDArray[np.float64]:
    """Return the distance of every sample between the activations of *layers*, all by default.

    Parameters
    ----------
    limit : int, bytes
        The most that is read.

    Raises
    ------
    NotFoundError
        ``layer-not-found``; ``not-recorded`` if the sample has no such activations.
    TooLargeError
        ``answer-too-large``.
    """
    fields = dataset.chosen(layers)
    if not fields:
        message = f"run {dataset.run.manifest.id!r} has no activations"
        raise NotFoundError(ErrorKind.LAYER_NOT_FOUND, message)
    for field in fields:
        if not field.spec.sampled or field.dtype.kind not in "fiu":
            message = f"layer {field.spec.layer!r} has no numbers by sample: {field.dims}"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    count = dataset.run.samples
    masks = [field.ledger.recorded(count, [step])[0] for field in fields]
    there = np.flatnonzero(np.logical_and.reduce(masks))
    if sample not in there:
        message = f"sample {sample} of run {dataset.run.manifest.id!r} is not recorded at step"
        raise NotFoundError(ErrorKind.NOT_RECORDED, f"{message} {step} of all these layers")
    chosen: dict[str, Selector] = {"step": step, "sample": tuple(there.tolist())}
    planned = [(field, field.select(chosen)) for field in fields]
    nbytes = sum(one.nbytes for _, one in planned)
    if nbytes > limit:
        message = f"distances of {len(there)} samples take {nbytes:,} bytes, at most {limit:,} are"
        raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, f"{message} read; ask for fewer layers")
    sums = np.zeros((3, len(there)))
    for field, one in planned:
        own = _wide(field.select({"step": step, "sample": sample}).array())
        for place, values in one.boxes(_AT_ONCE):
            part = own[place[1:]].reshape(-1)
            rows = _wide(values).reshape(len(values), -1)
            sums[0, place[0]] += np.square(rows - part).sum(axis=1)
            if metric == "cosine":
                sums[1, place[0]] += rows @ part
                sums[2, place[0]] += np.square(rows).sum(axis=1)
    distances = np.full(count, np.nan)
    if metric == "euclidean":
        distances[there] = np.sqrt(sums[0])
    else:
        at = int(np.flatnonzero(there == sample)[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            distances[there] = 1 - sums[1] / np.sqrt(sums[2] * sums[2, at])
    return distances


def _wide(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float64)
