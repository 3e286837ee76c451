"""A run of VizFold: its passes, and where attention of which kind lies."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.models import Place
from archive_schema.systems.vizfold import COUNT, PROTEIN, RECYCLE, layer_number, sparse_name
from server.systems.vizfold.attention import Attention

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server.query import RunView
    from server.query.field import FieldView

_MAP: Final = ("query", "key")
_ENDING: Final = "_attention"
_MEAN: Final = "_mean"
_COUNT: Final = sparse_name("", COUNT)


class Prediction:
    """One prediction of one protein.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a run of another system.
    """

    def __init__(self, run: RunView) -> None:
        if run.manifest.system != "vizfold":
            message = (
                f"expected a run of system 'vizfold'; run {run.manifest.id!r} is of"
                f" {run.manifest.system!r}"
            )
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        self.run = run

    @property
    def protein(self) -> str:
        """Return the protein's name: as recorded, or that of the run."""
        return str(self.run.manifest.metadata.get(PROTEIN, self.run.manifest.id))

    @cached_property
    def sequence(self) -> str | None:
        """The amino acids, if they are recorded."""
        values = self.whole("sequence", Place.INPUTS)
        if values is None:
            told = self.run.manifest.metadata.get("sequence")
            return told if isinstance(told, str) else None
        return str(values.reshape(-1)[0])

    @property
    def passes(self) -> dict[int, int]:
        """Return the step of each pass that is recorded, by its number, where that is known."""
        known = self.run.ledger.step_coordinates.get(RECYCLE)
        values = {} if known is None else dict(known.values)
        return {int(values[step]): step for step in self.run.steps if step in values}

    def step(self, recycle: int | None = None) -> int:
        """Return the step of a pass: by its number, negative from the last, or the last.

        Raises
        ------
        NotFoundError
            ``step-not-recorded``, naming the passes there are.
        """
        steps = self.run.steps
        passes = self.passes
        if recycle is None and steps:
            return steps[-1]
        if recycle is not None and recycle < 0 and len(steps) >= -recycle:
            return steps[recycle]
        if recycle in passes:
            return passes[recycle]
        there = ", ".join(map(str, sorted(passes))) or "none is numbered"
        message = f"run {self.run.manifest.id!r} has no pass {recycle}; recorded: {there}"
        raise NotFoundError(ErrorKind.STEP_NOT_RECORDED, message)

    @cached_property
    def attention(self) -> list[Attention]:
        """All attention, by kind and layer: the map itself first, then means, then entries."""
        found = [one for field in self.run.fields(Place.LAYERS) if (one := _attention(field))]
        return sorted(
            found, key=lambda one: (one.kind, one.number, one.layer, one.mean, one.sparse)
        )

    def kinds(self) -> list[str]:
        """Return the kinds of attention there are."""
        return sorted({one.kind for one in self.attention})

    def find(self, kind: str, layer: str, residue: int | None) -> Attention:
        """Return attention of *kind* in a layer, by its number or its whole name.

        Parameters
        ----------
        residue
            Whose map is wanted; None for the mean over residues, or of a kind with one map alone.

        Raises
        ------
        NotFoundError
            ``field-not-found`` or ``layer-not-found``, naming what there is.
        InvalidInputError
            ``invalid-parameter`` for a number that several layers have.
        """
        named = kind.removesuffix(_ENDING)
        of_kind = [one for one in self.attention if one.kind == named]
        if not of_kind:
            there = ", ".join(self.kinds()) or "none"
            message = f"no attention of kind {kind[:80]!r} is recorded; expected one of {there}"
            raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
        in_layer = [one for one in of_kind if layer in (one.layer, str(one.number))]
        if not in_layer:
            there = ", ".join(dict.fromkeys(one.layer for one in of_kind))
            message = f"no {named} attention of layer {layer[:80]!r}; expected one of {there}"
            raise NotFoundError(ErrorKind.LAYER_NOT_FOUND, message)
        layers = sorted({one.layer for one in in_layer})
        if len(layers) > 1:
            message = f"layer {layer!r} may be {' or '.join(layers)}: say its whole name"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        wanted = [one for one in in_layer if (one.lead is None) == (residue is None)]
        if not wanted:
            how = (
                f"there is a map for each {in_layer[0].lead}: say residue="
                if residue is None
                else f"only the {'mean' if in_layer[0].mean else 'map'} of all residues: say none"
            )
            message = f"{named} attention of {layers[0]!r}: {how}"
            raise NotFoundError(ErrorKind.FIELD_NOT_FOUND, message)
        return wanted[0]

    def whole(self, name: str, place: Place) -> NDArray[Any] | None:
        """Return an input or output, or None if it is not recorded."""
        ledger = self.run.ledger.at(place, None, name)
        if ledger is None or not ledger.count:
            return None
        return self.run.field(name, place=place).select({}).array()


def _attention(field: FieldView) -> Attention | None:
    """Return the attention that a field holds, or None."""
    name, layer = field.spec.name, field.spec.layer or ""
    sparse = name.endswith(_COUNT)
    if sparse:
        name = name.removesuffix(_COUNT)
    elif field.dims[-2:] != _MAP or len(field.dims) < 4:  # noqa: PLR2004  step, head and the map
        return None
    mean = name.endswith(_MEAN)
    base = name.removesuffix(_MEAN)
    heads = field.dims[1:] if sparse else field.dims[1:-2]
    if not base.endswith("attention") or not 1 <= len(heads) <= 2:  # noqa: PLR2004  residue, head
        return None
    kind = base.removesuffix(_ENDING)
    number = layer_number(layer)
    return Attention(
        field.run,
        kind=kind,
        layer=layer,
        number=-1 if number is None else number,
        name=name,
        base=base,
        head=heads[-1],
        lead=heads[0] if len(heads) > 1 else None,
        mean=mean,
        sparse=sparse,
    )
