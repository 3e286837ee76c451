"""Where in a run a sampler of D3-DNA is, and what takes hooks and wrappers off it again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from archive_schema.errors import ErrorKind, invalid
from recorder.capture import capture_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import ExitStack

    from torch import Tensor
    from torch.nn import Module

    from recorder.capture import Capture
    from recorder.recorder import TraceRecorder

_AXES: Final = {2: ("sample", "channel"), 3: ("sample", "position", "channel")}
"""Axes of layers by their number."""
_MOST_LABELS: Final = 16
"""Labels of a sample that are kept as sample coordinates ``label_0``, ``label_1``, …"""


class Attached:
    """What is being recorded; leaving it, or `detach`, makes all objects what they were."""

    def __init__(self, batches: Batches, stack: ExitStack) -> None:
        self._batches = batches
        self._stack = stack

    @property
    def next_sample(self) -> int:
        """Sample of the run that is the first of the next batch."""
        return self._batches.start

    def due(self, count: int, *, steps: int, seed: int | None = None) -> bool:
        """Return whether the next *count* samples are yet to be recorded; if not, pass them over.

        Parameters
        ----------
        steps
            How many are recorded of a batch.
        seed
            Kept as a sample coordinate. Set it before the batch is sampled, so that a batch that
            was cut short is drawn again as it was: other values would be a conflict.
        """
        return self._batches.due(count, steps, seed)

    def detach(self) -> None:
        """Take hooks and wrappers off; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


class Batches:
    """Where in the run a sampler is: which samples its batch has, and which step is next."""

    def __init__(
        self,
        recorder: TraceRecorder,
        start: int,
        dtype: str,
        oracle: Callable[[Tensor], Tensor] | None = None,
        targets: Tensor | None = None,
        *,
        ends: bool = True,
    ) -> None:
        self.start = start
        self.number = -1
        """Of the step that is under way."""
        self._recorder = recorder
        self._dtype = dtype
        self._oracle = oracle
        self._targets = targets
        self._ends = ends
        """Whether each batch has final sequences."""
        self._count = 0
        self._falling: float | None = None
        """What falls from step to step: the time, or the noise level."""
        self._seed: int | None = None

    @property
    def samples(self) -> slice:
        """Samples of the run that the batch under way has."""
        return slice(self.start, self.start + self._count)

    def begins(self, falling: float) -> bool:
        """Return whether a step at this time, or noise level, is the first of a batch."""
        return self._falling is None or falling >= self._falling

    def step(self, x: Tensor, labels: Tensor | None, falling: float) -> None:
        """Begin a step; one of a batch that was broken off begins the same samples again."""
        if self.begins(falling):
            self.number, self._count = -1, len(x)
            self._tell(labels)
        elif len(x) != self._count:
            message = f"expected {self._count} sequences, as the step before had; got {len(x)}"
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        self.number += 1
        self._falling = falling

    def record(
        self, x: Tensor, matrices: Mapping[str, Tensor], coordinates: Mapping[str, float]
    ) -> None:
        """Record the step under way, and what the oracle says of it."""
        values: dict[str, Any] = {
            name: matrix.half() if self._dtype == "float16" else matrix.float()
            for name, matrix in matrices.items()
        }
        if self._oracle is not None:
            values |= self._asked(self._oracle(x).reshape(len(x), -1))
        values |= coordinates
        self._recorder.record(self.number, self.samples, sequence=x, **values)

    def end(self, final: Tensor | None) -> None:
        """End the batch with its final sequences."""
        finals = {} if final is None else {"final_sequence": final}
        self._recorder.outputs(self.samples, **finals)  # also without, so that layers forget
        self.start, self._falling, self._seed = self.samples.stop, None, None

    def due(self, count: int, steps: int, seed: int | None) -> bool:
        """Return whether anything of the next *count* samples is yet to be recorded."""
        samples = slice(self.start, self.start + count)
        recorded = self._recorder.recorded()
        self._falling = None
        final = recorded.fields.get("outputs/final_sequence")
        ended = not self._ends if final is None else final.has(0, samples.start, samples.stop)
        if ended and all(recorded.has(step, samples, ["trace/sequence"]) for step in range(steps)):
            self.start = samples.stop
            return False
        self._seed = seed
        return True

    def _asked(self, predictions: Tensor) -> dict[str, Tensor]:
        """Return what an oracle says of the sequences."""
        if self._targets is None:
            return {"oracle_predictions": predictions}
        targets = self._targets[self.samples].reshape(len(predictions), -1).to(predictions.device)
        if targets.shape != predictions.shape:
            message = (
                f"oracle_targets: expected {predictions.shape[1]} outputs a sample, as the oracle"
                f" has; got {targets.shape[1]}"
            )
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        apart = (targets - predictions).square().mean(1)
        return {"oracle_predictions": predictions, "oracle_mse": apart}

    def _tell(self, labels: Tensor | None) -> None:
        """Record what is known of the samples of a batch before its first step."""
        columns: dict[str, Any] = {}
        if labels is not None and labels.ndim <= 2 and labels[0].numel() <= _MOST_LABELS:  # noqa: PLR2004
            each = labels.reshape(len(labels), -1).T.cpu()  # the one wait for it in a batch
            columns = {f"label_{at}": column for at, column in enumerate(each)}
        if self._seed is not None:
            columns["seed"] = [self._seed] * self._count
        if columns:
            self._recorder.sample_coordinates(self.samples, **columns)


def put_layers(
    stack: ExitStack,
    recorder: TraceRecorder,
    model: Module | None,
    layers: Mapping[str, Capture | Mapping[str, Any] | str] | None,
) -> None:
    """Put hooks on layers, if there are any to record, and name their axes."""
    if not layers:
        return
    if model is None:
        raise invalid(ErrorKind.INVALID_PARAMETER, "layers= expects model= beside it")
    captures = {pattern: capture_of(options) for pattern, options in layers.items()}
    named = {pattern: replace(one, dims=one.dims or _AXES) for pattern, one in captures.items()}
    stack.enter_context(recorder.attach(model, named))


def check_some(what: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse (``invalid-parameter``) what is not *known*."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        message = f"{what}: expected some of {', '.join(known)}; got {', '.join(unknown)}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
