"""What the arrays of an archive are, by their paths: the layouts that pull requests proposed.

They differ in names and in where the axis of heads lies, and the files do not say which layout
they follow. So a path is looked up in one table of all of them, and axes are told apart by names,
then by lengths, then by chunks; where none of these tells, nobody guesses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from archive_schema.models import Place
from archive_schema.systems.vizfold import EVOFORMER, KINDS, SELF, AttentionKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from recorder.importers.vizfold_archives.arrays import ForeignArray

_NUMBER: Final = r"(?:layer[_-]?)?(?P<{}>[0-9]{{1,6}})"
_LAYER: Final = _NUMBER.format("layer")
VIT_LAYER: Final = "layer."
"""Of the image models that two of the layouts were tried on."""
SAMPLE: Final = "sample"
ATOMS: Final = 37
_RESIDUE: Final = ("residue",)
_PAIR: Final = ("row_residue", "column_residue", "pair_channel")
_MAP_AXES: Final = 3


@dataclass(frozen=True, slots=True)
class Role:
    """What an array becomes."""

    place: Place
    field: str
    dims: tuple[str, ...]
    """Names of all axes, as they are stored here."""
    layer: str | None = None
    heads_last: bool = False
    """Whether the axis of heads is the last in the file."""
    kind: AttentionKind | None = None
    """Of attention."""

    def lengths(self, array: ForeignArray) -> tuple[int, ...]:
        """Return the length of each axis as it is stored here."""
        return (array.shape[-1], *array.shape[:-1]) if self.heads_last else array.shape


class AmbiguousError(ValueError):
    """An array whose axes could be one thing or another."""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    place: Place
    field: str
    dims: tuple[str, ...]
    layers: str | None = None


def _rule(
    pattern: str, place: Place, field: str, dims: tuple[str, ...], layers: str | None = None
) -> _Rule:
    return _Rule(re.compile(pattern), place, field, dims, layers)


def _representation(name: str) -> str:
    other = _NUMBER.format("other")
    return rf"activations/{_LAYER}/{name}|(?:representations/)?{name}/{other}"


_INPUTS, _OUTPUTS, _LAYERS = Place.INPUTS, Place.OUTPUTS, Place.LAYERS
_IMAGE: Final = (SAMPLE, "colour", "row", "column")
_RULES: Final = (
    _rule(_representation("single"), _LAYERS, "single", (*_RESIDUE, "single_channel"), EVOFORMER),
    _rule(_representation("pair"), _LAYERS, "pair", _PAIR, EVOFORMER),
    _rule(rf"activations/{_LAYER}/hidden_states", _LAYERS, "hidden_states",
          (SAMPLE, "token", "channel"), VIT_LAYER),
    _rule(r"activations/cls_output", _OUTPUTS, "cls_output", (SAMPLE, "channel")),
    _rule(r"activations/(?P<name>[a-z]+[0-9]*)", _LAYERS, "activations",
          (SAMPLE, "channel", "row", "column"), ""),
    _rule(r"(?:inputs|metadata)/sequence|sequence", _INPUTS, "sequence", ()),
    _rule(r"inputs/msa", _INPUTS, "msa", ("msa_row", "residue")),
    _rule(r"(?:inputs|metadata)/residue_index", _INPUTS, "residue_index", _RESIDUE),
    _rule(r"inputs/(?P<name>images|processed_image)", _INPUTS, "", _IMAGE),
    _rule(r"(?:outputs/)?(?:coords|coordinates)", _OUTPUTS, "coordinates", (*_RESIDUE, "xyz")),
    _rule(r"(?:outputs/)?(?:conf|confidence)", _OUTPUTS, "confidence", _RESIDUE),
    _rule(r"(?:structure|outputs)/plddt", _OUTPUTS, "plddt", _RESIDUE),
    _rule(r"structure/atom_positions", _OUTPUTS, "final_atom_positions",
          (*_RESIDUE, "atom", "xyz")),
    _rule(r"structure/atom_mask", _OUTPUTS, "final_atom_mask", (*_RESIDUE, "atom")),
    _rule(r"structure/ptm", _OUTPUTS, "ptm_score", ()),
    _rule(r"(?:outputs/)?structure_pdb|structure/pdb(?:_text)?", _OUTPUTS, "pdb", ("pdb_byte",)),
    _rule(r"outputs/logits", _OUTPUTS, "logits", (SAMPLE, "class")),
    _rule(r"outputs/(?:predictions|predicted_class)", _OUTPUTS, "predictions", (SAMPLE,)),
)  # fmt: skip
_HEAD: Final = re.compile(r"(?:.*_)?heads?|h")
_ATTENTION: Final = re.compile(rf"attention/(?:(?P<kind>[a-z][a-z_]*)/)?{_LAYER}")


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of an archive as a whole."""

    residues: int | None
    """Length of the protein, where the file says it."""
    axes: tuple[str, ...] | None
    """Those of attention in the file, as its user says: head, query and key in some order."""
    largest_nbytes: int
    """What is recorded at once. Of maps of residues that have more, each residue is a sample."""


