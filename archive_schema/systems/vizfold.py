"""VizFold: predictions of protein structures by OpenFold and ESMFold, with what led to them.

A run is one prediction of one protein. A step is one pass of the trunk (`RECYCLE` counts them from
0), a layer is a module by its own name, mostly a block: ``evoformer.blocks.12``.

Axes of one name have one length within a layer. MSA and pair attention have different numbers of
heads, and representations different numbers of channels, so each has a name of its own, and none of
them can be mistaken for residues.

What importer and exporter agree on lies here too: kinds of attention, their legacy file names, and
the fields of attention of which only the strongest entries are known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from archive_schema.models import Place
from archive_schema.systems.declaration import FieldDeclaration, SystemDeclaration

RECYCLE: Final = "recycle"
"""Step coordinate: the pass, from 0. Upstream's ``num_recycles`` is the number of passes, and the
files that it writes are those of the last one."""

PASSES: Final = "num_recycles"
"""Metadata: the number of passes."""
TOP_K: Final = "top_k"
"""Metadata: entries a head in text files."""
PROTEIN: Final = "protein"
"""Metadata: the name that upstream's files begin with, ``1UBQ``."""
IMPORTED: Final = "imported"
"""Metadata of an imported run: ``format``, and ``paths`` of files by what they became."""
DEFAULT_TOP_K: Final = 500

EVOFORMER: Final = "evoformer.blocks."
ESM: Final = "esm.encoder.layer."
TRUNK: Final = "trunk.blocks."
STRUCTURE: Final = "structure_module"

ROW: Final = "row"
COLUMN: Final = "column"
WEIGHT: Final = "weight"
COUNT: Final = "count"
SPARSE_PARTS: Final = (ROW, COLUMN, WEIGHT, COUNT)


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """A kind of attention, ``[…, head, query, key]``, its rows summing to one.

    Fields of a layer:

    - ``<name>``: with an axis of residues first where there is one map a residue; which residues
      these are says the field ``<name>_residues``.
    - ``<name>_mean``: the mean over all residues, where there is one map a residue.
    - of either ``_row``, ``_column``, ``_weight`` (…, head, rank) and ``_count`` (…, head): its
      strongest entries, where no more is known. Ranks from *count* on are -1, -1 and NaN.
    """

    name: str
    head: str
    """Name of the axis of heads."""
    file: str | None = None
    """What upstream's files are called, before ``_layer12.txt``; None if it writes none."""
    residue: str | None = None
    """Name of the axis of residues of which each has a map."""

    @property
    def mean(self) -> str:
        """Name of the field that holds the mean over residues."""
        return f"{self.name}_mean"

    @property
    def residues(self) -> str:
        """Name of the field that tells the residues, int32."""
        return f"{self.name}_residues"

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the dense fields."""
        return (self.name,) if self.residue is None else (self.name, self.mean)

    def dims(self, field: str) -> tuple[str, ...]:
        """Return the axes of a dense field of this kind."""
        lead = () if self.residue is None or field == self.mean else (self.residue,)
        return (*lead, self.head, "query", "key")

    def declared(self) -> dict[str, FieldDeclaration]:
        """Return all fields of a layer that hold attention of this kind."""
        found = {}
        for name in self.fields:
            dims = self.dims(name)
            found[name] = FieldDeclaration(dims)
            for part in SPARSE_PARTS:
                found[sparse_name(name, part)] = FieldDeclaration(sparse_dims(name, dims, part))
        if self.residue is not None:
            found[self.residues] = FieldDeclaration((self.residue,), description="positions from 0")
        return found


MSA_ROW: Final = AttentionKind("msa_row_attention", "msa_head", "msa_row_attn")
"""Of the first row of the MSA, which is the query sequence."""
TRIANGLE_START: Final = AttentionKind(
    "triangle_start_attention", "pair_head", "triangle_start_attn", "start_residue"
)
TRIANGLE_END: Final = AttentionKind(
    "triangle_end_attention", "pair_head", "triangle_end_attn", "end_residue"
)
PAIRWISE: Final = AttentionKind("pairwise_attention", "pairwise_head")
SELF: Final = AttentionKind("attention", "head", "msa_row_attn")
"""Of a language model; ESMFold's text files call it MSA row attention."""
EVOFORMER_KINDS: Final = (MSA_ROW, TRIANGLE_START, TRIANGLE_END, PAIRWISE)
KINDS: Final = (*EVOFORMER_KINDS, SELF)

_FILE: Final = re.compile(
    r"(?P<stem>[a-z_]+_attn)_layer(?P<layer>[0-9]{1,6})(?:_residue_idx_(?P<residue>[0-9]{1,6}|avg))?"
)


@dataclass(frozen=True, slots=True)
class AttentionFile:
    """What the name of an attention file says."""

    kind: AttentionKind
    number: int
    """Of the layer."""
    residue: int | None = None
    """The one residue whose map it holds; None for a mean over residues, or a kind without."""

    @property
    def field(self) -> str:
        """Name of the dense field that it is, or is part of."""
        whole = self.kind.residue is None or self.residue is not None
        return self.kind.name if whole else self.kind.mean

    @property
    def stem(self) -> str:
        """Name of the file without its ending."""
        name = f"{self.kind.file}_layer{self.number}"
        if self.kind.residue is None:
            return name
        return f"{name}_residue_idx_{'avg' if self.residue is None else self.residue}"


