"""Records DNA-Diffusion's guided sampling: its `Diffusion` object is wrapped, and not changed.

1. The method ``p_sample_guided`` is wrapped on the object. A call is one step of a batch: its
   ``t_index`` counts down, and at 0 the batch ends and the next one begins.
2. A hook on ``diffusion.model`` keeps what the network gave for the doubled batch: first the
   conditional half, then the unconditional one.
3. Layers are hooked by globs, as `TraceRecorder.attach` does, by their names in the UNet.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Self

from archive_schema.errors import ErrorKind, invalid
from archive_schema.systems.dna_diffusion import (
    BATCH,
    BETA,
    CELL_TYPE,
    CLASS_ID,
    GUIDANCE_SCALE,
    SEED,
    TAG,
    TIMESTEP,
    UNCONDITIONAL,
    cell_type_of,
)
from recorder.capture import Capture, capture_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor
    from torch.nn import Module

    from recorder.hooks import AttachedLayers
    from recorder.recorded import Recorded
    from recorder.recorder import TraceRecorder

KEPT: Final = ("x", "eps", "x_T", "tokens", "cross")
"""What may be recorded beside layers and final sequences; the first three are by default."""
_AXES: Final = {
    2: ("sample", "channel"),
    3: ("sample", "row", "feature"),
    4: ("sample", "channel", "row", "column"),
}
"""Axes of layers by their number. Within the UNet, rows and columns of x are pooled."""


def attach(
    recorder: TraceRecorder,
    diffusion: Any,
    *,
    cell_types: Mapping[int, str],
    keep: Collection[str] = KEPT[:3],
    layers: Mapping[str, Capture | Mapping[str, Any] | str] | None = None,
    start: int = 0,
) -> AttachedDiffusion:
    """Record what *diffusion* samples from now on, until what is returned is left or detached.

    Parameters
    ----------
    diffusion
        Upstream's ``Diffusion``. Its ``model`` may be wrapped, by ``DistributedDataParallel`` or
        as ``PretrainedUNet``.
    cell_types
        Tags by class id: ``{1: "GM12878_ENCLB441ZZZ", …}``.
    keep
        Some of `KEPT`.
    layers
        By glob over the names of the UNet's modules; see `TraceRecorder.attach`. Of a doubled
        batch both halves are kept, as axis ``guidance``, unless `Capture` says ``half``.
    start
        Sample of the run that is the first of the next batch.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for something else in *keep*; ``pattern-unmatched`` as
        `TraceRecorder.attach`.
    """
    unknown = set(keep) - set(KEPT)
    if unknown:
        message = f"expected to keep some of {', '.join(KEPT)}; got {', '.join(sorted(unknown))}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    return AttachedDiffusion(
        recorder,
        diffusion,
        cell_types=cell_types,
        keep=frozenset(keep),
        layers=layers or {},
        start=start,
    )


def describe(diffusion: Any, *, cell_types: Mapping[int, str], **others: Any) -> dict[str, Any]:
    """Return metadata for the run: the noise schedule, the cell types, the digest of the weights.

    Parameters
    ----------
    others
        What else is known: ``guidance_scale``, ``seed``, ``git_sha``, …
    """
    betas = diffusion.betas.tolist()
    return {
        "timesteps": int(diffusion.timesteps),
        "beta_start": betas[0],
        "beta_end": betas[-1],
        "cell_types": {str(number): tag for number, tag in sorted(cell_types.items())},
        "weights_sha256": weights_sha256(diffusion.model),
        **others,
    }


def weights_sha256(weights: Module | Mapping[str, Tensor]) -> str:
    """Return a digest of a model's weights, or of a checkpoint's state dict.

    Equal weights have equal digests, whatever wraps the model. A model whose checkpoint was
    never loaded has a digest of its own in every process.
    """
    if not isinstance(weights, Mapping):
        weights = network_of(weights).state_dict()
    for wrapper in ("module.", "model."):
        if weights and all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): one for name, one in weights.items()}
    digest = sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(sys.modules["torch"].uint8).numpy().data)
    return digest.hexdigest()


def network_of(model: Module) -> Module:
    """Return the UNet in ``DistributedDataParallel`` (``module``) and ``PretrainedUNet``."""
    inside = getattr(model, "module", None) or getattr(model, "model", None)
    return model if inside is None else network_of(inside)


@dataclass(frozen=True, slots=True)
class _Batch:
    """The batch that is under way."""

    samples: slice
    t_index: int
    """Of its latest step."""


class AttachedDiffusion:
    """A `Diffusion` that is being recorded; leaving it, or `detach`, makes it what it was.

    Attributes
    ----------
    next_sample : int
        Sample of the run that is the first of the next batch.
    """

    def __init__(
        self,
        recorder: TraceRecorder,
        diffusion: Any,
        *,
        cell_types: Mapping[int, str],
        keep: frozenset[str],
        layers: Mapping[str, Capture | Mapping[str, Any] | str],
        start: int,
    ) -> None:
        self.next_sample = start
        self._recorder = recorder
        self._tags = {0: UNCONDITIONAL, **cell_types}
        self._keep = keep
        self._timesteps = int(diffusion.timesteps)
        self._betas = diffusion.betas.tolist()
        self._batch: _Batch | None = None
        self._seed: int | None = None
        self._recorded: Recorded | None = None
        self._eps: Tensor | None = None
        self._layers: AttachedLayers | None = None
        if "eps" in keep:
            halves = ["conditional", "unconditional"]
            recorder.declare("eps", attributes={"guidance": halves})
        with ExitStack() as stack:
            if layers:
                captures = {pattern: _capture(options) for pattern, options in layers.items()}
                self._layers = recorder.attach(network_of(diffusion.model), captures)
                self._layers.pause()
                stack.enter_context(self._layers)
            stack.callback(diffusion.model.register_forward_hook(self._keep_eps).remove)
            stack.callback(_put_back, diffusion, vars(diffusion).get("p_sample_guided"))
            self._original = diffusion.p_sample_guided
            self._signature = inspect.signature(self._original)
            diffusion.p_sample_guided = self._p_sample_guided
            self._stack = stack.pop_all()

    def due(self, count: int, *, seed: int | None = None) -> bool:
        """Return whether the next *count* samples are yet to be recorded; if not, pass them over.

        Parameters
        ----------
        seed
            Kept as a sample coordinate. Set it before the batch is sampled, so that a batch that
            was cut short is drawn again as it was: other values would be a conflict.
        """
        samples = slice(self.next_sample, self.next_sample + count)
        # As it was at first: samples only move on, and a look at all tiles of a run takes a while.
        recorded = self._recorded = self._recorded or self._recorder.recorded()
        single = ["outputs/final_sequence", *(f"inputs/{name}" for name in self._keep & {"x_T"})]
        stepped = [f"trace/{name}" for name in self._keep - {"x_T"}]
        if all(
            name in recorded.fields and recorded.fields[name].has(0, samples.start, samples.stop)
            for name in single
        ) and all(recorded.has(step, samples, stepped) for step in range(self._timesteps)):
            self.next_sample = samples.stop
            return False
        self._seed = seed
        return True

    def detach(self) -> None:
        """Take hooks and wrapper off; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _keep_eps(self, _: Module, __: Any, output: Any) -> None:
        self._eps = output[0] if isinstance(output, tuple) else output

    def _p_sample_guided(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Do what the original does, and record it."""
        # What somebody else wrapped may take keywords of any name: those are theirs.
        given = self._signature.bind(*args, **kwargs).arguments | kwargs
        before = self._batch
        t_index = int(given["t_index"])
        if before is None or t_index >= before.t_index:  # one that was broken off begins again
            self._begin(given, t_index)
        self._eps = None
        with nullcontext() if self._layers is None else self._layers.listening():
            made: tuple[Tensor, Tensor] = self._original(*args, **kwargs)
        self._record(t_index, *made)
        return made

    def _begin(self, given: Mapping[str, Any], t_index: int) -> None:
        """Record what is known of a batch before its first step."""
        x: Tensor = given["x"]
        samples = slice(self.next_sample, self.next_sample + len(x))
        # The one wait for the device in a batch.
        classes = (given["classes"] * given["context_mask"])[: len(x)].long().tolist()
        unnamed = sorted(set(classes) - set(self._tags))
        if unnamed:
            known = ", ".join(map(str, sorted(self._tags)))
            message = f"expected class ids of {known}, as cell_types names them; got {unnamed}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        tags = [self._tags[number] for number in classes]
        coordinates = {
            CLASS_ID: classes,
            CELL_TYPE: [cell_type_of(tag) for tag in tags],
            TAG: tags,
            GUIDANCE_SCALE: [float(given.get("cond_weight", 0))] * len(x),
            BATCH: [samples.start] * len(x),
        }
        if self._seed is not None:
            coordinates[SEED] = [self._seed] * len(x)
        self._recorder.sample_coordinates(samples, **coordinates)
        if "x_T" in self._keep and t_index == self._timesteps - 1:
            self._recorder.inputs(samples, x_T=x)
        self._batch = _Batch(samples, t_index)

    def _record(self, t_index: int, x: Tensor, cross: Tensor) -> None:
        """Record one step of the batch that is under way."""
        batch = self._batch
        if batch is None or self._eps is None:
            raise RuntimeError("the model was not called: diffusion.model is not what was hooked")
        self._batch = replace(batch, t_index=t_index)
        values: dict[str, Any] = {"x": x, "cross": cross}
        if "eps" in self._keep:
            values["eps"] = self._eps.unflatten(0, (2, len(x))).transpose(0, 1)
        if "tokens" in self._keep or t_index == 0:
            values["tokens"] = x[:, 0].argmax(1)
        kept = {name: value for name, value in values.items() if name in self._keep}
        kept |= {TIMESTEP: t_index, BETA: self._betas[t_index]}
        self._recorder.record(self._timesteps - 1 - t_index, batch.samples, **kept)
        if t_index == 0:
            self._recorder.outputs(batch.samples, final_sequence=values["tokens"])
            self.next_sample, self._batch, self._seed = batch.samples.stop, None, None


def _capture(options: Capture | Mapping[str, Any] | str) -> Capture:
    """Return what is kept of a layer: of both halves, and with names for the axes."""
    if isinstance(options, str):
        options = {"field": options}
    if not isinstance(options, Capture):
        return capture_of({"half": "both", "dims": _AXES, **options})
    return replace(options, half=options.half or "both", dims=options.dims or _AXES)


def _put_back(diffusion: Any, own: Any) -> None:
    """Give *diffusion* the method that it had: one of its own, or else that of its class."""
    vars(diffusion).pop("p_sample_guided", None)
    if own is not None:
        diffusion.p_sample_guided = own
