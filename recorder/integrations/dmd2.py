"""Records the sampling of DMD2's models, diffviews and adapt_diff: their objects are hooked only.

1. A batch begins with `AttachedModel.batch`, which says which samples it is. What the model does
   outside of one, as when its shapes are asked for, is not recorded.
2. The model's forward tells the noise level. A forward is a step; of a guided sampler two are, the
   conditional one first, and their layers lie along the axis ``guidance``.
3. Hooks on the blocks record what they give out, by the names that the visualizer has for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from archive_schema.errors import ErrorKind, invalid
from archive_schema.systems.dmd2 import (
    CLASS,
    CLASS_ID,
    CLASS_NAMES,
    CLASS_SYNSETS,
    GUIDANCE,
    IMAGE,
    OUTPUT,
    SAMPLE_ID,
    SIGMA,
    SYNSET,
    layer_axes,
)
from archive_schema.systems.imagenet import ClassOrder, class_book

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.nn import Module

    from archive_schema.systems.imagenet import ClassBook
    from recorder.recorder import TraceRecorder

DEFAULT_LAYERS: Final = ("encoder_bottleneck", "midblock")
KEPT: Final = ("image", "noised_image")
"""What may be recorded of each step beside layers: the prediction, and what the model was given."""


def attach(
    recorder: TraceRecorder,
    model: Any,
    layers: Sequence[str] = DEFAULT_LAYERS,
    *,
    guidance_scale: float | None = None,
    classes: ClassOrder | str | None = ClassOrder.STANDARD,
    keep: Sequence[str] = (),
    level: str = SIGMA,
) -> AttachedModel:
    """Record what *model* does from now on, until what is returned is left or detached.

    Parameters
    ----------
    model
        ``EDMPrecond`` or its ``DhariwalUNet``; or an adapter, or the visualizer's
        ``ActivationExtractor`` with one, which register hooks by layer name themselves. A U-Net is
        given scaled images and a logarithm of the noise level: its batches need ``sigmas``.
    layers
        Globs over the names of layers: ``encoder_block_*``.
    guidance_scale
        Of a sampler with classifier-free guidance, which calls the model twice in a step,
        conditionally first; None if it calls it once.
    classes
        How class ids are numbered; None records no names.
    keep
        Some of `KEPT`, as uint8 pictures.
    level
        Step coordinate that the second argument of the model's forward is: ``sigma``, or
        ``timestep`` of models that count those.

    Raises
    ------
    InvalidInputError
        ``pattern-unmatched`` for a glob that matches no layer; ``invalid-parameter`` for something
        else in *keep*, or anything in it with a U-Net, which sees no pictures.
    """
    unknown = sorted(set(keep) - set(KEPT))
    if unknown:
        message = f"expected to keep some of {', '.join(KEPT)}; got {', '.join(unknown)}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    model = getattr(model, "adapter", model)
    inner = level == SIGMA and _is_unet(model)
    if keep and inner:
        message = f"expected the model around the U-Net to keep {', '.join(keep)} of; got its U-Net"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    book = None if classes is None else class_book(ClassOrder(classes))
    return AttachedModel(
        recorder,
        model,
        layers,
        guidance_scale=guidance_scale,
        book=book,
        keep=frozenset(keep),
        level=level,
        inner=inner,
    )


def layer_modules(model: Any) -> dict[str, Module]:
    """Return the blocks of an ``EDMPrecond`` or ``DhariwalUNet``, by the visualizer's names."""
    unet = getattr(model, "model", model)
    encoder, decoder = list(unet.enc.values()), list(unet.dec.values())
    named = {f"encoder_block_{at}": block for at, block in enumerate(encoder[:-1])}
    named |= {"encoder_bottleneck": encoder[-1], "midblock": decoder[0]}
    return named | {f"decoder_block_{at}": one for at, one in enumerate(decoder) if at}


