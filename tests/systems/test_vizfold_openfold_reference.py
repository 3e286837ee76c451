"""A run that is recorded from a model that computes the reference arrays holds exactly these.

The model is the examples' stand-in, with its chunks, its tuning and its changes in place; only what
its softmax and its modules give is taken from the real files.
"""

from __future__ import annotations

import json
import pickle
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch

from archive_schema.models import Place
from archive_schema.store import open_store
from archive_schema.systems.vizfold import AttentionFile, attention_file
from examples import openfold_model
from examples.openfold_model import AlphaFold, primitives
from recorder import TraceRecorder
from recorder.integrations.vizfold import KEPT, attach
from server.exporters import MadeFile, export_tree
from server.query import Archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from server.query import RunView

REAL: Final = Path(__file__).parents[1] / "data/vizfold"
MODULES: Final = {"msa_row_attn": "msa_att_row", "triangle_start_attn": "pair_stack.tri_att_start"}
REPRESENTATION: Final = re.compile(r"(?P<protein>\w+)_(?P<name>pair|single)_layer(?P<number>\d+)")


def residue_maps(mean: NDArray[np.float32], residues: int) -> NDArray[np.float32]:
    """Return maps that differ from residue to residue and have exactly this mean.

    Each value's sum is cut into multiples of its last bit, and so is exact in whatever order it is
    added up; all of it that rounds is the division, which gives *mean* back.
    """
    total = mean * np.float32(residues)
    np.testing.assert_array_equal(total / np.float32(residues), mean)
    mantissa, exponent = np.frexp(total)
    shares = np.random.default_rng(0).random(residues).cumsum()
    cuts = np.multiply.outer(shares / shares[-1], np.ldexp(mantissa, 24).astype(np.float64))
    parts = np.diff(np.rint(cuts), axis=0, prepend=0).astype(np.float32)
    maps: NDArray[np.float32] = np.ldexp(parts, exponent - 24)
    return maps


