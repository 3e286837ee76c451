"""Records every pass of OpenFold or ESMFold by hooks on its blocks; the model is not changed.

1. Hooks on all blocks of the trunk tell the passes apart: when an earlier block runs again, the
   next pass has begun. OpenFold's tuning of chunk sizes runs the first block several times: what
   counts is its last run before the second block.
2. A block's representations are recorded when it has run: the next one may change them in place.
3. Attention weights never leave the function that computes them. While an attention module of a
   block runs, the softmax that it calls is wrapped: of each chunk only what is kept is copied.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from archive_schema.errors import ErrorKind, invalid
from archive_schema.models import Place
from archive_schema.systems.vizfold import (
    MSA_ROW,
    RECYCLE,
    STRUCTURE,
    STRUCTURE_FIELDS,
    SYSTEM,
    TRIANGLE_END,
    TRIANGLE_START,
    AttentionKind,
)
from recorder.integrations.vizfold.attention import MAP_AXES, Captured, Choice, torch_module

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from torch import Tensor
    from torch.nn import Module

    from recorder.recorder import TraceRecorder

Residues = Literal["mean", "all"]
KEPT: Final = ("msa", "pair", "single", "structure")
"""What may be recorded beside attention."""
_BLOCK: Final = re.compile(r"(?:.*\.)?((?:evoformer|trunk)\.blocks\.([0-9]+))")
_STRUCTURE: Final = re.compile(rf"(?:.*?\.)??((?:trunk\.)?{STRUCTURE})")
_KINDS: Final = {
    "msa_att_row": MSA_ROW,
    "tri_att_start": TRIANGLE_START,
    "tri_att_end": TRIANGLE_END,
}
"""Attention modules within a block, by the last part of their names."""
_IPA: Final = "ipa_attention"


def attach(
    recorder: TraceRecorder,
    model: Module,
    *,
    keep: Collection[str] = ("pair", "single", "structure"),
    layers: Collection[int] | None = None,
    attention: object | None = None,
    kinds: Collection[str] = ("msa_row_attention", "triangle_start_attention"),
    residues: Residues | Collection[int] = "mean",
    heads: Collection[int] | None = None,
    dtype: str | None = None,
    softmax: str = "softmax_no_cast",
) -> AttachedModel:
    """Record what *model* predicts from now on, until what is returned is left or detached.

    Each pass is a step of the run, with its number as the coordinate ``recycle``.

    Parameters
    ----------
    model
        With blocks called ``…evoformer.blocks.N`` or ``…trunk.blocks.N``, for one protein.
    keep
        Some of `KEPT`; ``single`` of an Evoformer block is its first MSA row.
    layers : collection of int, optional
        Numbers of the blocks to record; by default all.
    attention
        The module whose function computes the weights, ``openfold.model.primitives``; by default
        no attention is recorded. Kernels that never hold them (LMA, DeepSpeed, flash) are refused.
    kinds
        Some of ``msa_row_attention``, ``triangle_start_attention``, ``triangle_end_attention``, and
        ``ipa_attention`` of the structure module, with all heads.
    residues
        Of which residues' triangles the attention is kept: their ``mean``, those of some
        positions from 0, or ``all``, which takes 4 N³ values a block and pass.
    heads : collection of int, optional
        By default all.
    dtype : str, optional
        Torch name of the dtype to cast to: ``float16``.
    softmax
        Name of the function in *attention*.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter``; ``pattern-unmatched`` if the model has no such blocks, or
        *attention* no such function.
    """
    known = {_IPA, *(kind.name for kind in _KINDS.values())}
    for what, given, there in (("keep", keep, KEPT), ("kinds", kinds, known)):
        unknown = sorted(set(given) - set(there))
        if unknown:
            message = (
                f"{what}: expected some of {', '.join(sorted(there))}; got {', '.join(unknown)}"
            )
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
    chosen = residues if isinstance(residues, str) else tuple(sorted(set(residues)))
    if isinstance(chosen, str) and chosen not in ("mean", "all"):
        message = f"residues: expected mean, all or positions, got {chosen!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    choice = Choice(
        keep=frozenset(keep),
        layers=None if layers is None else frozenset(layers),
        kinds=frozenset(kinds) if attention is not None else frozenset(),
        residues=chosen,
        heads=None if heads is None else tuple(heads),
        dtype=dtype,
    )
    return AttachedModel(recorder, model, choice, attention, softmax)


class AttachedModel:
    """The hooks on a model; a context manager that takes them off.

    Attributes
    ----------
    passes : int
        Passes that have begun.
    """

    def __init__(
        self,
        recorder: TraceRecorder,
        model: Module,
        choice: Choice,
        attention: object | None,
        softmax: str,
    ) -> None:
        self.passes = 0
        self._recorder = recorder
        self._choice = choice
        self._last = -1
        self._active: Captured | None = None
        self._maps: dict[str, Any] = {}
        self._points: list[Tensor] = []
        """Attention of the structure module's blocks, in the pass that is under way."""
        self._pending: tuple[str, dict[str, Any]] | None = None
        self._declared: set[tuple[str, str]] = set()
        modules = dict(model.named_modules())
        blocks = {name: m for name in modules if (m := _BLOCK.fullmatch(name))}
        numbers = {int(match[2]) for match in blocks.values()}
        lacking = sorted((choice.layers or frozenset()) - numbers)
        if not blocks or lacking:
            has = f"{len(numbers)} blocks" if blocks else f"modules {', '.join(list(modules)[1:8])}"
            message = (
                f"expected blocks called evoformer.blocks.N or trunk.blocks.N, among them"
                f" {lacking or 'any'}; the model has {has}"
            )
            raise invalid(ErrorKind.PATTERN_UNMATCHED, message)
        self._count = max(numbers) + 1
        with ExitStack() as stack:
            if attention is not None:
                self._wrap(stack, attention, softmax)
            for name, match in blocks.items():
                self._hook_block(stack, modules[name], match[1], int(match[2]))
            for name, module in modules.items():
                if found := _STRUCTURE.fullmatch(name):
                    self._hook_structure(stack, module, found[1])
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self.detach()

    def detach(self) -> None:
        """Take hooks and wrapper off; idempotent."""
        self._stack.close()

    def outputs(self, outputs: Any, *, pdb: str | bytes | None = None) -> None:
        """Record what the model gave out in the end.

        Parameters
        ----------
        outputs
            The model's dict. What it has of the structure module is recorded with its pass.
        pdb
            The structure as text.
        """
        self._flush()
        for name, value in outputs.items():
            declared = SYSTEM.field(Place.OUTPUTS, name)
            if declared is None or not hasattr(value, "detach"):
                continue
            tensor = value.detach()
            lead = tensor.ndim - len(declared.dims)
            if lead < 0 or any(length != 1 for length in tensor.shape[:lead]):
                message = f"outputs {name!r}: expected axes {declared.dims}, got {tensor.shape}"
                raise invalid(ErrorKind.SHAPE_MISMATCH, message)
            kept = tensor.reshape(tensor.shape[lead:])
            self._recorder.outputs(None, **{name: kept.cpu().numpy()})
        if pdb is not None:
            data = pdb.encode() if isinstance(pdb, str) else pdb
            self._recorder.outputs(None, pdb=_bytes(data))

    def _wrap(self, stack: ExitStack, owner: object, name: str) -> None:
        """Put a function in the place of the softmax that shows its results."""
        original: Callable[..., Tensor] | None = getattr(owner, name, None)
        if not callable(original):
            message = f"expected a function {name!r} in {owner!r:.80}, which computes attention"
            raise invalid(ErrorKind.PATTERN_UNMATCHED, message)

        def shown(*args: Any, **kwargs: Any) -> Tensor:
            weights = original(*args, **kwargs)
            if self._active is not None:
                self._active.take(weights)
            return weights

        setattr(owner, name, shown)
        stack.callback(setattr, owner, name, original)

    def _hook_block(self, stack: ExitStack, block: Module, layer: str, number: int) -> None:
        def before(*_: Any) -> None:
            self._begin(number)

        def after(_: Module, __: Any, output: Any) -> None:
            self._end(layer, number, output)

        stack.callback(block.register_forward_pre_hook(before).remove)
        for name, module in block.named_modules():
            kind = _KINDS.get(name.rpartition(".")[2])
            if kind is not None and kind.name in self._choice.kinds and self._choice.has(number):
                self._hook_attention(stack, module, layer, kind)
        if self._choice.has(number):
            stack.callback(block.register_forward_hook(after).remove)

    def _hook_attention(
        self, stack: ExitStack, module: Module, layer: str, kind: AttentionKind
    ) -> None:
        def before(*_: Any) -> None:
            self._active = Captured(kind, self._choice)

        def after(*_: Any) -> None:
            captured, self._active = self._active, None
            if captured is not None:
                self._maps |= captured.fields(layer)

        stack.callback(module.register_forward_pre_hook(before).remove)
        stack.callback(module.register_forward_hook(after).remove)

    def _begin(self, number: int) -> None:
        """Take note that a block runs: which pass it belongs to."""
        again = number == self._last and self._count > 1
        if not again:
            self._flush()
        if number < self._last or (number == self._last and not again) or self._last < 0:
            self.passes += 1
        self._last = number
        self._maps = {}
        self._active = None

    def _end(self, layer: str, number: int, output: Any) -> None:
        values: dict[str, Any] = self._representations(layer, output) | self._maps
        self._maps = {}
        if number == 0 and self._count > 1:
            self._pending = (layer, values)
        else:
            self._record(layer, values)

    def _representations(self, layer: str, output: Any) -> dict[str, Tensor]:
        first, pair = output[0].detach(), output[1].detach()
        keep = self._choice.keep
        found = {"pair": _one(pair, 3, layer)}
        if layer.startswith("trunk"):
            found["single"] = _one(first, 2, layer)
        else:
            found["msa"] = _one(first, 3, layer)
            found["single"] = found["msa"][0]
        return {name: self._choice.cast(one) for name, one in found.items() if name in keep}

    def _hook_structure(self, stack: ExitStack, module: Module, layer: str) -> None:
        def after(_: Module, __: Any, output: Any) -> None:
            values = self._structure(output) if "structure" in self._choice.keep else {}
            if wants_points:
                values |= self._points_of(layer)
            self._flush()
            self._record(layer, values)

        def points(_: Module, __: Any, weights: Tensor) -> None:
            self._points.append(self._choice.cast(_one(weights.detach(), MAP_AXES, layer)).clone())

        wants_points = _IPA in self._choice.kinds
        for name, inner in module.named_modules() if wants_points else ():
            if name.endswith("ipa.softmax"):
                stack.callback(inner.register_forward_hook(points).remove)
        stack.callback(module.register_forward_hook(after).remove)

    def _structure(self, output: Any) -> dict[str, Any]:
        values = {}
        for name, declared in STRUCTURE_FIELDS.items():
            value = output.get(name) if hasattr(output, "get") else getattr(output, name, None)
            if value is None:
                continue
            tensor: Tensor = value.detach()
            axis = int(declared.dims[:1] == ("structure_block",))
            if tensor.ndim > len(declared.dims) and tensor.shape[axis] == 1:
                tensor = tensor.squeeze(axis)
            values[name] = self._choice.cast(tensor)
        return values

    def _points_of(self, layer: str) -> dict[str, Any]:
        points, self._points = self._points, []
        if not points:
            message = (
                f"layer {layer!r}: of {_IPA} nothing was seen: a kernel that works in place on the"
                " device computed it"
            )
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        return {_IPA: torch_module().stack(points)}

    def _flush(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._record(*pending)

    def _record(self, layer: str, values: dict[str, Any]) -> None:
        if not values or not self.passes:
            return
        for name in values:
            if (layer, name) not in self._declared:
                self._declared.add((layer, name))
                declared = SYSTEM.field(Place.LAYERS, name, layer)
                dims = None if declared is None else declared.dims
                heads = self._choice.heads if dims and "head" in dims[-3:][0] else None
                self._recorder.declare(
                    name,
                    layer=layer,
                    dims=dims,
                    attributes={} if heads is None else {"heads": list(heads)},
                )
        step = self.passes - 1
        self._recorder.record(step, None, None, **{RECYCLE: step})
        self._recorder.record(step, None, layer, **values)


def _one(tensor: Tensor, axes: int, layer: str) -> Tensor:
    """Return *tensor* without the axis of a batch of one."""
    if tensor.ndim == axes + 1 and tensor.shape[0] == 1:
        return tensor[0]
    if tensor.ndim != axes:
        message = f"layer {layer!r}: expected one protein, got shape {tuple(tensor.shape)}"
        raise invalid(ErrorKind.SHAPE_MISMATCH, message)
    return tensor


def _bytes(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8)
