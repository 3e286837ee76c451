"""Records D3-DNA's network alone: each forward pass is a step."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from recorder.integrations.d3_dna.batches import Attached, Batches, check_some, put_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Module

    from recorder.capture import Capture
    from recorder.recorder import TraceRecorder


def attach_model(
    recorder: TraceRecorder,
    model: Module,
    *,
    steps: int,
    dtype: str = "float16",
    layers: Mapping[str, Capture | Mapping[str, Any] | str] | None = None,
    start: int = 0,
) -> Attached:
    """Record each forward pass of *model* as a step: its tokens, exp(log-score) and noise level.

    Parameters
    ----------
    model
        Called as ``model(indices, labels, train, sigma)``; gives the log-score, or a tuple that
        begins with it.
    steps
        Steps of a batch. A pass after the last of them, the denoiser's, is not recorded.
    dtype, layers, start
        As of `attach`.
    """
    check_some("dtype", [dtype], ("float16", "float32"))
    batches = Batches(recorder, start, dtype, ends=False)
    signature = inspect.signature(model.forward)

    def fired(_: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = signature.bind(*args, **kwargs).arguments
        x, labels, sigma = given[next(iter(given))], given.get("labels"), given["sigma"]
        level = float(sigma.flatten()[0])
        batches.step(x, labels, level)
        if batches.number >= steps:
            batches.end(None)
            return
        score = (output[0] if isinstance(output, tuple) else output).float().exp()
        batches.record(x, {"score_matrix": score}, {"noise_level": level})

    with ExitStack() as stack:
        put_layers(stack, recorder, model, layers)
        # After the layers' hooks, so that what they caught belongs to this step.
        stack.callback(model.register_forward_hook(fired, with_kwargs=True).remove)
        return Attached(batches, stack.pop_all())