class Reference:
    """The files of one real run, and a model that computes them in its last pass."""

    def __init__(self, protein: str, passes: int) -> None:
        self.root = REAL / f"openfold_{protein}"
        self.passes = passes
        self.maps: dict[AttentionFile, NDArray[np.float32]] = {}
        self.representations: dict[tuple[str, int], NDArray[Any]] = {}
        for path in sorted(self.root.glob("attention_files_*/*.npz")):
            known = attention_file(path.stem)
            assert known is not None
            with np.load(path) as arrays:
                self.maps[known] = arrays["attn"]
        for path in sorted(self.root.glob("representations/*.npy")):
            match = REPRESENTATION.fullmatch(path.stem)
            assert match is not None
            self.representations[match["name"], int(match["number"])] = np.load(path)
        found = sorted(self.root.glob("predictions/*_output_dict.pkl"))
        self.outputs: dict[str, Any] = pickle.loads(found[0].read_bytes()) if found else {}
        self.blocks = 1 + max(one.number for one in self.maps)
        self.residues = next(iter(self.maps.values())).shape[-1]
        self.rows = len(self.outputs["msa"]) if found else 8

    def files(self) -> dict[str, bytes]:
        """Return the files of the last pass, without the pickle, which is not written again."""
        paths = (p for p in self.root.rglob("*") if p.is_file() and p.suffix != ".pkl")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}

    def model(self, replay: Replay) -> AlphaFold:
        """Return a model that gives what is in the files."""
        torch.manual_seed(0)
        model = AlphaFold(self.blocks, c_m=256, c_z=128, c_s=384).eval()
        model.evoformer.register_forward_pre_hook(replay.begin)
        for known, reference in self.maps.items():
            block = model.evoformer.blocks[known.number]
            maps = torch.from_numpy(self.all_maps(known, reference))
            replay.give(block.get_submodule(MODULES[str(known.kind.file)]), maps)
        for number, block in enumerate(model.evoformer.blocks):
            block.register_forward_hook(self.representing(number, replay))
        if self.outputs:
            structure = {name: torch.from_numpy(a) for name, a in self.outputs["sm"].items()}
            model.structure_module.register_forward_hook(lambda *_: structure)
        return model

    def all_maps(self, known: AttentionFile, reference: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the maps of all rows or residues, of which the file tells one, or the mean."""
        if known.kind.residue is not None and known.residue is None:
            return residue_maps(reference, self.residues)
        rows = self.rows if known.kind.residue is None else self.residues
        place = known.residue or 0
        return np.stack([np.roll(reference, row - place, axis=-1) for row in range(rows)])

    def representing(self, number: int, replay: Replay) -> Callable[..., Any]:
        """Return a hook that makes a block give the representations that are known of it."""
        ends = self.outputs if number == self.blocks - 1 else {}
        single = self.representations["single", number]
        pair = self.representations.get(("pair", number), ends.get("pair"))
        msa = ends.get("msa")

        def after(_: Any, __: Any, output: Any) -> Any:
            m, z = output
            if msa is not None:
                m.copy_(replay.of_pass(torch.from_numpy(msa)))
            m[0] = replay.of_pass(torch.from_numpy(single))
            return m, z if pair is None else replay.of_pass(torch.from_numpy(pair))

        return after


class Replay:
    """A softmax that gives, chunk by chunk, maps that lie ready; other ones before the last pass.

    Parameters
    ----------
    passes
        How many there will be.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
        self._left = passes
        self._pending: torch.Tensor | None = None
        self._original = openfold_model.softmax_no_cast
        monkeypatch.setattr(openfold_model, "softmax_no_cast", self._softmax)

    def begin(self, *_: Any) -> None:
        """Take note that a pass begins."""
        self._left -= 1

    def of_pass(self, values: torch.Tensor) -> torch.Tensor:
        """Return what is given in the place of *values* in the pass that is under way."""
        return values.flip(-1) if self._left else values.clone()

    def give(self, module: torch.nn.Module, maps: torch.Tensor) -> None:
        """Let the softmax within *module* give *maps*, each of them once a call."""

        def before(*_: Any) -> None:
            self._pending = self.of_pass(maps)

        def after(*_: Any) -> None:
            assert self._pending is not None
            assert not len(self._pending)
            self._pending = None

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def _softmax(self, t: torch.Tensor, dim: int = -1) -> torch.Tensor:
        if self._pending is None:
            made: torch.Tensor = self._original(t, dim)
            return made
        weights: torch.Tensor = self._pending[: len(t)]
        self._pending = self._pending[len(t) :]
        assert weights.shape == t.shape
        return weights


def held(run: RunView, name: str, layer: str, step: int) -> Any:
    return run.field(name, layer=layer).select({"step": step}).array()


@pytest.mark.parametrize(("protein", "passes"), [("1UBQ", 2), ("1G1J", 1)])
def test_what_is_recorded_equals_the_reference(
    protein: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 0 of the MSA; triangles of residue 18 (1UBQ), or their mean (1G1J); representations.

    And the tree of the run is the real folder: each text, map, representation, structure, sequence
    and timing, byte for byte. The mean over residues too: those maps are in no file, so that some
    are made that have it.
    """
    reference = Reference(protein, passes)
    files = reference.files()
    structure = next(name for name in files if name.endswith("_unrelaxed.pdb"))
    metadata = {
        "protein": protein,
        "prediction": Path(structure).stem.removesuffix("_unrelaxed"),
        "timings": json.loads(files["timings.json"]),
    }
    residue = next(one.residue for one in reference.maps if one.kind.residue)
    outputs = {n: torch.from_numpy(a) for n, a in reference.outputs.items() if n != "sm"}
    model = reference.model(Replay(monkeypatch, passes))
    store = open_store(f"memory://{uuid.uuid4().hex}")

    with (
        torch.no_grad(),
        TraceRecorder(store, "run", system="vizfold", metadata=metadata) as rec,
        attach(
            rec,
            model,
            keep=KEPT,
            attention=primitives,
            residues="mean" if residue is None else [residue],
        ) as attached,
    ):
        rec.inputs(fasta=np.frombuffer(files[f"{protein}.fasta"], np.uint8))
        model(torch.arange(reference.residues) % 20, rows=reference.rows, num_iters=passes)
        attached.outputs(outputs, pdb=files[structure])

    with Archive(store) as archive:
        run = archive.run("run")
        assert run.steps == tuple(range(passes))
        for step in run.steps:
            check_pass(run, reference, step)
        for name, value in outputs.items():
            if name != "num_recycles":
                found = run.field(name, place=Place.OUTPUTS).select({}).array()
                np.testing.assert_array_equal(found, value.numpy(), strict=True)
        tree = {
            f.path: b"".join(MadeFile(f).parts()) for f in export_tree(run, "openfold-tree").files
        }
    # Beside the real files, representations of blocks of which the reference has none.
    assert {path: tree.get(path) for path in files} == files
    assert all(re.search(r"_(msa|pair)_layer\d\.npy$", path) for path in tree.keys() - files)


def check_pass(run: RunView, reference: Reference, step: int) -> None:
    """Compare one pass with the reference, the last one, or what earlier ones gave."""
    last = step == reference.passes - 1
    for known, maps in reference.maps.items():
        layer = f"evoformer.blocks.{known.number}"
        found = held(run, known.field, layer, step)
        if known.residue is not None:
            assert held(run, known.kind.residues, layer, step).tolist() == [known.residue]
            (found,) = found
        expected = maps if last else maps[..., ::-1]
        np.testing.assert_array_equal(found, expected, strict=True)
    for (name, number), values in reference.representations.items():
        found = held(run, name, f"evoformer.blocks.{number}", step)
        np.testing.assert_array_equal(found, values if last else values[..., ::-1], strict=True)
    if reference.outputs:
        layer = f"evoformer.blocks.{reference.blocks - 1}"
        for name in ("msa", "pair"):
            np.testing.assert_array_equal(
                held(run, name, layer, step), reference.outputs[name], strict=True
            )
        for name, values in reference.outputs["sm"].items():
            np.testing.assert_array_equal(
                held(run, name, "structure_module", step), values, strict=True
            )


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_a_mean_over_residues_is_upstreams_to_the_bit(
    chunk_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream puts the chunks together and takes NumPy's mean; float32 sums depend on order."""
    residues = 43
    torch.manual_seed(0)
    maps = torch.softmax(6 * torch.randn(residues, 4, residues, residues), -1)
    model = AlphaFold(2).eval()
    model.chunk_size = chunk_size
    replay = Replay(monkeypatch, 0)
    replay.give(model.evoformer.blocks[1].get_submodule("pair_stack.tri_att_start"), maps)
    store = open_store(f"memory://{uuid.uuid4().hex}")

    with (
        torch.no_grad(),
        TraceRecorder(store, "run", system="vizfold") as rec,
        attach(rec, model, keep=(), layers=[1], attention=primitives),
    ):
        model(torch.arange(residues) % 20, num_iters=1)

    with Archive(store) as archive:
        found = held(archive.run("run"), "triangle_start_attention_mean", "evoformer.blocks.1", 0)
    np.testing.assert_array_equal(found, maps.numpy().mean(axis=0), strict=True)
