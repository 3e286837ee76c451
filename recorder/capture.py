"""What is kept of a layer's output: which part of it, of which dtype, how often."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from archive_schema.errors import ErrorKind, invalid
from archive_schema.models import check_name
from recorder.arguments import check_at_least, check_one_of

if TYPE_CHECKING:
    import torch

REDUCTIONS: Final = ("mean", "std", "min", "max", "sum", "l2")
GUIDANCE: Final = "guidance"
"""The axis that both halves of a doubled batch make: 0 is conditional, 1 unconditional."""
_HALVES: Final = ("cond", "uncond", "both")


@dataclass(frozen=True, slots=True)
class Capture:
    """What to record of the layers that a glob matches."""

    field: str = "output"
    """Name of the field."""
    dtype: str | None = None
    """Torch name of the dtype to cast to: ``float16``."""
    every: int = 1
    """Record every so many positions of the run's step axis, from `first`."""
    first: int = 0
    samples: slice | None = None
    """Samples of the run to keep, ``slice(start, stop)``; None for all."""
    positions: slice | None = None
    """Which entries of the second axis to keep."""
    reduce: Literal["mean", "std", "min", "max", "sum", "l2"] | None = None
    """Computed over the axes `over`, in float32."""
    over: str | tuple[str, ...] = "position"
    """Axes to reduce, by their names in `dims`."""
    half: Literal["cond", "uncond", "both"] | None = None
    """Which half of a batch that classifier-free guidance doubled: ``cond`` is the first; ``both``
    are an axis ``guidance`` after the sample axis, which `dims` do not name."""
    dims: tuple[str, ...] | Mapping[int, tuple[str, ...]] | None = None
    """Names of the output's axes: ``("sample", "position", "channel")``. By their number, if the
    layers of a glob differ in it: ``{2: ("sample", "channel"), …}``."""
    output: int | str | None = None
    """Which entry, of a layer that gives out a tuple or a dict."""
    call: int | Literal["last"] | None = None
    """Which call, of a layer that runs several times in a step; None if it runs once."""

    def __post_init__(self) -> None:
        """Refuse what could only fail within a forward pass."""
        check_name(self.field)
        if self.reduce is not None:
            check_one_of("reduce", self.reduce, REDUCTIONS)
            unknown = set(self._over) - self._named
            if unknown or "sample" in self._over:
                message = (
                    f"expected to reduce over axes named in dims but for sample, got over="
                    f"{self._over} and dims={self.dims}"
                )
                raise invalid(ErrorKind.INVALID_PARAMETER, message)
        if self.half is not None:
            check_one_of("half", self.half, _HALVES)
        check_at_least(1, every=self.every)
        check_at_least(0, first=self.first)

    def kept_dims(self, axes: int | None = None) -> tuple[str, ...] | None:
        """Return names of the axes that are left of an output.

        Parameters
        ----------
        axes
            How many are left; None before there was any output. None is known of their names
            then, if they depend on it.
        """
        both = self.half == "both"
        dropped = 0 if self.reduce is None else len(self._over)
        full = None if axes is None else axes + dropped - both
        dims = self._dims_of(full)
        if dims is None and both and full is not None:
            dims = ("sample", *(f"axis_{at}" for at in range(1, full)))
        if dims is None:
            return None
        over = () if self.reduce is None else self._over
        kept = [dim for dim in dims if dim not in over]
        return (kept[0], GUIDANCE, *kept[1:]) if both else tuple(kept)

    @property
    def _over(self) -> tuple[str, ...]:
        return (self.over,) if isinstance(self.over, str) else tuple(self.over)

    @property
    def _named(self) -> set[str]:
        """Names of axes that any output may have."""
        if isinstance(self.dims, Mapping):
            return {dim for dims in self.dims.values() for dim in dims}
        return set(self.dims or ())

    def _dims_of(self, axes: int | None) -> tuple[str, ...] | None:
        if isinstance(self.dims, Mapping):
            return None if axes is None else self.dims.get(axes)
        return self.dims

    def of(self, output: object, layer: str) -> torch.Tensor:
        """Return what is kept of a layer's output; a view of it, where that is enough.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` if the output is not what this capture expects.
        """
        tensor = self._tensor(output, layer)
        if self.half is not None:
            if tensor.shape[0] % 2:
                raise _unexpected(layer, "a doubled batch", f"shape {tuple(tensor.shape)}")
            middle = tensor.shape[0] // 2
            if self.half != "both":
                tensor = tensor[:middle] if self.half == "cond" else tensor[middle:]
        if self.positions is not None:
            tensor = tensor[:, self.positions]
        dims = self._dims_of(tensor.ndim)
        lacking = self.reduce is not None and not set(self._over) <= set(dims or ())
        if lacking or (dims is not None and tensor.ndim != len(dims)):
            raise _unexpected(layer, f"axes {self.dims}", f"shape {tuple(tensor.shape)}")
        if self.reduce is not None and dims is not None:
            axes = [dims.index(dim) for dim in self._over]
            tensor = _reduced(tensor, self.reduce, axes)
        if self.half == "both":
            tensor = tensor.unflatten(0, (2, -1)).transpose(0, 1)
        return tensor if self.dtype is None else _cast(tensor, self.dtype)

    def _tensor(self, output: object, layer: str) -> torch.Tensor:
        chosen: Any = output
        if self.output is not None:
            try:
                chosen = chosen[self.output]
            except (TypeError, LookupError) as error:
                expected = f"an output with an entry {self.output!r}"
                raise _unexpected(layer, expected, _shown(output)) from error
        if not hasattr(chosen, "detach"):
            raise _unexpected(layer, "a tensor; choose one by output=", _shown(chosen))
        tensor: torch.Tensor = chosen.detach()
        return tensor


def capture_of(options: Capture | Mapping[str, Any] | str) -> Capture:
    """Return a `Capture` from what `TraceRecorder.attach` takes for one.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for an argument that `Capture` does not have.
    """
    if isinstance(options, Capture):
        return options
    if isinstance(options, str):
        return Capture(field=options)
    known = Capture.__dataclass_fields__
    unknown = [name for name in options if name not in known]
    if unknown:
        message = f"expected options of {', '.join(known)}; got {', '.join(unknown)}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    values = dict(options)
    if values.get("dims") is not None and not isinstance(values["dims"], Mapping):
        values["dims"] = tuple(values["dims"])
    return Capture(**values)


def _reduced(tensor: torch.Tensor, how: str, axes: list[int]) -> torch.Tensor:
    # Half precision loses a mean over a thousand positions.
    wide = tensor.float()
    if how == "std":
        return wide.std(dim=axes, correction=0)
    if how == "l2":
        return wide.square().sum(dim=axes).sqrt()
    name = {"min": "amin", "max": "amax"}.get(how, how)
    result: torch.Tensor = getattr(wide, name)(dim=axes)
    return result


def _cast(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    module = sys.modules["torch"]  # who has a tensor has imported it
    wanted = getattr(module, dtype.removeprefix("torch."), None)
    if not isinstance(wanted, module.dtype):
        message = f"expected the name of a torch dtype, got {dtype!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
    cast: torch.Tensor = tensor.to(wanted)
    return cast


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


def _unexpected(layer: str, expected: str, got: str) -> Exception:
    return invalid(ErrorKind.INVALID_PARAMETER, f"layer {layer!r}: expected {expected}, got {got}")
