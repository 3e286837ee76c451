"""A call that breaks a rule is refused at once, says what was expected, and records nothing."""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch

from archive_schema.errors import ArchiveError, ConflictError, ErrorKind, InvalidInputError
from archive_schema.models import Codec
from archive_schema.records import RunRecords
from recorder import TraceRecorder
from tests.recorder.reading import committed, objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store

X: Final = np.arange(20, dtype="float32").reshape(10, 2)
FIRST: Final = slice(0, 10)


@pytest.fixture
def rec(folder_store: Store) -> Iterator[TraceRecorder]:
    """Open a run of 5 steps and 25 samples, of which one tile is recorded."""
    with TraceRecorder(folder_store, "r", system="d3-dna", steps=5, samples=25) as opened:
        opened.record(0, samples=FIRST, x=X, t=0.5)
        opened.flush()
        yield opened


def masked() -> object:
    return np.ma.masked_array(X, X > 3)


CALLS: Final[dict[str, tuple[dict[str, Any], ErrorKind, str]]] = {
    "step beyond the axis": ({"n": 5, "x": X}, ErrorKind.SELECTION_OUT_OF_BOUNDS, r"5\), got 5"),
    "negative step": ({"n": -1, "x": X}, ErrorKind.SELECTION_OUT_OF_BOUNDS, "got -1"),
    "step of a wrong type": ({"n": 1.0, "x": X}, ErrorKind.INVALID_PARAMETER, "float 1.0"),
    "step is a truth value": ({"n": True, "x": X}, ErrorKind.INVALID_PARAMETER, "got bool True"),
    "other dtype": ({"x": X.astype("float64")}, ErrorKind.DTYPE_MISMATCH, "float32, got float64"),
    "other shape": ({"x": X[:, :1]}, ErrorKind.SHAPE_MISMATCH, r"\(samples, 2\), got \(10, 1\)"),
    "other rank": ({"x": X[0]}, ErrorKind.SHAPE_MISMATCH, r"got \(2,\)"),
    "0-d": ({"x": np.array(1, "float32")}, ErrorKind.SHAPE_MISMATCH, r"got \(\)"),
    "fewer samples than said": ({"x": X[:9]}, ErrorKind.SHAPE_MISMATCH, "expected 10 samples"),
    "not on tiles": (
        {"samples": slice(5, 15), "x": X}, ErrorKind.TILE_MISALIGNED, r"of 10.* got \[5, 15\)",
    ),
    "short in the middle": (
        {"samples": slice(0, 5), "x": X[:5]}, ErrorKind.TILE_MISALIGNED, r"got \[0, 5\)",
    ),
    "beyond the samples": (
        {"samples": slice(20, 30), "x": X}, ErrorKind.SELECTION_OUT_OF_BOUNDS, r"\[20, 30\)",
    ),
    "backwards": (
        {"samples": slice(10, 0), "x": X}, ErrorKind.SELECTION_OUT_OF_BOUNDS, r"\[10, 0\)",
    ),
    "no samples": (
        {"samples": slice(5, 5), "x": X[:0]}, ErrorKind.SELECTION_OUT_OF_BOUNDS, r"\[5, 5\)",
    ),
    "every other sample": (
        {"samples": slice(0, 20, 2), "x": X}, ErrorKind.INVALID_PARAMETER, "slice",
    ),
    "open end": (
        {"samples": slice(0, None), "x": X}, ErrorKind.INVALID_PARAMETER, "end of the samples",
    ),
    "samples as a number": ({"samples": 3, "x": X}, ErrorKind.INVALID_PARAMETER, "got 3"),
    "all samples, but fewer": (
        {"samples": None, "x": X}, ErrorKind.SHAPE_MISMATCH, "all 25 samples, got 10",
    ),
    "other value of a coordinate": (
        {"n": 0, "t": 0.6}, ErrorKind.COORDINATE_DIFFERS, "expected 0.5.* got 0.6",
    ),
    "text for a number": ({"n": 1, "t": "a"}, ErrorKind.COORDINATE_DIFFERS, "float64 values"),
    "too large an integer": ({"n": 1, "k": 2**70}, ErrorKind.VALUE_OUT_OF_RANGE, "64-bit"),
    "array named like a coordinate": ({"t": X}, ErrorKind.INVALID_NAME, "'t' is a coordinate"),
    "coordinate named like an array": ({"x": 0.5}, ErrorKind.INVALID_NAME, "'x' is a field"),
    "name of an axis": ({"step": X}, ErrorKind.INVALID_NAME, "'step'"),
    "name of a mask": ({"x_recorded": X}, ErrorKind.INVALID_NAME, "'x_recorded'"),
    "coordinate named like a mask": ({"recorded": 1}, ErrorKind.INVALID_NAME, "'recorded'"),
    "no name": ({"a b": X}, ErrorKind.INVALID_NAME, "'a b'"),
    "nothing": ({"y": None}, ErrorKind.DTYPE_MISMATCH, "'y'.* got NoneType"),
    "a list": ({"y": [1, 2]}, ErrorKind.DTYPE_MISMATCH, "got list"),
    "a dict": ({"y": {"a": X}}, ErrorKind.DTYPE_MISMATCH, "got dict"),
    "a decimal": ({"y": decimal.Decimal(1)}, ErrorKind.DTYPE_MISMATCH, "got Decimal"),
    "objects": ({"y": np.array([object()] * 10)}, ErrorKind.DTYPE_MISMATCH, "got object"),
    "complex": ({"y": X.astype(complex)}, ErrorKind.DTYPE_MISMATCH, "got complex128"),
    "long double": ({"y": X.astype(np.longdouble)}, ErrorKind.DTYPE_MISMATCH, "got float128"),
    "dates": ({"y": X.astype("datetime64[s]")}, ErrorKind.DTYPE_MISMATCH, "got datetime64"),
    "records": (
        {"y": np.zeros(10, [("a", "f4"), ("b", "i4")])}, ErrorKind.DTYPE_MISMATCH, "got void",
    ),
    "a mask": ({"y": masked()}, ErrorKind.DTYPE_MISMATCH, "without a mask"),
    "a sparse tensor": (
        {"y": torch.eye(10).to_sparse()}, ErrorKind.DTYPE_MISMATCH, "got a torch.sparse_coo",
    ),
    "a tensor without values": (
        {"y": torch.empty(10, device="meta")}, ErrorKind.DTYPE_MISMATCH, "got a meta one",
    ),
    "another length along a named axis": (
        {"sequence": X.astype(int), "score_matrix": np.zeros((10, 3, 4))},
        ErrorKind.SHAPE_MISMATCH, "expected 2 along 'position', as field 'sequence' has, got 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CALLS))
def test_a_wrong_call_records_nothing(rec: TraceRecorder, folder_store: Store, case: str) -> None:
    """Also not its other arguments: `good` is right in each of these calls."""
    arguments, kind, message = CALLS[case]
    call = {"n": 1, "samples": FIRST, **arguments}

    with pytest.raises(ArchiveError, match=message) as caught:
        rec.record(**call, good=np.zeros(10))

    assert caught.value.kind is kind
    rec.flush()
    assert set(committed(folder_store, "r")) == {("trace/x", 0, 0)}
    rec.record(1, samples=FIRST, x=X)  # the recorder still works


def test_token_ids_beyond_a_byte_end_the_recording(folder_store: Store) -> None:
    """They are seen in the background only: at the next call, or here at the end."""
    with pytest.raises(InvalidInputError, match=r"token ids in \[0, 255\], got 0 to 300") as caught:
        with TraceRecorder(folder_store, "r", system="d3-dna", steps=1, samples=2) as rec:
            rec.record(0, sequence=np.array([[0, 1], [2, 300]]))

    assert caught.value.kind is ErrorKind.VALUE_OUT_OF_RANGE
    assert not any(f.count for f in RunRecords(folder_store, "r").ledger.fields.values())


OPENINGS: Final[dict[str, tuple[dict[str, Any], ErrorKind]]] = {
    "run id": ({"run": "a/b"}, ErrorKind.INVALID_NAME),
    "run id with an ending": ({"run": "x.h5"}, ErrorKind.INVALID_NAME),
    "writer": ({"writer": "a/b"}, ErrorKind.INVALID_NAME),
    "system": ({"system": "none"}, ErrorKind.INVALID_PARAMETER),
    "steps that fall": ({"steps": [3, 1]}, ErrorKind.INVALID_PARAMETER),
    "negative steps": ({"steps": -1}, ErrorKind.INVALID_PARAMETER),
    "steps as a text": ({"steps": "abc"}, ErrorKind.INVALID_PARAMETER),
    "steps as a float": ({"steps": 3.0}, ErrorKind.INVALID_PARAMETER),
    "deadline": ({"deadline_s": -1.0}, ErrorKind.INVALID_PARAMETER),
    "samples": ({"samples": -1}, ErrorKind.INVALID_PARAMETER),
    "tile": ({"tile": 0}, ErrorKind.INVALID_PARAMETER),
    "metadata": ({"metadata": {"a": object()}}, ErrorKind.INVALID_PARAMETER),
    "durability": ({"durability": "tape"}, ErrorKind.INVALID_PARAMETER),
    "on_error": ({"on_error": "cry"}, ErrorKind.INVALID_PARAMETER),
    "store": ({"store": "ftp://x"}, ErrorKind.STORE_URL_INVALID),
}


@pytest.mark.parametrize("case", list(OPENINGS))
def test_a_wrong_declaration_is_refused_before_anything_is_written(
    folder_store: Store, case: str
) -> None:
    arguments, kind = OPENINGS[case]

    with pytest.raises(InvalidInputError) as caught:
        TraceRecorder(**{"store": folder_store, "run": "r", **arguments})

    assert caught.value.kind is kind
    assert list(folder_store.objects("runs")) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1], [2]], r"got int64 of shape \(2, 1\)"),
        ([1, 2, 3], "expected 2 values, got 3"),
        ([object(), object()], "got object"),
        ([b"a", b"b"], "one number or text"),
    ],
)
def test_a_sample_coordinate_is_one_value_a_sample(
    rec: TraceRecorder, values: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        rec.sample_coordinates(samples=slice(3, 5), label=values)

    assert caught.value.kind is ErrorKind.SHAPE_MISMATCH


def test_a_sample_coordinate_keeps_its_first_value(rec: TraceRecorder) -> None:
    rec.sample_coordinates(label=[1.0, float("nan")])
    rec.sample_coordinates(label=[1.0, float("nan"), 3.0])

    with pytest.raises(ConflictError, match=r"at sample 0: expected 1\.0.* got 2\.0") as caught:
        rec.sample_coordinates(label=[2.0])

    assert caught.value.kind is ErrorKind.COORDINATE_DIFFERS
    with pytest.raises(InvalidInputError, match="sample coordinate already"):
        rec.record(0, label=1.0)
    with pytest.raises(InvalidInputError, match="step coordinate already"):
        rec.sample_coordinates(t=[1.0])
    with pytest.raises(InvalidInputError, match="is a field already"):
        rec.sample_coordinates(x=[1.0])


@pytest.mark.parametrize(
    "options",
    [
        {"dims": ("sample", "width")}, {"every": 2}, {"ragged": True}, {"storage": "bits"},
        {"codec": Codec(name="zstd", level=9)}, {"tokens": True, "name": "sequence"},
    ],
)  # fmt: skip
def test_a_field_is_not_declared_otherwise_later(
    rec: TraceRecorder, options: dict[str, Any]
) -> None:
    rec.record(1, samples=FIRST, half=torch.zeros(10, 2, dtype=torch.bfloat16))
    rec.declare("half")
    name = options.pop("name", "half")
    if name == "sequence":
        rec.record(1, samples=FIRST, other=np.zeros((10, 2), int))
        name = "other"

    with pytest.raises(ConflictError, match="declared otherwise") as caught:
        rec.declare(name, **options)

    assert caught.value.kind is ErrorKind.FIELD_DIFFERS


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"first": -1}, {"tile": 0}, {"storage": "tape"}, {"name": "a b"}]
)
def test_declarations_are_checked(rec: TraceRecorder, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        rec.declare(**{"name": "y", **options})


def test_blocks_divide_tiles(rec: TraceRecorder) -> None:
    rec.declare("y", block=(3, 2))

    with pytest.raises(InvalidInputError, match="divide tiles") as caught:
        rec.record(0, samples=FIRST, y=X)

    assert caught.value.kind is ErrorKind.SHAPE_MISMATCH


def test_a_recorder_is_entered_once_and_used_inside(folder_store: Store) -> None:
    rec = TraceRecorder(folder_store, "r", samples=10)
    with pytest.raises(RuntimeError, match="with statement"):
        rec.record(0, x=X)
    assert objects(folder_store, "r") == {}

    with rec:
        rec.record(0, x=X)
    with pytest.raises(RuntimeError, match="entered once"), rec:
        pass
    with pytest.raises(ConflictError) as caught:
        rec.record(0, x=X)

    assert caught.value.kind is ErrorKind.RUN_SEALED


def test_a_closed_recorder_takes_nothing(folder_store: Store) -> None:
    with TraceRecorder(folder_store, "r", samples=10, seal_at_exit=False) as rec:
        rec.close()
        rec.close()
        with pytest.raises(RuntimeError, match="closed"):
            rec.record(0, x=X)
