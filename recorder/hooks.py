"""Layer activations, by forward hooks chosen with globs.

A hook copies what is kept of the layer's output, on its device and in the order of the
model's work, because later layers may change it in place. `LayerHooks.take` hands the copies
to the next `record`, which knows the step; only what is due then leaves the device.
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from archive_schema.errors import ErrorKind, invalid
from archive_schema.models import Place
from recorder.capture import Capture, capture_of
from recorder.declaration import FieldOptions
from recorder.intake import Offer
from recorder.snapshot import given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.nn import Module
    from torch.utils.hooks import RemovableHandle

    from recorder.declaration import Address
    from recorder.snapshot import Values


@dataclass(slots=True, eq=False)
class _Hooked:
    """One layer and what is kept of it."""

    layer: str
    capture: Capture
    calls: int = 0
    """Since the last `take`."""
    values: Values | None = None
    settled: bool = False
    """Whether the field was settled as its first values are."""
    listens: bool = True

    @property
    def address(self) -> Address:
        return (Place.LAYERS, self.layer, self.capture.field)

    def fired(self, _: Module, __: Any, output: object) -> None:
        if not self.listens:
            return
        wanted, self.calls = self.calls, self.calls + 1
        if self.capture.call in (None, "last", wanted):
            name = f"{self.layer}.{self.capture.field}"
            self.values = given(self.capture.of(output, self.layer), name).held()

    def discard(self) -> None:
        self.values = None
        self.calls = 0


class AttachedLayers:
    """What one `attach` put on a model; leaving it, or `detach`, takes that off again."""

    def __init__(
        self, owner: LayerHooks, hooked: list[tuple[str, _Hooked, RemovableHandle]]
    ) -> None:
        self._owner = owner
        self._hooked = hooked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Capture what runs in this block, and nothing else from now on.

        For a model that is also run for what is no step of the run. What was captured before
        and not recorded, because a step broke off, is forgotten.
        """
        self._listen(on=True)
        try:
            yield
        finally:
            self._listen(on=False)

    def pause(self) -> None:
        """Capture nothing but in `listening`."""
        self._listen(on=False)

    def _listen(self, *, on: bool) -> None:
        for _, one, _ in self._hooked:
            one.listens = on
            if on:
                one.discard()

    def detach(self) -> None:
        """Take the hooks off, and forget what they captured since the last step; idempotent."""
        hooked, self._hooked = self._hooked, []
        for pattern, one, handle in hooked:
            handle.remove()
            self._owner.forget(pattern, one)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


