"""Records D3-DNA's sampling by wrapping ``update_fn`` of its predictor and of its denoiser.

Classes or objects are wrapped: whatever the registry, ``get_pc_sampler`` or ``D3Sampler`` make of
them is recorded.

1. A call of the predictor is one step of a batch. The score function that it is handed keeps what
   it returns, so the network runs no second time.
2. The staggered score and the transition are computed again from that score, as the predictor's
   own graph and noise say; ``prob_matrix`` is their product.
3. The denoiser ends a batch, and so does a predictor whose time has gone up again.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from recorder.integrations.d3_dna.batches import Attached, Batches, check_some, put_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import Tensor
    from torch.nn import Module

    from recorder.capture import Capture
    from recorder.recorder import TraceRecorder

MATRICES: Final = ("score_matrix", "prob_matrix", "stag_scores", "transition_matrices")


def attach(
    recorder: TraceRecorder,
    predictor: Any,
    denoiser: Any = None,
    *,
    keep: Collection[str] = MATRICES[:2],
    dtype: str = "float16",
    denoiser_step: bool = False,
    oracle: Callable[[Tensor], Tensor] | None = None,
    oracle_targets: Tensor | None = None,
    model: Module | None = None,
    layers: Mapping[str, Capture | Mapping[str, Any] | str] | None = None,
    start: int = 0,
) -> AttachedSampler:
    """Record what is sampled from now on, until what is returned is left or detached.

    Parameters
    ----------
    predictor
        A predictor, or its class (``AnalyticPredictor``, or what your own registered name leads
        to), with ``graph``, ``noise`` and ``update_fn(score_fn, x, labels, t, step_size)``.
    denoiser
        Likewise, ``update_fn(score_fn, x, labels, t)``: what it returns are the final sequences.
        None if sampling ends with the last step.
    keep
        Some of `MATRICES`; the sequence before each update always is.
    dtype
        Of the matrices: ``float16``, as upstream's logger casts them, or ``float32``.
    denoiser_step
        Whether the denoiser's pass is recorded too, as one step more, without ``noise_rate``.
    oracle
        From sequences to predictions, (sample, output): recorded at every step.
    oracle_targets : shape (samples of the run, outputs)
        Predictions of the real sequences: ``oracle_mse`` is the mean squared distance to them.
    model, layers
        Layers to record, by glob over the names of the model's modules; see
        `TraceRecorder.attach`.
    start
        Sample of the run that is the first of the next batch.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``; ``pattern-unmatched`` as `TraceRecorder.attach`.
    """
    check_some("keep", keep, MATRICES)
    check_some("dtype", [dtype], ("float16", "float32"))
    batches = Batches(recorder, start, dtype, oracle, oracle_targets)
    with ExitStack() as stack:
        put_layers(stack, recorder, model, layers)
        attached = AttachedSampler(
            batches,
            stack,
            keep=frozenset(keep),
            denoises=denoiser is not None,
            denoiser_step=denoiser_step,
        )
        _wrap(stack, predictor, attached._predict)  # noqa: SLF001  of this module
        if denoiser is not None:
            _wrap(stack, denoiser, attached._denoise)  # noqa: SLF001
        attached._stack = stack.pop_all()  # noqa: SLF001
        return attached


class AttachedSampler(Attached):
    """A predictor and a denoiser that are being recorded."""

    def __init__(
        self,
        batches: Batches,
        stack: ExitStack,
        *,
        keep: frozenset[str],
        denoises: bool,
        denoiser_step: bool,
    ) -> None:
        super().__init__(batches, stack)
        self._keep = keep
        self._denoises = denoises
        self._denoiser_step = denoiser_step
        self._noise: dict[float, tuple[float, float]] = {}
        """Noise level and rate by time, which are the same in every batch."""
        self._last: Tensor | None = None

    def detach(self) -> None:
        """Take the wrappers off, and record the final sequences of a batch without a denoiser."""
        super().detach()
        self._finish()

    def _predict(self, owner: Any, update: Callable[..., Tensor], given: list[Any]) -> Tensor:
        score_fn, x, labels, t, step_size = given[:5]
        time = float(t.flatten()[0])
        if self._batches.begins(time):
            self._finish()
        self._batches.step(x, labels, time)
        kept = _Kept(score_fn)
        made = update(kept, *given[1:])
        level, rate = owner.noise(t)
        removed = level - owner.noise(t - step_size)[0]
        if time not in self._noise:
            self._noise[time] = float(level.flatten()[0]), float(rate.flatten()[0])
        known = self._noise[time]
        coordinates = {"timestep": time, "noise_level": known[0], "noise_rate": known[1]}
        self._batches.record(x, self._matrices(owner.graph, kept, x, removed), coordinates)
        self._last = None if self._denoises else made
        return made

    def _denoise(self, owner: Any, update: Callable[..., Tensor], given: list[Any]) -> Tensor:
        score_fn, x, labels, t = given[:4]
        kept = _Kept(score_fn)
        made = update(kept, *given[1:])
        if self._denoiser_step:
            time = float(t.flatten()[0])
            self._batches.step(x, labels, time)
            level = owner.noise(t)[0]
            coordinates = {"timestep": time, "noise_level": float(level.flatten()[0])}
            self._batches.record(x, self._matrices(owner.graph, kept, x, level), coordinates)
        self._batches.end(made)
        return made

    def _matrices(self, graph: Any, kept: _Kept, x: Tensor, removed: Tensor) -> dict[str, Tensor]:
        score = kept.score()
        found = {"score_matrix": score}
        if self._keep - {"score_matrix"}:
            found["stag_scores"] = graph.staggered_score(score, removed)
            found["transition_matrices"] = graph.transp_transition(x, removed)
            found["prob_matrix"] = found["stag_scores"] * found["transition_matrices"]
        return {name: values for name, values in found.items() if name in self._keep}

    def _finish(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._batches.end(last)


class _Kept:
    """A score function that keeps what it returned."""

    def __init__(self, score_fn: Callable[..., Tensor]) -> None:
        self._score_fn = score_fn
        self._score: Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        self._score = self._score_fn(*args, **kwargs)
        return self._score

    def score(self) -> Tensor:
        if self._score is None:
            raise RuntimeError("the predictor did not call its score function: nothing to record")
        return self._score


def _wrap(
    stack: ExitStack,
    owner: Any,
    replaced: Callable[[Any, Callable[..., Tensor], list[Any]], Tensor],
) -> None:
    """Put *replaced* in the place of ``update_fn`` of an object or a class."""
    original = owner.update_fn
    signature = inspect.signature(original)

    @wraps(original)
    def update_fn(*args: Any, **kwargs: Any) -> Tensor:
        given = list(signature.bind(*args, **kwargs).arguments.values())
        if isinstance(owner, type):
            this, *given = given
            return replaced(this, lambda *changed: original(this, *changed), given)
        return replaced(owner, original, given)

    own = vars(owner).get("update_fn")
    owner.update_fn = update_fn

    def put_back() -> None:
        del owner.update_fn
        if own is not None:
            owner.update_fn = own

    stack.callback(put_back)
