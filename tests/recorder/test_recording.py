"""What is recorded is what every Zarr reader gives back."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import torch
import xarray as xr

from archive_schema.models import Codec, Place, RunStatus
from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder import TraceRecorder
from tests.recorder.reading import committed, zarr_array

if TYPE_CHECKING:
    from pathlib import Path

    from archive_schema.store import Store

RANDOM: Final = np.random.default_rng(7)
STEPS, SAMPLES, LENGTH = 4, 25, 7
TOKENS: Final = RANDOM.integers(0, 4, (STEPS, SAMPLES, LENGTH))
SCORES: Final = RANDOM.normal(size=(STEPS, SAMPLES, LENGTH, 4)).astype("float16")


def batches(size: int) -> list[slice]:
    return [slice(start, min(start + size, SAMPLES)) for start in range(0, SAMPLES, size)]


def record_all(
    store: Store | str, run: str = "r", order: list[slice] | None = None, **options: Any
) -> None:
    declared = {"system": "d3-dna", "steps": STEPS, "samples": SAMPLES, **options}
    with TraceRecorder(store, run, **declared) as rec:
        for samples in order or batches(10):
            for n in range(STEPS):
                rec.record(
                    n, samples=samples, timestep=1 - n / STEPS, sequence=TOKENS[n, samples],
                    score_matrix=SCORES[n, samples],
                )  # fmt: skip


def test_every_kind_of_store_gives_back_what_was_recorded(store: Store) -> None:
    record_all(store)

    np.testing.assert_array_equal(zarr_array(store, "r", "trace/score_matrix"), SCORES)
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/sequence"), TOKENS)
    np.testing.assert_array_equal(zarr_array(store, "r", "trace/timestep"), [1, 0.75, 0.5, 0.25])
    assert zarr_array(store, "r", "trace/recorded").all()
    assert len(committed(store, "r")) == 2 * STEPS * 3
    assert RunRecords(store, "r").status() is RunStatus.SEALED


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_batches_come_in_any_order(folder_store: Store, order: tuple[int, ...]) -> None:
    """Also the short one first, once the size of a tile is said."""
    record_all(folder_store, order=[batches(10)[at] for at in order], tile=10)

    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/score_matrix"), SCORES)


def test_a_batch_may_be_several_tiles(folder_store: Store) -> None:
    record_all(folder_store, order=[slice(0, 20), slice(20, 25)], tile=5)

    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/sequence"), TOKENS)
    assert len(committed(folder_store, "r")) == 2 * STEPS * 5


def test_without_samples_an_array_holds_all_of_them(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", steps=STEPS, samples=SAMPLES) as rec:
        for n in range(STEPS):
            rec.record(n, x=SCORES[n])

    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/x"), SCORES)


def test_xarray_opens_a_sealed_run_with_its_coordinates(tmp_path: Path) -> None:
    """By step number and sample, and the coordinates are coordinates."""
    record_all(str(tmp_path))

    trace = xr.open_zarr(tmp_path / "runs/r/trace.zarr", group="trace", consolidated=True)

    picked = trace.score_matrix.sel(step=2, sample=slice(3, 5))
    np.testing.assert_array_equal(picked, SCORES[2, 3:6])
    assert trace.score_matrix.dims == ("step", "sample", "position", "channel")
    assert "timestep" in trace.coords
    tree = xr.open_datatree(tmp_path / "runs/r/trace.zarr", engine="zarr", consolidated=True)
    assert tree["trace/sequence"].shape == TOKENS.shape


def test_xarray_opens_a_run_while_it_is_recorded(tmp_path: Path) -> None:
    with TraceRecorder(str(tmp_path), "r", system="d3-dna", steps=STEPS, samples=SAMPLES) as rec:
        rec.record(1, score_matrix=SCORES[1])
        rec.record(0, layer="blocks.0", output=SCORES[0, :, 0])
        rec.flush()

        live = tmp_path / "runs/r/trace.zarr"
        trace = xr.open_zarr(live, group="trace", consolidated=False)
        np.testing.assert_array_equal(trace.score_matrix.sel(step=1), SCORES[1])
        xr.open_datatree(live, engine="zarr", consolidated=False).close()


def test_tensorstore_reads_what_was_recorded(tmp_path: Path) -> None:
    record_all(str(tmp_path))

    for name, expected in (("score_matrix", SCORES), ("sequence", TOKENS)):
        path = f"{tmp_path}/runs/r/trace.zarr/trace/{name}/"
        opened = tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        ).result()
        np.testing.assert_array_equal(opened.read().result(), expected)


def test_lengths_that_are_not_declared_grow_and_are_trimmed(store: Store) -> None:
    """A live reader sees a capacity, a reader of the sealed run what was recorded."""
    with TraceRecorder(store, "r") as rec:
        for start in range(0, 180, 20):
            samples = slice(start, start + 20)
            rec.record(150, samples=samples, x=np.full((20, 2), start))
        rec.record(3, samples=slice(180, 190), x=np.full((10, 2), 180), t=0.5)
        rec.flush()
        assert zarr_array(store, "r", "trace/x").shape == (256, 256, 2)

    values = zarr_array(store, "r", "trace/x")
    assert values.shape == (151, 190, 2)
    assert values[3, 180:].tolist() == [[180, 180]] * 10
    np.testing.assert_array_equal(values[150, :180, 0], np.arange(180) // 20 * 20)
    recorded = zarr_array(store, "r", "trace/recorded")
    assert recorded.sum() == 190
    assert recorded[150, :180].all()
    assert recorded[3, 180:].all()
    times = zarr_array(store, "r", "trace/t")
    assert times[3] == 0.5
    assert np.isnan(times[:3]).all()


def test_sparse_steps_lie_side_by_side(folder_store: Store) -> None:
    """Position p is the p-th declared step."""
    with TraceRecorder(folder_store, "r", steps=[0, 10, 500], samples=2) as rec:
        rec.record(500, x=np.array([1.0, 2.0]), t=5.0)
        rec.record(0, x=np.array([3.0, 4.0]))

    assert zarr_array(folder_store, "r", "trace/step").tolist() == [0, 10, 500]
    values = zarr_array(folder_store, "r", "trace/x")
    assert values[[0, 2]].tolist() == [[3, 4], [1, 2]]
    assert np.isnan(values[1]).all()
    assert zarr_array(folder_store, "r", "trace/recorded")[:, 0].tolist() == [True, False, True]


def test_a_field_may_be_recorded_every_few_steps(tmp_path: Path) -> None:
    """It lies in a sibling group, whose steps are those of the run."""
    with TraceRecorder(str(tmp_path), "r", steps=10, samples=2) as rec:
        rec.declare("rare", every=4, first=1)
        for n in range(10):
            rec.record(n, often=np.full(2, n), rare=np.full(2, n))

    tree = xr.open_datatree(tmp_path / "runs/r/trace.zarr", engine="zarr", consolidated=True)
    assert tree["trace/often"].shape == (10, 2)
    rare = tree["trace_every_4_from_1/rare"]
    assert rare["step"].to_numpy().tolist() == [1, 5, 9]
    np.testing.assert_array_equal(rare.sel(step=5), [5, 5])


def test_axes_get_names(folder_store: Store) -> None:
    """From the system, from the caller, or from their lengths."""
    with TraceRecorder(folder_store, "r", system="d3-dna", steps=1, samples=3) as rec:
        rec.declare("scalar_field", dims=())
        rec.declare("matrix", dims=("row", "column"))
        rec.record(
            0, sequence=np.zeros((3, 5), int), other=np.zeros((3, 5, 5, 2)),
            scalar_field=np.array(1, np.float32), matrix=np.eye(4),
        )  # fmt: skip

    specs = {f.spec.name: f.spec for f in RunRecords(folder_store, "r").ledger.fields.values()}
    assert specs["sequence"].dims == ("step", "sample", "position")
    assert specs["other"].dims == ("step", "sample", "dim_5", "dim_5_2", "dim_2")
    assert specs["matrix"].dims == ("step", "row", "column")
    assert specs["scalar_field"].dims == ("step",)
    assert zarr_array(folder_store, "r", "trace/matrix").tolist() == [np.eye(4).tolist()]
    assert zarr_array(folder_store, "r", "trace/scalar_field").tolist() == [1.0]


def test_a_field_may_change_its_shape_from_step_to_step(tmp_path: Path) -> None:
    """Each of its arrays has a group of its own, because their axes differ."""
    folder_store = open_store(tmp_path)
    with TraceRecorder(folder_store, "r", steps=3, samples=2) as rec:
        rec.declare("plates", ragged=True, dims=("plate", "well"))
        for n in range(3):
            rec.record(n, plates=np.full((n, 2), n, "float32"))

    for n in range(3):
        values = zarr_array(folder_store, "r", f"ragged/trace/plates/{n}/plates")
        assert values.shape == (n, 2)
        assert (values == n).all()
    tree = xr.open_datatree(tmp_path / "runs/r/trace.zarr", engine="zarr", consolidated=True)
    assert tree["ragged/trace/plates/2/plates"].dims == ("plate", "well")


def test_layers_inputs_and_outputs_have_their_places(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", system="d3-dna", steps=2, samples=4, tile=2) as rec:
        rec.inputs(original_samples=TOKENS[0, :4], temperature=0.7, table=[[1, 2], [3, 4]])
        for start in (0, 2):
            samples = slice(start, start + 2)
            rec.record(1, samples=samples, layer="a/b", output=SCORES[1, samples])
            rec.outputs(samples=samples, final_sequence=TOKENS[1, samples])
        rec.sample_coordinates(label=[0.5, 1.5, 2.5, 3.5], name=["a", "bb", "", "dddd"])

    read = {path: zarr_array(folder_store, "r", path) for path in (
        "inputs/original_samples", "inputs/temperature", "inputs/table", "layers/a%2Fb/output",
        "outputs/final_sequence", "trace/label", "trace/name",
    )}  # fmt: skip
    np.testing.assert_array_equal(read["inputs/original_samples"], TOKENS[0, :4])
    assert read["inputs/temperature"] == 0.7
    assert read["inputs/table"].tolist() == [[1, 2], [3, 4]]
    np.testing.assert_array_equal(read["layers/a%2Fb/output"][1], SCORES[1, :4])
    np.testing.assert_array_equal(read["outputs/final_sequence"], TOKENS[1, :4])
    assert read["trace/label"].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert read["trace/name"].tolist() == ["a", "bb", "", "dddd"]


VALUES: Final = {
    "bool": np.array([[True, False], [False, True]]),
    "int8": np.array([[-128, 127], [0, -1]], np.int8),
    "uint64": np.array([[2**64 - 1, 0], [1, 2]], np.uint64),
    "int64": np.array([[-(2**63), 2**63 - 1], [0, 1]]),
    "float16": np.array([[np.nan, np.inf], [-np.inf, -0.0]], np.float16),
    "float32": np.array([[np.nan, 1e-45], [3.4e38, -0.0]], np.float32),
    "float64": np.array([[np.nan, 5e-324], [-np.inf, 0.1]]),
    "text": np.array([["a", "ßü"], ["", "abcdef"]]),
    "bytes": np.array([[b"a", b"\xff"], [b"", b"abc"]]),
    "empty": np.zeros((2, 0, 3), np.float32),
    "big-endian": np.arange(4, dtype=">f4").reshape(2, 2),
    "strided": np.arange(16, dtype=np.int32).reshape(4, 4)[::2, ::-2],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "read-only": np.broadcast_to(np.arange(3.0), (2, 3)),
}


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.filterwarnings("ignore:The data type")
def test_every_dtype_survives_bit_by_bit(folder_store: Store, kind: str) -> None:
    values = VALUES[kind]

    with TraceRecorder(folder_store, "r", steps=1, samples=2) as rec:
        rec.record(0, x=values)

    read = zarr_array(folder_store, "r", "trace/x")[0]
    assert read.shape == values.shape
    assert read.dtype == values.dtype.newbyteorder("=")
    assert np.ascontiguousarray(read).tobytes() == values.astype(read.dtype).tobytes()


def test_shorter_texts_fit_a_field_of_longer_ones(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", steps=2, samples=2) as rec:
        rec.record(0, name=np.array(["abc", "d"]))
        rec.record(1, name=np.array(["e", "f"]))

    assert zarr_array(folder_store, "r", "trace/name").tolist() == [["abc", "d"], ["e", "f"]]


NARROW: Final = [
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu",
]  # fmt: skip


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("storage", ["widen", "bits"])
@pytest.mark.parametrize("library", ["torch", "ml_dtypes"])
def test_narrow_floats_keep_every_code(
    folder_store: Store, name: str, storage: Any, library: str
) -> None:
    """Widened or as bits, each of their codes comes back exactly."""
    bits = np.arange(65536, dtype=np.uint16) if name == "bfloat16" else np.arange(256, dtype="u1")
    narrow = bits.view(getattr(ml_dtypes, name))
    given = torch.from_numpy(bits).view(getattr(torch, name)) if library == "torch" else narrow

    with TraceRecorder(folder_store, "r", steps=1, samples=len(bits)) as rec:
        rec.declare("x", storage=storage)
        rec.record(0, x=given)

    (spec,) = (field.spec for field in RunRecords(folder_store, "r").ledger.fields.values())
    assert spec.source_dtype == name
    read = zarr_array(folder_store, "r", "trace/x")[0]
    if storage == "bits":
        np.testing.assert_array_equal(read, bits)
    else:
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(read, narrow.astype(read.dtype))


def test_tensors_are_recorded_as_they_are(folder_store: Store) -> None:
    """With a gradient, of another layout, negated lazily, or under inference mode."""
    base = torch.arange(12.0).reshape(3, 4)
    with TraceRecorder(folder_store, "r", steps=1, samples=4) as rec:
        with torch.inference_mode():
            inference = base.T * 2
        rec.record(
            0, grad=base.T.clone().requires_grad_(), transposed=base.T, inference=inference,
            negated=torch.complex(base, base).T.conj().imag,
        )  # fmt: skip

    for name, expected in (
        ("grad", base.T), ("transposed", base.T), ("inference", base.T * 2), ("negated", -base.T),
    ):  # fmt: skip
        np.testing.assert_array_equal(zarr_array(folder_store, "r", f"trace/{name}")[0], expected)


class HasDlpack:
    """An array of a library that offers nothing but DLPack."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> object:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class HasArray:
    """An array of a library that offers nothing but ``__array__``."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray[Any, Any]:
        return np.arange(3)


def test_arrays_of_any_library_are_recorded(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", steps=1, samples=3) as rec:
        rec.record(0, a=HasDlpack(np.arange(6.0).reshape(3, 2)), b=HasArray())

    assert zarr_array(folder_store, "r", "trace/a").tolist() == [[[0, 1], [2, 3], [4, 5]]]
    assert zarr_array(folder_store, "r", "trace/b").tolist() == [[0, 1, 2]]


def test_what_the_sampler_does_next_is_not_recorded(folder_store: Store) -> None:
    """A call copies; samplers update their state in place."""
    with TraceRecorder(folder_store, "r", steps=50, samples=1000) as rec:
        array, tensor = np.zeros(1000), torch.zeros(1000)
        for n in range(50):
            array[:] = n
            tensor.fill_(n)
            rec.record(n, array=array, tensor=tensor)
            array[:] = -1
            tensor.fill_(-1)

    expected = np.repeat(np.arange(50.0)[:, None], 1000, axis=1)
    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/array"), expected)
    np.testing.assert_array_equal(zarr_array(folder_store, "r", "trace/tensor"), expected)


def test_noise_of_a_layer_is_stored_raw_and_the_rest_compressed(folder_store: Store) -> None:
    """A codec that saves nothing costs CPU at every read."""
    noise = RANDOM.normal(size=(64, 512)).astype("float16")
    with TraceRecorder(folder_store, "r", steps=2, samples=64) as rec:
        rec.declare("settled", layer="blocks.0", codec=Codec(name="zstd", level=3))
        rec.record(0, layer="blocks.0", noise=noise, flat=np.zeros((64, 512)), settled=noise)

    assert codecs_of(folder_store) == {"noise": "raw", "flat": "blosc", "settled": "zstd"}
    read = zarr_array(folder_store, "r", "layers/blocks.0/noise")[0]
    np.testing.assert_array_equal(read, noise)


def test_noise_at_the_first_step_leaves_what_follows_compressed(folder_store: Store) -> None:
    """A sampler begins with noise and ends with structure; one codec serves both."""
    noise = RANDOM.normal(size=(64, 512)).astype("float16")
    with TraceRecorder(folder_store, "r", steps=2, samples=64) as rec:
        rec.inputs(noise_once=noise, samples=slice(0, 64))
        for n, half in enumerate((noise, np.zeros_like(noise))):
            rec.record(n, half=half, single=half.astype("float32"), whole=half.view("uint16"))

    assert codecs_of(folder_store) == {
        "half": "zstd",
        "single": "blosc",
        "whole": "blosc",
        "noise_once": "raw",
    }
    fields = RunRecords(folder_store, "r").ledger.fields
    first, last = (fields["trace/half"].tile(n, 0) for n in range(2))
    assert first is not None
    assert last is not None
    assert first.nbytes > 50 * last.nbytes


def codecs_of(store: Store) -> dict[str, str]:
    """Return the name of each field's codec."""
    fields = RunRecords(store, "r").ledger.fields.values()
    return {field.spec.name: field.spec.codec.name for field in fields}


