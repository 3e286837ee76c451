"""A small stand-in for OpenFold's `AlphaFold`, which knows of no recorder.

Modules have upstream's names, calls their signatures, and outputs their shapes, but for numbers of
channels, and for parts that give nothing to record. As upstream's, attention runs in chunks, and
blocks change representations in place.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

primitives = sys.modules[__name__]
"""What upstream calls ``openfold.model.primitives``."""
LETTERS = "ARNDCQEGHILKMFPSTWYV"


def softmax_no_cast(t: Tensor, dim: int = -1) -> Tensor:
    """Softmax, in the dtype of *t*."""
    return torch.nn.functional.softmax(t, dim=dim)


def _attention(query: Tensor, key: Tensor, value: Tensor, biases: list[Tensor]) -> Tensor:
    weights = query @ key.transpose(-1, -2)
    for bias in biases:
        weights = weights + bias
    return softmax_no_cast(weights, -1) @ value


class Attention(nn.Module):
    """Multi-head attention over the second last axis, a chunk of the first at a time."""

    def __init__(self, channels: int, no_heads: int) -> None:
        super().__init__()
        self.no_heads = no_heads
        self.linear_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.linear_o = nn.Linear(channels, channels)

    def forward(self, x: Tensor, biases: list[Tensor], chunk_size: int | None = None) -> Tensor:
        """Return an update of *x*, (row, position, channel)."""
        parts = []
        for chunk in x.split(chunk_size or len(x)):
            heads = self.linear_qkv(chunk).unflatten(-1, (3, self.no_heads, -1))
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            parts.append(_attention(3 * query, key, value, biases))
        update: Tensor = self.linear_o(torch.cat(parts).transpose(-2, -3).flatten(-2))
        return update


class MSARowAttentionWithPairBias(nn.Module):
    """Attention within each row of the MSA."""

    def __init__(self, c_m: int, c_z: int, no_heads: int) -> None:
        super().__init__()
        self.linear_z = nn.Linear(c_z, no_heads, bias=False)
        self.mha = Attention(c_m, no_heads)

    def forward(self, m: Tensor, z: Tensor, chunk_size: int | None = None) -> Tensor:
        """Return an update of *m*."""
        update: Tensor = self.mha(m, [self.linear_z(z).permute(2, 0, 1)], chunk_size)
        return update


class TriangleAttention(nn.Module):
    """Attention around starting or ending nodes: a map for each residue."""

    def __init__(self, c_z: int, no_heads: int, *, starting: bool = True) -> None:
        super().__init__()
        self.starting = starting
        self.linear = nn.Linear(c_z, no_heads, bias=False)
        self.mha = Attention(c_z, no_heads)

    def forward(self, z: Tensor, chunk_size: int | None = None) -> Tensor:
        """Return an update of *z*."""
        update: Tensor = self.mha(z, [self.linear(z).permute(2, 0, 1)], chunk_size)
        return update


class PairStack(nn.Module):
    """What a block does to the pair representation."""

    def __init__(self, c_z: int, no_heads: int) -> None:
        super().__init__()
        self.tri_att_start = TriangleAttention(c_z, no_heads)
        self.tri_att_end = TriangleAttention(c_z, no_heads)

    def forward(self, z: Tensor, chunk_size: int | None = None) -> Tensor:
        """Return *z*, changed in place."""
        z += self.tri_att_start(z, chunk_size=chunk_size)
        turned = z.transpose(-2, -3).contiguous()
        turned += self.tri_att_end(turned, chunk_size=chunk_size)
        return turned.transpose(-2, -3).contiguous()


class EvoformerBlock(nn.Module):
    """One block: attention within the MSA, then within the pairs."""

    def __init__(self, c_m: int, c_z: int, no_heads_msa: int, no_heads_pair: int) -> None:
        super().__init__()
        self.msa_att_row = MSARowAttentionWithPairBias(c_m, c_z, no_heads_msa)
        self.outer = nn.Linear(c_m, c_z)
        self.pair_stack = PairStack(c_z, no_heads_pair)

    def forward(self, m: Tensor, z: Tensor, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the MSA, changed in place, and the pair representation."""
        m += self.msa_att_row(m, z=z, chunk_size=chunk_size)
        outer = self.outer(m.mean(0))
        return m, self.pair_stack(z + outer[:, None] * outer[None], chunk_size=chunk_size)


