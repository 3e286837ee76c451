"""Byte ranges of a field, and the checksums that a ZIP needs of them."""

from __future__ import annotations

import uuid
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive_schema.errors import FormatError
from archive_schema.store import open_store
from server.exporters.checksum import values_crc32
from server.exporters.values import Values, cast_to
from server.exporters.virtual_file import CHUNK_NBYTES
from server.query import Archive
from tests.query.builder import Builder, spec_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 3


def matrix_run(
    archive: Archive, samples: int = 5, tile: int = 2, tail: tuple[int, ...] = (3,)
) -> NDArray[np.float32]:
    """Record float32 values at three steps; return them, shape (steps, samples, *tail)."""
    shape = (STEPS, samples, *tail)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    run = Builder(archive.store, steps=STEPS, samples=samples, uid=uuid.uuid4().hex)
    run.declare(spec_of("score", values[0], tile=tile))
    for step, at_step in enumerate(values):
        run.put_step("trace/score", at_step, step)
    run.seal()
    return values


def read(values: Values, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(values.read(start, values.nbytes if stop is None else stop))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_byte_range_is_that_of_the_array(data: st.DataObject) -> None:
    """Whatever is taken of steps and samples, whole or in part."""
    samples, tile = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    with Archive(open_store(f"memory://{uuid.uuid4().hex}")) as archive:
        recorded = matrix_run(archive, samples, tile)
        field = archive.run("run").field("score")
        steps = data.draw(
            st.one_of(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=4).map(tuple))
        )
        start, stride = (
            data.draw(st.integers(0, samples - 1)),
            data.draw(st.sampled_from((1, 2, -1))),
        )
        taken = range(start, samples, stride) if stride > 0 else range(start, -1, -1)
        values = Values(field, steps, taken)
        expected = recorded[steps if isinstance(steps, int) else list(steps)]
        expected = expected[..., list(taken), :]
        begin = data.draw(st.integers(0, values.nbytes))
        end = data.draw(st.integers(begin, values.nbytes))

        assert values.shape == expected.shape
        assert read(values, begin, end) == expected.tobytes()[begin:end]
        assert values_crc32(values) == zlib.crc32(expected.tobytes())


def test_a_range_reads_no_more_than_the_tiles_it_needs(archive: Archive) -> None:
    """Shown by losing the others."""
    recorded = matrix_run(archive, tail=(3, 4000))
    run = archive.run("run")
    lost = [o.key for o in archive.store.objects("runs/run/trace.zarr") if "/c.1.1." not in o.key]
    for key in lost:
        archive.store.delete(key)
    values = Values(run.field("score"), (0, 1, 2))
    row = recorded[0, 0].nbytes
    start = row * 5 + row * 2  # step 1, sample 2: the first of its second tile

    assert lost
    assert read(values, start + 1, start + 2 * row - 1) == recorded[1, 2:4].tobytes()[1:-1]
    with pytest.raises(FormatError):
        read(values, start, start + 2 * row + 1)


def test_entries_larger_than_a_chunk_come_in_chunks(archive: Archive) -> None:
    """Attention of one sample may be many megabytes; a range of it reads what it needs."""
    recorded = matrix_run(archive, samples=2, tile=1, tail=(3, 700, 300))
    values = Values(archive.run("run").field("score"), (0, 2))
    start = recorded[0].nbytes + recorded[0, 0].nbytes + 5

    chunks = list(values.read(start, values.nbytes))

    assert recorded[0, 0].nbytes > CHUNK_NBYTES
    assert max(map(len, chunks)) <= CHUNK_NBYTES
    assert b"".join(chunks) == recorded[[0, 2]].tobytes()[start:]


def test_what_commits_say_of_whole_tiles_is_their_checksum(archive: Archive) -> None:
    """Nothing is read for it: the tiles are gone."""
    recorded = matrix_run(archive)
    run = archive.run("run")
    for found in list(archive.store.objects("runs/run/trace.zarr")):
        archive.store.delete(found.key)

    assert values_crc32(Values(run.field("score"), (0, 2))) == zlib.crc32(
        recorded[[0, 2]].tobytes()
    )
    assert values_crc32(Values(run.field("score"), 1, range(2, 5))) == zlib.crc32(
        recorded[1, 2:5].tobytes()
    )


def test_a_checksum_of_parts_of_tiles_is_computed_once(archive: Archive) -> None:
    """Until something else is recorded; a client that reads in ranges asks often."""
    recorded = matrix_run(archive)
    values = Values(archive.run("run").field("score"), 1, range(1, 4))
    first = values_crc32(values)
    for found in list(archive.store.objects("runs/run/trace.zarr")):
        archive.store.delete(found.key)

    again = values_crc32(Values(archive.run("run").field("score"), 1, range(1, 4)))

    assert first == again == zlib.crc32(recorded[1, 1:4].tobytes())


def test_a_cast_overflows_to_infinity_and_has_a_digest_of_its_own(archive: Archive) -> None:
    """As NumPy casts, and without its warning, which is an error in a strict program."""
    recorded = matrix_run(archive) * 0 + np.float32(1e6)
    run = Builder(archive.store, "large", steps=1, samples=5, uid="large")
    run.declare(spec_of("score", recorded[0], tile=5)).put("trace/score", recorded[0]).seal()
    field = archive.run("large").field("score")
    half = Values(field, 0, conversion=cast_to(np.dtype(np.float16)))

    assert np.frombuffer(read(half), np.float16).tolist() == [np.inf] * 15
    assert half.digest != Values(field, 0).digest
    assert half.whole_tiles() is None


@pytest.mark.parametrize(
    ("values", "tile"),
    [
        (np.array(2.5, np.float32), 0),
        (np.zeros((4, 0), np.int8), 2),
        (np.array(["a", "bcd"]), 2),
        (np.array([True, False, True]), 0),
    ],
    ids=["0-d", "empty", "text", "bool"],
)
def test_fields_of_odd_shape_and_type_are_bytes_too(
    archive: Archive, values: NDArray[Any], tile: int
) -> None:
    run = Builder(archive.store, steps=1, samples=len(values) if tile else 0)
    run.declare(spec_of("odd", values, tile=tile))
    if tile:
        run.put_step("trace/odd", values)
    else:
        run.put("trace/odd", values)
    run.seal()
    found = Values(archive.run("run").field("odd"), (0,))

    assert found.shape == (1, *values.shape)
    assert (read(found) if found.nbytes else b"") == values.tobytes()
    assert values_crc32(found) == zlib.crc32(values.tobytes())
