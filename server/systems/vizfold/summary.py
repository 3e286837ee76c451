"""Statistics a layer, as ESMFold's ``trace/summary.json`` has them, from values read in pieces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.models import Place

if TYPE_CHECKING:
    from server.query import Slice
    from server.systems.vizfold.prediction import Prediction

_TINY: Final = 1e-12
_FAINT: Final = 1e-5
"""Attention below this counts as none in `sparsity_proxy`."""
_REPRESENTATIONS: Final = ("msa", "pair", "single", "activations", "states")


def summarised(
    prediction: Prediction, step: int, layers: set[str] | None = None
) -> dict[str, Slice]:
    """Return what is summarised at a step, by ``<layer>/<field>``; nothing is read yet.

    Parameters
    ----------
    layers
        Names; None for all.
    """
    maps = {(a.layer, a.name) for a in prediction.attention if not a.sparse}
    found = {}
    for field in prediction.run.fields(Place.LAYERS):
        layer, name = field.spec.layer or "", field.spec.name
        wanted = (layer, name) in maps or name in _REPRESENTATIONS
        if wanted and (layers is None or layer in layers) and field.ledger.has(step):
            found[f"{layer}/{name}"] = field.select({"step": step})
    return found


def summary(slices: dict[str, Slice]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, standard deviation and more of each slice: ``attention`` and ``activations``.

    ``entropy_proxy`` is the mean over rows of their entropy in nats, ``sparsity_proxy`` the share
    of values below 1e-5, ``norm_mean`` the root of the mean square.
    """
    found: dict[str, dict[str, dict[str, float]]] = {"attention": {}, "activations": {}}
    for key, values in slices.items():
        is_map = values.dims[-2:] == ("query", "key")
        found["attention" if is_map else "activations"][key] = _statistics(values, is_map=is_map)
    return found


def _statistics(values: Slice, *, is_map: bool) -> dict[str, float]:
    count = rows = faint = 0
    mean = squares = moments = entropy = 0.0
    for _, piece in values.boxes():
        wide = piece.astype(np.float64)
        middle, before = float(wide.mean()), count
        count += wide.size
        difference = middle - mean
        squares += (
            float(np.square(wide - middle).sum()) + difference**2 * before * wide.size / count
        )
        mean += difference * wide.size / count
        if is_map:
            with np.errstate(invalid="ignore"):  # what is no attention has no entropy: NaN
                entropy -= float((wide * np.log(wide + _TINY)).sum())
            rows += wide.size // wide.shape[-1]
            faint += int((wide < _FAINT).sum())
        else:
            moments += float(np.square(wide).sum())
    if not count:
        return {}
    told = {"mean": mean, "std": math.sqrt(squares / count)}
    if is_map:
        return {**told, "entropy_proxy": entropy / rows, "sparsity_proxy": faint / count}
    return {"norm_mean": math.sqrt(moments / count), **told}