def attention_file(stem: str) -> AttentionFile | None:
    """Return what the name of a file says, without its ending; None for any other file.

    Examples
    --------
    >>> found = attention_file("triangle_start_attn_layer0_residue_idx_18")
    >>> found.field, found.number, found.residue, found.stem
    ('triangle_start_attention', 0, 18, 'triangle_start_attn_layer0_residue_idx_18')
    >>> attention_file("triangle_start_attn_layer0_residue_idx_avg").field
    'triangle_start_attention_mean'
    """
    match = _FILE.fullmatch(stem)
    kind = next((k for k in EVOFORMER_KINDS if match and k.file == match["stem"]), None)
    if match is None or kind is None or (kind.residue is None) != (match["residue"] is None):
        return None
    residue = match["residue"]
    return AttentionFile(
        kind, int(match["layer"]), None if residue in (None, "avg") else int(residue)
    )


def sparse_name(field: str, part: str) -> str:
    """Return the name of the field that holds *part* of the strongest entries of *field*."""
    return f"{field}_{part}"


def sparse_dims(field: str, dims: tuple[str, ...], part: str) -> tuple[str, ...]:
    """Return the axes of such a field, from those of the dense one."""
    return dims[:-2] if part == COUNT else (*dims[:-2], f"{field}_rank")


def layer_number(layer: str) -> int | None:
    """Return the number in the name of a block, its last one; None for a layer without.

    Examples
    --------
    >>> layer_number("evoformer.blocks.12"), layer_number("trunk.structure_module")
    (12, None)
    """
    numbers = [part for part in layer.split(".") if part.isdecimal()]
    return int(numbers[-1]) if numbers else None


_RESIDUE: Final = ("residue",)
_PAIR: Final = ("row_residue", "column_residue")
_STRUCTURE_BLOCK: Final = ("structure_block", "residue")
_REPRESENTATIONS: Final = {
    "msa": FieldDeclaration(("msa_row", "residue", "msa_channel")),
    "pair": FieldDeclaration((*_PAIR, "pair_channel")),
    "single": FieldDeclaration(
        (*_RESIDUE, "single_channel"), description="of any width; the first MSA row has 256"
    ),
}
_BLOCK: Final = _REPRESENTATIONS | {
    name: declared for kind in EVOFORMER_KINDS for name, declared in kind.declared().items()
}
_ESM_LAYER: Final = {
    "activations": FieldDeclaration((*_RESIDUE, "esm_channel")),
    **SELF.declared(),
}
STRUCTURE_FIELDS: Final = {
    "frames": FieldDeclaration((*_STRUCTURE_BLOCK, "frame"), description="quaternion, translation"),
    "sidechain_frames": FieldDeclaration(
        (*_STRUCTURE_BLOCK, "rigid_group", "frame_row", "frame_column")
    ),
    "unnormalized_angles": FieldDeclaration((*_STRUCTURE_BLOCK, "torsion", "sine_cosine")),
    "angles": FieldDeclaration((*_STRUCTURE_BLOCK, "torsion", "sine_cosine")),
    "positions": FieldDeclaration((*_STRUCTURE_BLOCK, "atom14", "xyz"), description="angstrom"),
    "states": FieldDeclaration((*_STRUCTURE_BLOCK, "single_channel")),
    "single": FieldDeclaration((*_RESIDUE, "single_channel")),
    "ipa_attention": FieldDeclaration(("structure_block", "head", "query", "key")),
}
"""What the structure module gives out in a pass, stacked over its blocks."""

SYSTEM: Final = SystemDeclaration(
    name="vizfold",
    title="VizFold: OpenFold and ESMFold predictions",
    fields={
        Place.INPUTS: {
            "sequence": FieldDeclaration((), description="one letter a residue; chains by ':'"),
            "fasta": FieldDeclaration(("fasta_byte",), description="the file, uint8"),
            "residue_index": FieldDeclaration(_RESIDUE),
            "aatype": FieldDeclaration(_RESIDUE),
            "msa": FieldDeclaration(("msa_row", "residue")),
        },
        Place.OUTPUTS: {
            **_REPRESENTATIONS,
            "final_atom_positions": FieldDeclaration(
                (*_RESIDUE, "atom", "xyz"), description="angstrom"
            ),
            "final_atom_mask": FieldDeclaration((*_RESIDUE, "atom")),
            "final_affine_tensor": FieldDeclaration((*_RESIDUE, "frame")),
            "plddt": FieldDeclaration(_RESIDUE, description="0 to 100"),
            "lddt_logits": FieldDeclaration((*_RESIDUE, "lddt_bin")),
            "distogram_logits": FieldDeclaration((*_PAIR, "distogram_bin")),
            "masked_msa_logits": FieldDeclaration(("msa_row", "residue", "amino_acid")),
            "experimentally_resolved_logits": FieldDeclaration((*_RESIDUE, "atom")),
            "tm_logits": FieldDeclaration((*_PAIR, "error_bin")),
            "aligned_confidence_probs": FieldDeclaration((*_PAIR, "error_bin")),
            "predicted_aligned_error": FieldDeclaration(_PAIR, description="angstrom"),
            "max_predicted_aligned_error": FieldDeclaration(()),
            "ptm_score": FieldDeclaration(()),
            "iptm_score": FieldDeclaration(()),
            "weighted_ptm_score": FieldDeclaration(()),
            "asym_id": FieldDeclaration(_RESIDUE),
            "pdb": FieldDeclaration(("pdb_byte",), description="the file, uint8"),
            "relaxed_pdb": FieldDeclaration(("relaxed_pdb_byte",), description="the file, uint8"),
        },
    },
    layers={
        f"{EVOFORMER}*": _BLOCK,
        f"{TRUNK}*": _BLOCK,
        f"{ESM}*": _ESM_LAYER,
        "esm.layers.*": _ESM_LAYER,
        f"{STRUCTURE}*": STRUCTURE_FIELDS,
        f"trunk.{STRUCTURE}*": STRUCTURE_FIELDS,
        "*": _BLOCK,
    },
)
