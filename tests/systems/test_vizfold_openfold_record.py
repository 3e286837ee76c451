"""A folding model is recorded pass by pass, and nothing of what it does changes."""

from __future__ import annotations

import runpy
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.store import open_store
from archive_schema.systems.attention_text import attention_text, strongest_of
from examples import openfold_model
from examples.openfold_model import LETTERS, AlphaFold, primitives
from recorder import TraceRecorder
from recorder.integrations.vizfold import attach
from server.exporters import MadeFile, export_tree
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store
    from server.query import RunView

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
BLOCKS, PASSES = 2, 3
SEQUENCE = "MQIFVKTLTG"
N = len(SEQUENCE)


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(store: Store) -> Iterator[Archive]:
    with Archive(store) as archive:
        yield archive


@pytest.fixture
def model() -> AlphaFold:
    torch.manual_seed(0)
    return AlphaFold(BLOCKS).eval()


def predicted(model: AlphaFold) -> dict[str, torch.Tensor]:
    aatype = torch.tensor([LETTERS.index(letter) for letter in SEQUENCE])
    with torch.no_grad():
        outputs: dict[str, torch.Tensor] = model(aatype, num_iters=PASSES)
    return outputs


class Watched:
    """What a model does, seen by the simplest of means: copies of everything, of one chunk."""

    def __init__(self, model: AlphaFold, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs: dict[tuple[int, int], Any] = {}
        self.msas: dict[tuple[int, int], Any] = {}
        self.weights: list[Any] = []
        self.times = [0] * BLOCKS
        original = openfold_model.softmax_no_cast

        def softmax(t: torch.Tensor, dim: int = -1) -> torch.Tensor:
            made = original(t, dim)
            self.weights.append(made.numpy().copy())
            return made

        with monkeypatch.context() as patch:
            patch.setattr(openfold_model, "softmax_no_cast", softmax)
            patch.setattr(model, "chunk_size", None)
            hooks = [
                block.register_forward_hook(lambda _, __, out, at=at: self.saw(at, out))
                for at, block in enumerate(model.evoformer.blocks)
            ]
            self.outputs = {name: one.numpy() for name, one in predicted(model).items()}
            for hook in hooks:
                hook.remove()

    def saw(self, block: int, output: Any) -> None:
        """Keep copies of what a block gave."""
        recycle = self.times[block]
        self.times[block] += 1
        self.msas[recycle, block] = output[0].numpy().copy()
        self.pairs[recycle, block] = output[1].numpy().copy()

    def maps(self, recycle: int, block: int, kind: int) -> Any:
        """Return weights: kind 0 of MSA rows, 1 of starting and 2 of ending nodes."""
        return self.weights[(recycle * BLOCKS + block) * 3 + kind]


def values(run: RunView, name: str, block: int, step: int) -> Any:
    field = run.field(name, layer=f"evoformer.blocks.{block}")
    return field.select({"step": step}).array()


def recorder(store: Store, **options: Any) -> TraceRecorder:
    metadata = {"protein": "1UBQ", "top_k": 7}
    return TraceRecorder(store, "run", system="vizfold", metadata=metadata, **options)


def test_every_pass_is_kept_where_files_keep_the_last(
    model: AlphaFold, store: Store, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention in chunks, a first block that is tried out, representations changed in place."""
    known = Watched(model, monkeypatch)

    with (
        recorder(store) as rec,
        attach(
            rec,
            model,
            keep=("msa", "pair", "single", "structure"),
            attention=primitives,
            kinds=("msa_row_attention", "triangle_start_attention", "triangle_end_attention"),
            residues=[2, 7],
        ) as attached,
    ):
        rec.inputs(None, sequence=np.array(SEQUENCE))
        outputs = predicted(model)
        attached.outputs(outputs, pdb="END\n")

    run = archive.run("run")
    assert attached.passes == PASSES
    assert run.steps == tuple(range(PASSES))
    assert run.ledger.step_coordinates["recycle"].values == {at: at for at in range(PASSES)}
    # In chunks, sums come in another order.
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    for (recycle, block), pair in known.pairs.items():
        msa = known.msas[recycle, block]
        found = {n: values(run, n, block, recycle) for n in ("pair", "msa", "single")}
        close(found["pair"], pair)
        close(found["msa"], msa)
        np.testing.assert_array_equal(found["single"], found["msa"][0])
        rows = values(run, "msa_row_attention", block, recycle)
        close(rows, known.maps(recycle, block, 0)[0])
        for kind, name in ((1, "triangle_start_attention"), (2, "triangle_end_attention")):
            maps = known.maps(recycle, block, kind)[[2, 7]]
            close(values(run, name, block, recycle), maps)
            assert values(run, f"{name}_residues", block, recycle).tolist() == [2, 7]
    module = run.field("positions", layer="structure_module")
    assert module.shape == (PASSES, 8, N, 14, 3)
    np.testing.assert_array_equal(
        module.select({"step": PASSES - 1}).array()[-1],
        outputs["final_atom_positions"][:, :14].numpy(),
    )
    for name in ("msa", "pair", "single", "final_atom_positions", "plddt"):
        kept = run.field(name, place=Place.OUTPUTS).select({}).array()
        np.testing.assert_array_equal(kept, outputs[name].numpy(), strict=True)
    files = {f.path: b"".join(MadeFile(f).parts()) for f in export_tree(run, steps=1).files}
    maps = values(run, "msa_row_attention", 1, 1)
    text = attention_text(1, strongest_of(maps, 7))
    assert files["attention_files_1UBQ/msa_row_attn_layer1.txt"] == text
    assert files["1UBQ.fasta"] == b">1UBQ\nMQIFVKTLTG\n"
    assert files["predictions/1UBQ_unrelaxed.pdb"] == b"END\n"
    assert "attention_files_1UBQ/triangle_end_attn_layer0_residue_idx_7.npz" in files


def test_what_is_kept_can_be_chosen(
    model: AlphaFold, store: Store, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block, some heads, the mean over residues, half precision."""
    known = Watched(model, monkeypatch)

    with (
        recorder(store) as rec,
        attach(
            rec,
            model,
            keep=("pair",),
            layers=[1],
            attention=primitives,
            heads=[3, 0],
            dtype="float16",
        ),
    ):
        predicted(model)

    run = archive.run("run")
    assert run.layers() == ["evoformer.blocks.1"]
    rows = run.field("msa_row_attention", layer="evoformer.blocks.1")
    assert rows.spec.attributes == {"heads": [3, 0]}
    assert rows.shape == (PASSES, 2, N, N)
    for recycle in range(PASSES):
        mean = known.maps(recycle, 1, 1).mean(0)[[3, 0]]
        found = values(run, "triangle_start_attention_mean", 1, recycle)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, mean, rtol=2e-3, atol=2e-3)


class Trunk(torch.nn.Module):
    """ESMFold's: blocks of a sequence and a pair state, for a batch of one, and atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(BLOCKS))
        self.structure_module = openfold_model.StructureModule(24)

    def forward(self, s: torch.Tensor, z: torch.Tensor) -> list[Any]:
        """Return the states after each block of each pass."""
        seen = []
        for _ in range(PASSES):
            for block in self.blocks:
                s, z = block(s, z)
                seen.append((s.clone(), z.clone()))
            self.structure_module({"single": s[0]})
        return seen


class Block(torch.nn.Module):
    """One block of such a trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.tri_att_start = openfold_model.TriangleAttention(16, 4)

    def forward(self, s: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both states, the first changed in place."""
        s += z.mean((-1, -2))[..., None]
        return s, z + self.tri_att_start(z[0])[None]


def test_a_trunk_of_esmfold_is_recorded_as_well(store: Store, archive: Archive) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"trunk": Trunk()})
    kinds = ("triangle_start_attention", "ipa_attention")

    with (
        torch.no_grad(),
        recorder(store) as rec,
        attach(rec, model, attention=primitives, kinds=kinds),
    ):
        seen = model["trunk"](torch.randn(1, N, 24), torch.randn(1, N, N, 16))

    run = archive.run("run")
    for recycle in range(PASSES):
        for at in range(BLOCKS):
            sequence, pair = seen[recycle * BLOCKS + at]
            for name, expected in (("single", sequence[0]), ("pair", pair[0])):
                field = run.field(name, layer=f"trunk.blocks.{at}")
                found = field.select({"step": recycle}).array()
                np.testing.assert_array_equal(found, expected.numpy(), strict=True)
    mean = run.field("triangle_start_attention_mean", layer="trunk.blocks.1")
    assert mean.shape == (PASSES, 4, N, N)
    points = run.field("ipa_attention", layer="trunk.structure_module")
    assert points.dims == ("step", "structure_block", "head", "query", "key")
    assert points.shape == (PASSES, 8, 12, N, N)
    np.testing.assert_allclose(points.select({}).array().sum(-1), 1, rtol=1e-5)


def test_all_residues_can_be_kept(model: AlphaFold, store: Store, archive: Archive) -> None:
    with (
        recorder(store) as rec,
        attach(rec, model, attention=primitives, residues="all", layers=[0], keep=()),
    ):
        predicted(model)

    run = archive.run("run")
    field = run.field("triangle_start_attention", layer="evoformer.blocks.0")
    assert field.shape == (PASSES, N, 4, N, N)
    np.testing.assert_allclose(field.select({}).array().sum(-1), 1, rtol=1e-5)


def test_the_same_prediction_again_is_nothing(
    model: AlphaFold, store: Store, archive: Archive
) -> None:
    """A job that was ended and started again goes on where it stood."""
    for last in (False, True):
        with (
            recorder(store, seal_at_exit=last) as rec,
            attach(rec, model, attention=primitives),
        ):
            predicted(model)

    assert archive.run("run").steps == tuple(range(PASSES))


def test_everything_is_put_back_also_after_an_error(model: AlphaFold, store: Store) -> None:
    original = openfold_model.softmax_no_cast

    with pytest.raises(ZeroDivisionError), recorder(store) as rec:
        with attach(rec, model, attention=primitives) as attached:
            predicted(model)
            raise ZeroDivisionError

    predicted(model)
    assert openfold_model.softmax_no_cast is original
    assert attached.passes == PASSES


def test_what_cannot_be_recorded_is_said_at_once(model: AlphaFold, store: Store) -> None:
    with recorder(store) as rec:
        for options, message in (
            ({"keep": ("pairs",)}, "keep: expected some of"),
            ({"attention": primitives, "kinds": ("column",)}, "kinds: expected some of"),
            ({"residues": "some"}, "residues: expected mean, all or positions"),
            ({"layers": [7]}, "the model has 2 blocks"),
            ({"attention": primitives, "softmax": "softmax"}, "expected a function 'softmax'"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                attach(rec, model, **options)
        with pytest.raises(InvalidInputError, match=r"evoformer\.blocks\.N") as refused:
            attach(rec, torch.nn.Sequential(torch.nn.ReLU()))
        assert refused.value.kind is ErrorKind.PATTERN_UNMATCHED
        with attach(rec, model, attention=primitives, residues=[N]):
            with pytest.raises(InvalidInputError, match="residues be within the protein"):
                predicted(model)


def test_a_kernel_that_holds_no_weights_is_told(
    model: AlphaFold, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fused(query: Any, key: Any, value: Any, biases: Any) -> Any:
        mask = sum(biases)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=1)

    monkeypatch.setattr(openfold_model, "_attention", fused)
    with recorder(store) as rec:
        with attach(rec, model, attention=primitives):
            with pytest.raises(InvalidInputError, match="use_memory_efficient_kernel"):
                predicted(model)


def test_the_example_runs(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    arguments = [str(tmp_path), "--run", "x", "--passes", "2", "--blocks", "2"]
    monkeypatch.setattr(sys, "argv", ["record_vizfold.py", *arguments])
    runpy.run_path(str(EXAMPLES / "record_vizfold.py"), run_name="__main__")

    assert "2 passes recorded in x" in capsys.readouterr().out
    with Archive(open_store(tmp_path)) as archive:
        run = archive.run("x")
        assert run.sealed
        assert run.field("pair", layer="evoformer.blocks.1").shape[0] == 2
