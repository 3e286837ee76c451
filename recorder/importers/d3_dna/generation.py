"""Which generation of the logger wrote a file, what it lacks, and what is odd about it.

The generations tell themselves apart by what they hold, never by a mark:

===  =====================================================================
0    no ``prob_matrix``; sampling adds one step without ``noise_rate``
1    evaluated, with nothing of what A and B add
A    ground truth at every step; ``has_original_samples``
B    ground truth once, in the metadata; also what sampling writes since 1
S    real sequences scored at fixed noise: ``sigma_values``, ``checkpoint_path``
===  =====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from archive_schema.systems.d3_dna import ATTRIBUTES, COORDINATES
from archive_schema.wire import ranges_text, step_ranges
from recorder.importers.source import Findings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from recorder.importers.d3_dna.log import Log

_SCORED: Final = frozenset(("checkpoint_path", "config_path", "default_sigma_idx"))
_ALWAYS: Final = ("sequence", "score_matrix", "prob_matrix")
_ORACLE: Final = ("oracle_mse", "oracle_predictions")
_EVALUATED: Final = (
    "original_samples",
    "ground_truth_labels",
    "ground_truth_predictions",
    "dataset_indices",
)


def describe(log: Log, odd: list[str]) -> Findings:
    """Return what there is to say about *log*, after what the survey found odd."""
    generation = generation_of(log)
    return Findings(generation, list(_missing(log)), [*odd, *_odd(log, generation)])


def generation_of(log: Log) -> str:
    """Return the generation that wrote *log*: 0, 1, A, B or S."""
    traced = {field.name for field in log.traced}
    inputs = {field.name for field in log.inputs}
    if "sigma_values" in inputs or _SCORED & set(log.attributes):
        return "S"
    if "prob_matrix" not in traced:
        return "0"
    late = "ground_truth_oracle_predictions" in inputs or "ground_truth_labels" in traced
    if late or "has_original_samples" in log.attributes:
        return "A"
    if inputs & set(_EVALUATED[1:]) or "oracle_predictions" in traced:
        return "B"
    return "1" if "split" in log.attributes or "oracle_mse" in traced else "B"


def _missing(log: Log) -> Iterator[str]:
    yield from (f"metadata {name}" for name in ATTRIBUTES if name not in (*log.attributes, "split"))
    if log.schedule is None:
        yield "metadata noise_schedule"
    evaluated = "split" in log.attributes
    oracle = bool(log.attributes.get("save_oracle_mse"))
    recorded = {field.name: field.steps for field in log.traced}
    for name in (*_ALWAYS, *(_ORACLE if oracle else ())):
        yield from _lacking(name, log.steps, recorded.get(name, frozenset()))
    for name in COORDINATES:
        there = {step for step, values in log.coordinates.items() if name in values}
        yield from _lacking(name, log.steps, there)
    if evaluated:
        inputs = {field.name for field in log.inputs}
        yield from (f"metadata {name}" for name in _EVALUATED if name not in inputs)


def _lacking(name: str, steps: tuple[int, ...], there: Iterable[int]) -> Iterator[str]:
    lacking = sorted(set(steps) - set(there))
    if len(lacking) == len(steps):
        yield f"{name} at every step"
    elif lacking:
        yield f"{name} at steps {ranges_text(step_ranges(lacking))}"


def _odd(log: Log, generation: str) -> Iterator[str]:
    for name, found in (("num_samples", log.samples), ("total_steps", len(log.steps))):
        said = log.attributes.get(name)
        if isinstance(said, (int, np.integer)) and said != found:
            yield f"{name} says {said}; there are {found}"
    for field in (*log.traced, *log.inputs):
        if field.dtype.byteorder == ">":
            yield f"{field.name} is big-endian; it is kept little-endian"
    for field in log.traced:
        if field.shape[:1] != (log.samples,):
            yield f"{field.name} has shape {field.shape} a step: kept without a sample axis"
    for field in log.inputs:
        if field.name in _EVALUATED and field.shape[:1] != (log.samples,):
            yield f"{field.name} has shape {field.shape}: kept without a sample axis"
    if generation == "1" and any(field.name == "oracle_mse" for field in log.traced):
        yield "oracle_mse of generation 1 is the mean of squared predictions, not an error"