def test_scalars_of_all_kinds_become_step_coordinates(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", steps=2, samples=1) as rec:
        rec.record(
            0, x=np.zeros(1), whole=3, real=0.5, flag=True, text="warm", narrow=np.float32(0.1),
            big=np.uint64(2**63), none=float("nan"), most=float("inf"),
        )  # fmt: skip
        rec.record(1, whole=4, real=1, flag=False, text="", none=0.0)

    names = ("whole", "real", "flag", "text", "narrow", "none", "most", "big")
    read = {name: zarr_array(folder_store, "r", f"trace/{name}") for name in names}
    assert read["whole"].tolist() == [3, 4]
    assert read["whole"].dtype == np.int64
    assert read["real"].tolist() == [0.5, 1.0]
    assert read["flag"].tolist() == [True, False]
    assert read["text"].tolist() == ["warm", ""]
    assert read["narrow"][0] == np.float32(0.1)
    assert np.isnan(read["narrow"][1])
    assert np.isnan(read["none"][0])
    assert np.isinf(read["most"][0])
    assert read["big"][0] == float(2**63)


def test_numbers_of_any_library_count(folder_store: Store) -> None:
    """Steps, samples and labels come from NumPy and torch too."""
    lengths: dict[str, Any] = {"steps": np.array([2, 4]), "samples": np.int32(3)}
    with TraceRecorder(folder_store, "r", **lengths) as rec:
        for n in torch.tensor([2, 4]):
            rec.record(n, samples=slice(np.int64(0), np.int64(3)), x=torch.full((3,), float(n)))
        rec.sample_coordinates(label=torch.tensor([7, 8, 9]), kind=("a", "b", "c"))

    assert zarr_array(folder_store, "r", "trace/x").tolist() == [[2] * 3, [4] * 3]
    assert zarr_array(folder_store, "r", "trace/label").tolist() == [7, 8, 9]


def test_places_may_be_declared_by_name(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", samples=4) as rec:
        rec.declare("final", place="outputs", dims=("sample", "base"))
        rec.outputs(final=np.ones((4, 2)))

    (field,) = RunRecords(folder_store, "r").ledger.fields.values()
    assert field.spec.place is Place.OUTPUTS
    assert field.spec.dims == ("sample", "base")