class EvoformerStack(nn.Module):
    """Blocks, and the single representation of the first row."""

    def __init__(self, blocks: int, c_m: int, c_z: int, c_s: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EvoformerBlock(c_m, c_z, 8, 4) for _ in range(blocks))
        self.linear = nn.Linear(c_m, c_s)

    def forward(
        self, m: Tensor, z: Tensor, chunk_size: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return MSA, pair and single representation."""
        if chunk_size is not None:
            self.blocks[0](m.clone(), z.clone(), chunk_size=1)  # as tuning the chunk size does
        for block in self.blocks:
            m, z = block(m, z, chunk_size=chunk_size)
        return m, z, self.linear(m[0])


class InvariantPointAttention(nn.Module):
    """Attention of twelve heads over residues, without the points."""

    def __init__(self, c_s: int) -> None:
        super().__init__()
        self.linear_qk = nn.Linear(c_s, 2 * c_s)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, s: Tensor) -> Tensor:
        """Return an update of *s*, (residue, channel)."""
        query, key = self.linear_qk(s).unflatten(-1, (2, 12, -1)).permute(1, 2, 0, 3)
        weights: Tensor = self.softmax(query @ key.transpose(-1, -2))
        return weights.mean(0) @ s


class StructureModule(nn.Module):
    """Atoms out of the single representation, by eight blocks that share their weights."""

    def __init__(self, c_s: int, blocks: int = 8) -> None:
        super().__init__()
        self.no_blocks = blocks
        self.ipa = InvariantPointAttention(c_s)
        self.positions = nn.Linear(c_s, 14 * 3)
        self.frames = nn.Linear(c_s, 7)
        self.angles = nn.Linear(c_s, 7 * 2)

    def forward(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what each block gives, stacked."""
        states = [outputs["single"]]
        for _ in range(self.no_blocks):
            states.append(torch.tanh(states[-1] + self.ipa(states[-1])))
        stacked = torch.stack(states[1:])
        angles = self.angles(stacked).unflatten(-1, (7, 2))
        return {
            "frames": self.frames(stacked),
            "sidechain_frames": self.frames(stacked)[..., None, :1, None].expand(-1, -1, 8, 4, 4),
            "unnormalized_angles": angles,
            "angles": nn.functional.normalize(angles, dim=-1),
            "positions": self.positions(stacked).unflatten(-1, (14, 3)),
            "states": stacked,
            "single": states[-1],
        }


class AlphaFold(nn.Module):
    """The model: some passes through the trunk, each beginning with what the last one gave."""

    def __init__(self, blocks: int = 3, c_m: int = 32, c_z: int = 16, c_s: int = 24) -> None:
        super().__init__()
        self.input_embedder = nn.Embedding(len(LETTERS), c_m)
        self.pair_embedder = nn.Embedding(len(LETTERS), c_z)
        self.evoformer = EvoformerStack(blocks, c_m, c_z, c_s)
        self.structure_module = StructureModule(c_s)
        self.plddt = nn.Linear(c_s, 1)
        self.chunk_size: int | None = 4

    def iteration(
        self, aatype: Tensor, rows: int, prevs: tuple[Tensor, Tensor] | None
    ) -> dict[str, Tensor]:
        """Return the outputs of one pass."""
        m = self.input_embedder(aatype).repeat(rows, 1, 1)
        m = m + 0.1 * torch.arange(rows)[:, None, None]
        z = self.pair_embedder(aatype)[:, None] + self.pair_embedder(aatype)[None]
        if prevs is not None:
            m[0] += prevs[0]
            z = z + prevs[1]
        m, z, s = self.evoformer(m, z, chunk_size=self.chunk_size)
        return {"msa": m, "pair": z, "single": s}

    def forward(self, aatype: Tensor, rows: int = 4, num_iters: int = 4) -> dict[str, Tensor]:
        """Return what the last of *num_iters* passes gives, for one sequence (residue,)."""
        outputs: dict[str, Tensor] = {}
        for _ in range(num_iters):
            before = (outputs["msa"][0], outputs["pair"]) if outputs else None
            outputs = self.iteration(aatype, rows, before)
            structure = self.structure_module(outputs)
            atoms = structure["positions"][-1]
            outputs["final_atom_positions"] = nn.functional.pad(atoms, (0, 0, 0, 37 - 14))
            outputs["final_atom_mask"] = torch.ones(len(aatype), 37)
        outputs["plddt"] = 100 * torch.sigmoid(self.plddt(outputs["single"])[:, 0])
        outputs["num_recycles"] = torch.tensor(num_iters)
        return outputs
