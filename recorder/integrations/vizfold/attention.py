"""What is kept of attention weights, while the chunks of them come and go."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from archive_schema.errors import ErrorKind, invalid

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

    from archive_schema.systems.vizfold import AttentionKind

MAP_AXES: Final = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a model is recorded."""

    keep: frozenset[str]
    layers: frozenset[int] | None
    kinds: frozenset[str]
    residues: str | tuple[int, ...]
    heads: tuple[int, ...] | None
    dtype: str | None

    def has(self, number: int) -> bool:
        """Return whether block *number* is recorded."""
        return self.layers is None or number in self.layers

    def cast(self, tensor: Tensor) -> Tensor:
        """Return *tensor* as it is recorded."""
        return tensor if self.dtype is None else tensor.to(getattr(torch_module(), self.dtype))


@dataclass(slots=True)
class Captured:
    """Attention of one kind, as the chunks of its rows come."""

    kind: AttentionKind
    choice: Choice
    rows: int = 0
    """Rows of maps seen so far: of the MSA, or residues."""
    kept: list[Tensor] = field(default_factory=list)
    total: Tensor | None = None

    def take(self, weights: Tensor) -> None:
        """Take the weights of a chunk, ``[…, head, query, key]``."""
        maps = weights.detach().reshape(-1, *weights.shape[-MAP_AXES:])
        if self.choice.heads is not None:
            maps = maps[:, list(self.choice.heads)]
        start, self.rows = self.rows, self.rows + len(maps)
        residues = self.choice.residues
        wanted: Collection[int] = (0,)
        if self.kind.residue is not None and residues == "mean":
            # Half precision loses a mean over a thousand residues. One after the other, as NumPy's
            # mean over them, which upstream writes: to the bit, whatever the chunks.
            for one in maps.float():
                self.total = one.clone() if self.total is None else self.total.add_(one)
            return
        if self.kind.residue is not None:
            wanted = residues if isinstance(residues, tuple) else range(self.rows)
        own = [row - start for row in wanted if start <= row < self.rows]
        if own:
            self.kept.append(self.choice.cast(maps[own]))

    def fields(self, layer: str) -> dict[str, Any]:
        """Return what is recorded, by field."""
        if self.kind.residue is None:
            self._check(layer, bool(self.kept), "row")
            return {self.kind.name: self.kept[0][0]}
        if self.total is not None:
            self._check(layer, self.rows == self.total.shape[-1], "residue")
            # By a tensor: GPUs multiply by the inverse of a number, which differs in the last bit.
            count = self.total.new_full((), self.rows)
            return {self.kind.mean: self.choice.cast(self.total / count)}
        wanted = self.choice.residues
        residues = wanted if isinstance(wanted, tuple) else tuple(range(self.rows))
        found = sum(map(len, self.kept))
        self._check(layer, bool(found) and found == len(residues), "residue")
        torch = torch_module()
        return {
            self.kind.name: torch.cat(self.kept),
            self.kind.residues: torch.tensor(residues, dtype=torch.int32),
        }

    def _check(self, layer: str, seen: bool, what: str) -> None:  # noqa: FBT001  private
        if not seen:
            message = (
                f"layer {layer!r}: of {self.kind.name} {self.rows} maps were seen, and not each"
                f" {what} that was asked for: kernels that never hold the weights"
                " (use_memory_efficient_kernel, use_lma, use_deepspeed_evo_attention, use_flash)"
                " must be off, and residues be within the protein"
            )
            raise invalid(ErrorKind.INVALID_PARAMETER, message)


def torch_module() -> Any:
    """Return torch, which who has a model has imported."""
    return sys.modules["torch"]
