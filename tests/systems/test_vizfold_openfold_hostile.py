"""Nothing in a pickle or a torch file runs, and no length in it is believed."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, floating_dtypes, integer_dtypes

from archive_schema.errors import InvalidInputError
from archive_schema.store import open_store
from archive_schema.systems.attention_text import parse_attention_text
from recorder.importers import import_file
from recorder.importers.foreign import open_foreign
from recorder.importers.vizfold.pickles import read_pickle
from recorder.importers.vizfold.torch_file import read_torch

if TYPE_CHECKING:
    from pathlib import Path


class Calls:
    """Pickles as a call of some function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def ops(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


FROMBUFFER = text("numpy._core.numeric") + text("_frombuffer") + b"\x93"
FLOAT = text("numpy") + text("dtype") + b"\x93" + text("f4") + b"\x85R"
STATE = b"(K\x01K\x03" + FLOAT + b"\x89C\x08" + bytes(8) + b"t"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(Calls(os.system, "false")), "it names posix.system"),
        (pickle.dumps(Calls(eval, "1")), "it names builtins.eval"),
        (pickle.dumps({"x": np.array([object()])}), "only arrays and numbers"),
        (pickle.dumps({"x": np.array(["text"])}), "expected an array of numbers, found dtype"),
        (pickle.dumps({"x": 1j}), "it names builtins.complex"),
        (pickle.dumps({("a", 1): 1}), "expected names or numbers as keys"),
        (pickle.dumps({"x": {1, 2}}), "it holds EMPTY_SET"),
        (pickle.dumps({"x": np.zeros(3)})[:-20], "expected a pickle"),
        (b"no pickle at all", "expected a pickle"),
        (b"", "expected a pickle"),
        # 2**62 bytes that are not there, and 2**31 places in a memo.
        (ops(b"\x96", struct.pack("<Q", 2**62)), "expected a pickle"),
        (ops(b"N", b"r", struct.pack("<I", 2**31)), "it remembers 2147483648 things"),
        (
            ops(FROMBUFFER, b"(C\x04", bytes(4), FLOAT, b"K\x02\x85", text("C"), b"tR"),
            "4 bytes are",
        ),
        # A state for what has none, and another one for an array.
        (ops(FROMBUFFER, b"}", text("call"), b"Nsb"), "it sets a state"),
        (ops(text("numpy"), text("ndarray"), b"\x93)R", STATE, b"b"), "8 bytes are no"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_pickle(io.BytesIO(data))


def test_arrays_that_were_pickled_out_of_band_are_missed() -> None:
    data = pickle.dumps(np.zeros(3), protocol=5, buffer_callback=lambda _: None)

    with pytest.raises(InvalidInputError, match="pickled out of band"):
        read_pickle(io.BytesIO(data))


def test_a_pickle_that_repeats_itself_is_not_followed_for_ever() -> None:
    """Seven lists of ten, each holding the one before: ten million values in 200 bytes."""
    nested: Any = [0.0]
    for _ in range(7):
        nested = [nested] * 10

    with pytest.raises(InvalidInputError, match="expected at most 100000 values"):
        read_pickle(io.BytesIO(pickle.dumps(nested)))


numbers = st.one_of(floating_dtypes(endianness="?"), integer_dtypes(endianness="?"))


@given(
    st.dictionaries(
        st.text(max_size=5),
        arrays(numbers, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
        max_size=3,
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_arrays_and_numbers_come_through_every_protocol(
    known: dict[str, Any],
    protocol: int,
    ordered: bool,  # noqa: FBT001
) -> None:
    """As NumPy 2 names its functions, and as NumPy 1 did."""
    given_: Any = {"arrays": OrderedDict(known) if ordered else known, "n": [1, 2.5, None]}
    given_["turned"] = np.arange(6.0).reshape(2, 3).T
    data = pickle.dumps(given_, protocol)
    older = data.replace(b"numpy._core.", b"numpy.core.") if protocol < 2 else data

    for one in (data, older):
        found: Any = read_pickle(io.BytesIO(one))

        assert found["n"] == {"0": 1, "1": 2.5, "2": None}
        np.testing.assert_array_equal(found["turned"], given_["turned"])
        assert found["arrays"].keys() == known.keys()
        for name, values in known.items():
            little = values.astype(values.dtype.newbyteorder("<"))
            np.testing.assert_array_equal(found["arrays"][name], little, strict=True)


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def rewritten(path: Path, name: str, data: bytes) -> Path:
    """Return the torch file *path* with another member *name*."""
    with zipfile.ZipFile(path) as had:
        members = {info.filename: had.read(info) for info in had.infolist()}
    with zipfile.ZipFile(path, "w") as made:
        for member, content in members.items():
            made.writestr(member, data if member.endswith(name) else content)
    return path


def read(path: Path) -> Any:
    with open_foreign(str(path)) as file:
        return read_torch(file)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float32, torch.float64, torch.int8, torch.int64, torch.bool],
)
def test_tensors_are_read_without_torch(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    given_ = {"view": whole[:, 1:, ::2], "turned": whole.transpose(0, 2), "scalar": whole[1, 2, 3]}

    found = read(
        saved(tmp_path / "x.pt", {**given_, "parameter": torch.nn.Parameter(torch.ones(2))})
    )

    for name, tensor in given_.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
    assert found["parameter"].tolist() == [1, 1]


def test_torch_files_that_lie_are_refused(tmp_path: Path) -> None:
    legacy = tmp_path / "legacy.pt"
    torch.save(torch.ones(2), legacy, _use_new_zipfile_serialization=False)
    cases = {
        "since torch 1.6": legacy,
        "it holds NEWOBJ|it names torch.nn": saved(tmp_path / "module.pt", torch.nn.ReLU()),
        "has no tensor of": rewritten(saved(tmp_path / "a.pt", torch.ones(9)), "data/0", bytes(8)),
        "it names os.system": rewritten(
            saved(tmp_path / "b.pt", torch.ones(9)), "data.pkl", b"cos\nsystem\n)R."
        ),
        "little-endian": rewritten(saved(tmp_path / "c.pt", torch.ones(9)), "byteorder", b"big"),
        "expected an NPZ file|its directory": saved(tmp_path / "d.pt", torch.ones(9)),
    }
    cut = tmp_path / "d.pt"
    cut.write_bytes(cut.read_bytes()[:-40])
    for message, path in cases.items():
        with pytest.raises(InvalidInputError, match=message):
            read(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: expected 'Layer 0, Head 0'"),
        (b"1 2 0.5\n", "line 1: expected 'Layer 0, Head 0'"),
        (b"Layer 0, Head 0\n1 2\n", "line 2: expected 'row column weight', found '1 2'"),
        (b"Layer 0, Head 0\n1 2 much\n", "expected row column weight"),
        (b"Layer 0, Head 0\n-1 2 0.5\n", "rows and columns that count from 0"),
        (b"Layer 0, Head 0\n1.5 2 0.5\n", "rows and columns that count from 0"),
        (b"Layer 0, Head 0\n1 2 0.5\nLayer 0, Head 0\n", "each head once"),
        (b"Layer 0, Head 0\n1 2 0.5\nLayer 1, Head 1\n1 1 1\n", "heads of one layer"),
        (b"Layer 0, Head 0\n1 2 0.5\nLayer 0 Head 1\n1 1 1\n", "in one spelling"),
        (b"Layer 0, Head 999999\n1 2 0.5\n", "expected 'Layer 0, Head 0'"),
    ],
)
def test_text_that_is_no_attention_says_where(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_attention_text(data)


def test_what_is_hostile_is_left_out_of_a_run_and_named(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "in").mkdir()
    hostile = pickle.dumps({"x": Calls(os.system, f"touch {marker}")})
    (tmp_path / "in/1ABC_1_model_1_output_dict.pkl").write_bytes(hostile)
    (tmp_path / "in/1ABC.fasta").write_text(">1ABC\nMQ\n")
    (tmp_path / "in/notes.docx").write_bytes(b"?")

    report = import_file("vizfold", tmp_path / "in", open_store(tmp_path / "store"), "run")

    assert not marker.exists()
    assert not report.sealed
    assert any("output_dict.pkl" in s and "posix.system" in s for s in report.odd)
    assert any("notes.docx" in sentence for sentence in report.odd)
