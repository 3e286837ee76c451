"""Attention of one kind in one layer: maps of single heads, and their strongest entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.systems.vizfold import COLUMN, COUNT, ROW, WEIGHT, sparse_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from archive_schema.selection import Selector
    from server.query import RunView, Slice
    from server.query.field import FieldView

_RESIDUES: Final = "_residues"
_HEADS: Final = "heads"
"""Attribute of a field of which only some heads are recorded: their numbers."""


@dataclass(frozen=True, slots=True)
class StrongestEntries:
    """Entries of a map, the strongest first."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    weights: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Attention:
    """Where attention of one kind in one layer is recorded."""

    run: RunView
    kind: str
    """``msa_row``, ``triangle_start``, …; ``attention`` of a language model."""
    layer: str
    number: int
    """Of the layer; -1 for one without."""
    name: str
    """Of the field, or of that whose strongest entries are recorded."""
    base: str
    """The field's name without what says that it is a mean."""
    head: str
    """Name of the axis of heads."""
    lead: str | None
    """Name of the axis before it, of residues mostly; None if there is none."""
    mean: bool
    """Whether it is the mean over residues."""
    sparse: bool
    """Whether only the strongest entries are recorded."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Return the numbers of the heads that are recorded."""
        field = self._field(COUNT if self.sparse else None)
        length = field.shape[field.dims.index(self.head)] or 0
        chosen = field.spec.attributes.get(_HEADS)
        if isinstance(chosen, list) and len(chosen) == length:
            return tuple(number for number in chosen if isinstance(number, int))
        return tuple(range(length))

    def residues(self, step: int) -> list[int]:
        """Return the residues of which each has a map; none without such an axis."""
        if self.lead is None:
            return []
        field = self._field(COUNT if self.sparse else None)
        length = field.shape[field.dims.index(self.lead)] or 0
        known = self.run.ledger.at(field.spec.place, self.layer, f"{self.base}{_RESIDUES}")
        if known is None or not known.has(step):
            return list(range(length))
        told = self.run.field(f"{self.base}{_RESIDUES}", layer=self.layer)
        return [int(one) for one in told.select({"step": step}).array()]

    def map(
        self,
        step: int,
        *,
        head: int | None,
        residue: int | None,
        window: Mapping[str, Selector] | None = None,
    ) -> Slice:
        """Plan the read of a map (query, key), or with *head* None of all heads' maps.

        Parameters
        ----------
        window
            Of ``query`` and ``key``; by default all.

        Raises
        ------
        NotFoundError
            ``not-recorded`` if only the strongest entries are, or not that residue or head;
            ``step-not-recorded``.
        InvalidInputError
            ``invalid-parameter`` for a residue too few.
        """
        if self.sparse:
            most = int(self._read(COUNT, step, {}).max(initial=0))
            message = (
                f"of {self.kind} attention in {self.layer!r} only the {most} strongest entries a"
                " head are recorded, and what is not recorded is not zero: ask for them by top="
            )
            raise NotFoundError(ErrorKind.NOT_RECORDED, message)
        return self._field().select({**self._selectors(step, head, residue), **(window or {})})

    def strongest(
        self,
        step: int,
        *,
        head: int,
        residue: int | None,
        top: int | None,
        threshold: float | None,
    ) -> StrongestEntries:
        """Return recorded entries, exactly as the whole map would give them.

        Raises
        ------
        NotFoundError
            ``not-recorded`` if more are asked for than are recorded; errors as `map`.
        """
        at = self._selectors(step, head, residue)
        count = int(self._read(COUNT, step, at))
        rows, columns, weights = (
            self._read(part, step, at)[:count] for part in (ROW, COLUMN, WEIGHT)
        )
        order = np.argsort(-weights, kind="stable")
        rows, columns, weights = rows[order], columns[order], weights[order]
        # Whatever is not recorded is at most as strong as the weakest that is.
        whole = threshold is not None and count > 0 and bool(weights[-1] < threshold)
        if not whole and (top is None or top > count):
            asked = "all of them" if top is None else f"the {top} strongest"
            message = (
                f"only the {count} strongest entries of head {head} of {self.kind} attention in"
                f" {self.layer!r} are recorded, and {asked} were asked for: ask for top={count} or"
                " fewer, or for a threshold above the weakest"
            )
            raise NotFoundError(ErrorKind.NOT_RECORDED, message)
        keep = slice(None) if threshold is None else weights >= threshold
        return StrongestEntries(rows[keep][:top], columns[keep][:top], weights[keep][:top])

    def _selectors(self, step: int, head: int | None, residue: int | None) -> dict[str, Selector]:
        selectors: dict[str, Selector] = {"step": step}
        if head is not None:
            selectors[self.head] = self._head_position(head)
        if self.lead is None:
            return selectors
        known = self.residues(step)
        if residue is None:
            message = f"there is a map for each {self.lead}: say residue=, one of {_shown(known)}"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        if residue not in known:
            message = (
                f"{self.kind} attention in {self.layer!r} is not recorded for residue {residue};"
                f" recorded: {_shown(known)}"
            )
            raise NotFoundError(ErrorKind.NOT_RECORDED, message)
        selectors[self.lead] = known.index(residue)
        return selectors

    def _head_position(self, head: int) -> int:
        known = self.heads
        if head in known:
            return known.index(head)
        if -len(known) <= head < 0:
            return len(known) + head
        message = (
            f"{self.kind} attention in {self.layer!r} is not recorded for head {head};"
            f" recorded: {_shown(list(known))}"
        )
        raise NotFoundError(ErrorKind.NOT_RECORDED, message)

    def _field(self, part: str | None = None) -> FieldView:
        name = self.name if part is None else sparse_name(self.name, part)
        return self.run.field(name, layer=self.layer)

    def _read(self, part: str, step: int, selectors: dict[str, Selector]) -> NDArray[Any]:
        return self._field(part).select({"step": step, **selectors}).array()


def strongest(values: NDArray[Any], top: int | None, threshold: float | None) -> StrongestEntries:
    """Return the strongest entries of a whole map, of equal ones the earlier first.

    Parameters
    ----------
    top, threshold
        At most so many, and none weaker; None for all.
    """
    flat = values.reshape(-1)
    keep = flat == flat if threshold is None else flat >= threshold  # noqa: PLR0124  no NaN
    at = np.flatnonzero(keep)
    if top is not None and len(at) > top:
        kept = flat[at]
        least = np.partition(kept, len(kept) - top)[len(kept) - top]
        at = at[kept >= least]
    at = at[np.argsort(-flat[at].astype(np.float64), kind="stable")][:top]
    return StrongestEntries(at // values.shape[1], at % values.shape[1], flat[at])


def _shown(numbers: list[int]) -> str:
    if len(numbers) > 10 and numbers == list(range(len(numbers))):  # noqa: PLR2004  to be read
        return f"0 to {len(numbers) - 1}"
    return ", ".join(map(str, numbers)) or "none"