def role_of(array: ForeignArray, told: Told) -> Role | None:
    """Return what *array* becomes, or None if no layout has such a path.

    Raises
    ------
    AmbiguousError
        If it is attention whose axis of heads cannot be told from the others.
    """
    attention = _ATTENTION.fullmatch(array.path)
    if attention is not None:
        return _attention_role(array, attention["kind"], int(attention["layer"]), told)
    for rule in _RULES:
        match = rule.pattern.fullmatch(array.path)
        if match is None:
            continue
        named = match.groupdict()
        number = named.get("layer") or named.get("other")
        layer = None
        if rule.layers is not None:
            layer = f"{rule.layers}{int(number)}" if number else named["name"]
        return Role(rule.place, rule.field or named["name"], rule.dims, layer)
    return None


def attention_kind(name: str | None) -> AttentionKind:
    """Return the kind that a folder of attention is called by; that of any model without one."""
    if name is None:
        return SELF
    wanted = name if name.endswith("attention") else f"{name.removesuffix('_attn')}_attention"
    known = next((kind for kind in KINDS if kind.name == wanted), None)
    return known or AttentionKind(wanted, f"{wanted.removesuffix('_attention')}_head")


def _attention_role(array: ForeignArray, name: str | None, number: int, told: Told) -> Role | None:
    kind = attention_kind(name)
    shape = array.shape
    if len(shape) == _MAP_AXES:
        last = _heads_last(array, told)
        field = kind.name if kind.residue is None else kind.mean
        return Role(_LAYERS, field, kind.dims(field), f"{EVOFORMER}{number}", last, kind)
    if len(shape) != _MAP_AXES + 1 or shape[-1] != shape[-2]:
        return None
    maps = (kind.head, "query", "key")
    if kind.residue is None:
        layer = f"{VIT_LAYER}{number}" if name is None else f"{EVOFORMER}{number}"
        return Role(_LAYERS, kind.name, (SAMPLE, *maps), layer, kind=kind)
    first = SAMPLE if array.nbytes > told.largest_nbytes else kind.residue
    return Role(_LAYERS, kind.name, (first, *maps), f"{EVOFORMER}{number}", kind=kind)


def _heads_last(array: ForeignArray, told: Told) -> bool:
    """Tell (head, query, key) from (query, key, head)."""
    for names in (told.axes, array.dims):
        at = [n for n, name in enumerate(names or ()) if _HEAD.fullmatch(name.lower())]
        if names is not None and len(names) == _MAP_AXES and at in ([0], [2]):
            return at == [2]
    residues = told.residues
    first, middle, last = array.shape
    if (first == middle) != (middle == last):
        return first == middle
    if residues is not None and middle == residues and (first == residues) != (last == residues):
        return first == residues
    one = [n for n, chunk in enumerate(array.chunks or ()) if chunk == 1 < array.shape[n]]
    if one in ([0], [2]) and first == middle == last:
        return one == [2]
    message = (
        f"{array.path} has shape {array.shape}: ambiguous, its heads may be the first axis or the"
        " last. Say which by the flag attention_axes=head,query,key or query,key,head, or by"
        " naming the axes in the file (_ARRAY_DIMENSIONS of Zarr 2, dimension_names of Zarr 3)"
    )
    raise AmbiguousError(message)


def told_apart(arrays: Collection[ForeignArray]) -> str:
    """Return the name of the layout that *arrays* follow most."""
    paths = [array.path for array in arrays]
    shapes = {array.path: array.shape for array in arrays}
    if any(path.startswith(("representations/", "structure/")) for path in paths):
        flat = len(shapes.get("structure/atom_positions", ())) == 2  # noqa: PLR2004  (37 N, 3)
        return "vizfold-to-zarr" if flat else "vizfold-1.0"
    if any(path.endswith("hidden_states") or path.startswith("inputs/images") for path in paths):
        return "vit"
    return "archiveformat"