@dataclass(slots=True)
class Batch:
    """The batch that is under way."""

    samples: slice
    sigmas: Sequence[float] | None
    """Noise level of each step, if the caller knows them."""
    forwards: int = 0
    held: dict[str, Tensor] = field(default_factory=dict)
    """What layers gave out in the conditional pass of a step."""
    prediction: Tensor | None = None
    images: Any = None
    """The final pictures, uint8 (sample, row, column, channel): set it, and they are recorded."""


class AttachedModel:
    """A model that is being recorded; leaving it, or `detach`, makes it what it was."""

    def __init__(
        self,
        recorder: TraceRecorder,
        model: Any,
        layers: Sequence[str],
        *,
        guidance_scale: float | None,
        book: ClassBook | None,
        keep: frozenset[str],
        level: str,
        inner: bool,
    ) -> None:
        self._recorder = recorder
        self._scale = guidance_scale
        self._book = book
        self._keep = keep
        self._level = level
        self._inner = inner
        self._batch: Batch | None = None
        self._declared: set[str] = set()
        adapted = hasattr(model, "register_activation_hooks")
        modules = {} if adapted else layer_modules(model)
        self.layers = _matching(layers, model.hookable_layers if adapted else list(modules))
        """Names of the layers that are recorded."""
        if book is not None:
            codebook = {CLASS_NAMES: book.names, CLASS_SYNSETS: book.synsets}
            recorder.inputs(None, **{name: np.array(ones) for name, ones in codebook.items()})
        with ExitStack() as stack:
            for name in self.layers:
                if adapted:
                    handles = model.register_activation_hooks([name], self._layer_hook(name))
                else:
                    handles = [modules[name].register_forward_hook(self._layer_hook(name))]
                for handle in handles:
                    stack.callback(handle.remove)
            original = model.forward
            stack.callback(_put_back, model, vars(model).get("forward"))
            model.forward = self._wrapped(original)
            self._stack = stack.pop_all()

    @contextmanager
    def batch(
        self, samples: slice, *, sigmas: Sequence[float] | None = None, **coordinates: Any
    ) -> Iterator[Batch]:
        """Record what the model does meanwhile as *samples*.

        Parameters
        ----------
        sigmas
            Noise level of each step. Without, it is read from the model's argument, for which the
            device is waited for once a step; a U-Net has none.
        coordinates
            Of the samples, a value each or one for all: ``class_id``, ``seed``, ``caption``, ….

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` without *sigmas* of a U-Net.
        RuntimeError
            In the end, if a guided sampler did not call the model twice in each step, or the model
            was not called.
        """
        if self._batch is not None:
            raise RuntimeError("a batch is under way: leave it before the next begins")
        if sigmas is None and self._inner:
            message = "expected sigmas= of each step: a U-Net is told their logarithms only"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        self._tell(samples, coordinates)
        self._batch = batch = Batch(samples, sigmas)
        try:
            yield batch
        finally:
            self._batch = None
        if not batch.forwards:
            raise RuntimeError("the model was not called within the batch")
        if batch.forwards % self._passes:
            calls = batch.forwards
            raise RuntimeError(f"expected two calls of the model in each step, got {calls} in all")
        if batch.images is not None:
            self._recorder.outputs(samples, **{IMAGE: batch.images})

    def due(self, samples: slice, steps: int) -> bool:
        """Return whether any of *steps* of *samples* is yet to be recorded.

        Whoever skips others must draw each batch from a seed of its own: one that was cut short
        is then drawn again as it was, and other values would be a conflict.
        """
        recorded = self._recorder.recorded()
        paths = [f"layers/{name}/{OUTPUT}" for name in self.layers]
        paths += [f"trace/{name}" for name in self._keep]
        final = recorded.fields.get(f"outputs/{IMAGE}")
        whole = final is None or final.has(0, samples.start, samples.stop)
        return not (whole and all(recorded.has(step, samples, paths) for step in range(steps)))

    def detach(self) -> None:
        """Take hooks and wrapper off; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @property
    def _passes(self) -> int:
        return 1 if self._scale is None else 2

    def _tell(self, samples: slice, coordinates: Mapping[str, Any]) -> None:
        count = samples.stop - samples.start
        ids = [f"sample_{at:06d}" for at in range(samples.start, samples.stop)]
        told: dict[str, Any] = {SAMPLE_ID: ids}
        for name, value in coordinates.items():
            values = value.tolist() if hasattr(value, "tolist") else value
            plain = isinstance(values, str) or not isinstance(values, Sequence)
            told[name] = [values] * count if plain else list(values)
        if self._book is not None and CLASS_ID in told:
            known = range(len(self._book))
            odd = [one for one in told[CLASS_ID] if one not in known]
            if odd:
                message = f"expected class ids from 0 to {len(known) - 1}, got {odd[:5]}"
                raise invalid(ErrorKind.INVALID_PARAMETER, f"{message}; classes=None takes any")
            told |= {CLASS: [self._book.names[one] for one in told[CLASS_ID]]}
            told |= {SYNSET: [self._book.synsets[one] for one in told[CLASS_ID]]}
        self._recorder.sample_coordinates(samples, **told)

    def _wrapped(self, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        signature = inspect.signature(original)

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            batch = self._batch
            if batch is None:
                return original(*args, **kwargs)
            x, sigma = list(signature.bind(*args, **kwargs).arguments.values())[:2]
            step, part = divmod(batch.forwards, self._passes)
            if part == 0:
                level = float(sigma.reshape(-1)[0]) if batch.sigmas is None else batch.sigmas[step]
                self._recorder.record(step, batch.samples, None, **{self._level: level})
            made = original(*args, **kwargs)
            batch.forwards += 1
            self._record_pictures(batch, step, part, x, made)
            return made

        return forward

    def _layer_hook(self, name: str) -> Callable[[Module, Any, Any], None]:
        def fired(_: Module, __: Any, output: Any) -> None:
            batch = self._batch
            if batch is None:
                return
            tensor: Tensor = (output[0] if isinstance(output, tuple) else output).detach()
            step, part = divmod(batch.forwards, self._passes)
            if part + 1 < self._passes:
                # Later layers may change it in place.
                batch.held[name] = tensor.clone()
                return
            guided = self._passes > 1
            if name not in self._declared:
                self._declared.add(name)
                axes = layer_axes(tuple(tensor.shape[1:]), guided=guided)
                told = {GUIDANCE: ["cond", "uncond"]} if guided else {}
                self._recorder.declare(OUTPUT, layer=name, dims=axes, attributes=told)
            if guided:
                # By the tensor's own method: torch is not imported here.
                first = batch.held.pop(name)
                both = first.new_empty((len(first), 2, *first.shape[1:]))
                both[:, 0], both[:, 1] = first, tensor
                tensor = both
            self._recorder.record(step, batch.samples, name, **{OUTPUT: tensor})

        return fired

    def _record_pictures(self, batch: Batch, step: int, part: int, x: Tensor, made: Tensor) -> None:
        if not self._keep:
            return
        if part + 1 < self._passes:
            batch.prediction = made.detach()
            return
        prediction = made.detach()
        if self._scale is not None and batch.prediction is not None:
            prediction = prediction + self._scale * (batch.prediction - prediction)
        pictures = {"image": prediction, "noised_image": x.detach()}
        kept = {name: picture(one) for name, one in pictures.items() if name in self._keep}
        self._recorder.record(step, batch.samples, None, **kept)


def picture(tensor: Tensor) -> Tensor:
    """Return pixels (sample, row, column, channel) of a tensor (sample, channel, row, column).

    What upstream does: -1 to 1 becomes 0 to 255, cut off below and above.
    """
    return ((tensor + 1.0) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1)


def _is_unet(model: Any) -> bool:
    return hasattr(model, "enc") and not hasattr(model, "model")


def _matching(globs: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for glob in globs:
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            message = f"{glob!r} matches no layer of the model; it has {', '.join(names)}"
            raise invalid(ErrorKind.PATTERN_UNMATCHED, message)
        found |= dict.fromkeys(matched)
    return tuple(found)


def _put_back(model: Any, own: Any) -> None:
    """Give *model* the method that it had: one of its own, or else that of its class."""
    vars(model).pop("forward", None)
    if own is not None:
        model.forward = own