class LayerHooks:
    """The hooks of one recorder.

    Parameters
    ----------
    settle
        Told the options of each field before its first values.
    """

    def __init__(self, settle: Callable[[Address, FieldOptions], None]) -> None:
        self._settle = settle
        self._by_pattern: dict[str, list[_Hooked]] = {}
        self._silent: set[str] = set()
        """Globs of which no layer has fired yet."""
        self._handles: list[RemovableHandle] = []

    def attach(
        self, model: Module, patterns: Mapping[str, Capture | Mapping[str, Any] | str]
    ) -> AttachedLayers:
        """Put hooks on the modules that the globs match.

        Raises
        ------
        InvalidInputError
            ``pattern-unmatched`` for a glob that matches none, ``invalid-name`` for a layer and
            field that two globs name.
        """
        modules = dict(model.named_modules())
        taken = {hooked.address for group in self._by_pattern.values() for hooked in group}
        found: list[tuple[str, Module, _Hooked]] = []
        for pattern, options in patterns.items():
            capture = capture_of(options)
            matcher = re.compile(glob_regex(pattern))
            layers = [name for name in modules if name and matcher.fullmatch(name)]
            if not layers:
                raise _unmatched(pattern, modules)
            for layer in layers:
                hooked = _Hooked(layer, capture)
                if hooked.address in taken:
                    message = f"{pattern!r}: field {capture.field!r} of layer {layer!r} is captured"
                    raise invalid(ErrorKind.INVALID_NAME, f"{message} already; name it otherwise")
                taken.add(hooked.address)
                found.append((pattern, modules[layer], hooked))
        attached = []
        for pattern, module, hooked in found:
            self._settle(hooked.address, _options(hooked.capture))
            # Dynamo would compile the hook anew for each state it sees, and give up.
            hook = sys.modules["torch"].compiler.disable(hooked.fired)
            handle = module.register_forward_hook(hook)
            self._handles.append(handle)
            attached.append((pattern, hooked, handle))
            self._by_pattern.setdefault(pattern, []).append(hooked)
            self._silent.add(pattern)
        return AttachedLayers(self, attached)

    def forget(self, pattern: str, hooked: _Hooked) -> None:
        """Expect nothing more of a layer whose hook was taken off."""
        group = self._by_pattern.get(pattern, [])
        if hooked in group:
            group.remove(hooked)
        if not group:
            self._by_pattern.pop(pattern, None)
            self._silent.discard(pattern)

    def take(self, bounds: tuple[int, int] | None) -> list[Offer]:
        """Return what was captured since the last call.

        Parameters
        ----------
        bounds
            Samples ``[start, stop)`` of the batch; None for all samples of the run.

        Raises
        ------
        InvalidInputError
            ``pattern-unmatched`` if no layer of a glob has ever fired, ``invalid-parameter`` if
            a layer fired several times and its `Capture` does not say which call it wants.
        """
        offers = []
        for pattern, group in self._by_pattern.items():
            if pattern in self._silent:
                if not any(hooked.calls for hooked in group):
                    message = (
                        f"no layer that {pattern!r} matches has run before this step was recorded:"
                        f" {_some(hooked.layer for hooked in group)}; record a step after the"
                        " model, and attach before torch.compile"
                    )
                    raise invalid(ErrorKind.PATTERN_UNMATCHED, message)
                self._silent.discard(pattern)
            for hooked in group:
                offer = self._offer(hooked, bounds)
                if offer is not None:
                    offers.append(offer)
        return offers

    @property
    def waiting(self) -> list[str]:
        """Layers of globs of which none has run yet."""
        return [hooked.layer for pattern in self._silent for hooked in self._by_pattern[pattern]]

    def discard(self) -> None:
        """Forget what was captured since the last `take`: it belongs to no step."""
        for group in self._by_pattern.values():
            for hooked in group:
                hooked.discard()

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _offer(self, hooked: _Hooked, bounds: tuple[int, int] | None) -> Offer | None:
        calls, hooked.calls = hooked.calls, 0
        values, hooked.values = hooked.values, None
        capture = hooked.capture
        if calls > 1 and capture.call is None:
            message = (
                f"layer {hooked.layer!r} ran {calls} times since the last step was recorded; choose"
                ' by Capture(call=0), … or Capture(call="last")'
            )
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
        if values is None:
            return None
        if capture.samples is None:
            self._settle_first(hooked, len(values.shape))
            return Offer(hooked.address, values, bounds)
        start, stop = bounds or (0, values.shape[0])
        first, last, _ = capture.samples.indices(stop)
        first = max(first, start)
        if first >= last:
            return None
        # Its tiles are as large as what the first batch has of it, not as the batch.
        self._settle_first(hooked, len(values.shape), tile=last - first)
        return Offer(hooked.address, values.part(first - start, last - start), (first, last))

    def _settle_first(self, hooked: _Hooked, axes: int, tile: int | None = None) -> None:
        """Settle what only the first values of a layer tell."""
        if not hooked.settled:
            hooked.settled = True
            self._settle(hooked.address, _options(hooked.capture, axes, tile))


def glob_regex(pattern: str) -> str:
    """Return *pattern* as a regular expression: ``*`` and ``?`` stop at dots, ``**`` does not.

    Examples
    --------
    >>> import re
    >>> [bool(re.fullmatch(glob_regex("blocks.*"), name)) for name in ("blocks.1", "blocks.1.mlp")]
    [True, False]
    """
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    wild = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return "".join(wild.get(part) or re.escape(part) for part in parts)


def _options(capture: Capture, axes: int | None = None, tile: int | None = None) -> FieldOptions:
    dims = capture.kept_dims(axes)
    return FieldOptions(dims=dims, every=capture.every, first=capture.first, tile=tile)


def _unmatched(pattern: str, modules: Mapping[str, object]) -> Exception:
    message = f"{pattern!r} matches no module of the model; it has {_some(filter(None, modules))}"
    return invalid(ErrorKind.PATTERN_UNMATCHED, message)


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")  # noqa: PLR2004
