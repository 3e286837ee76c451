"""Any dtype, shape, tile, batch, block and codec: what goes in comes out of zarr-python."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from archive_schema.models import Codec
from archive_schema.store import open_store
from recorder import TraceRecorder
from recorder.maintenance import verify_run
from tests.recorder.reading import zarr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES: Final = st.sampled_from(
    ["bool", "int8", "uint8", "int32", "uint64", "float16", "float32", "float64", "<U3", "S2"]
)
CODECS: Final = st.one_of(
    st.none(),
    st.builds(Codec, name=st.just("raw")),
    st.builds(Codec, name=st.just("zstd"), level=st.integers(1, 5)),
    st.builds(
        Codec,
        name=st.just("blosc"),
        compressor=st.sampled_from(["zstd", "lz4"]),
        shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
    ),
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[NDArray[Any], int, list[slice]]:
    """Draw all values of a field, the size of a tile, and batches that make it up, shuffled."""
    samples = draw(st.integers(1, 12))
    tail = draw(st.lists(st.integers(0, 5), max_size=3))
    shape = (draw(st.integers(1, 3)), samples, *tail)
    values = draw(hnp.arrays(np.dtype(draw(DTYPES)), shape))
    tile = draw(st.integers(1, samples))
    cuts = draw(st.sets(st.sampled_from(range(0, samples, tile))))
    bounds = sorted({0, *cuts, samples})
    batches = [slice(a, b) for a, b in pairwise(bounds)]
    return values, tile, draw(st.permutations(batches))


@given(drawn=runs(), codec=CODECS, lengths=st.sampled_from(["declared", "open"]))
@settings(max_examples=120, deadline=None)
def test_what_goes_in_comes_out(
    drawn: tuple[NDArray[Any], int, list[slice]], codec: Codec | None, lengths: str
) -> None:
    """Every block, checksum and commit agrees as well."""
    values, tile, batches = drawn
    # Without declared samples, a batch is taken to be short only if nothing follows it.
    declared = {"steps": len(values), "samples": values.shape[1]} if lengths == "declared" else {}
    ordered = batches if declared else sorted(batches, key=lambda batch: batch.start)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        with TraceRecorder(store, "r", tile=tile, **declared) as rec:
            if codec is not None:
                rec.declare("x", codec=codec)
            for samples in ordered:
                for step, whole in enumerate(values):
                    rec.record(step, samples=samples, x=whole[samples])

        read = zarr_array(store, "r", "trace/x")
        assert verify_run(store, "r").found == ()
    assert read.shape == values.shape
    assert read.dtype == values.dtype
    assert read.tobytes() == values.tobytes()
