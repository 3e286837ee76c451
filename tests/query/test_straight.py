"""Uncompressed blocks that are read straight into a result are what the general way gives."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, FormatError
from archive_schema.models import Codec
from archive_schema.store import LocalStore, open_store
from server.query import Archive
from server.query.straight import StraightReader, in_line
from tests.query.builder import Builder, spec_of
from tests.query.strategies import RandomField, random_fields, selections
from tests.query.test_select import PATHS, build, expected_of, view_of

if TYPE_CHECKING:
    from pathlib import Path

RAW = Codec(name="raw")


def straight(store: LocalStore) -> Archive:
    """Open *store* so that the smallest results are read straight, by threads, block by block."""
    archive = Archive(store)
    archive.reader.straight = StraightReader(store, least_bytes=0, part_bytes=1, read_bytes=16)
    return archive


@settings(max_examples=80, deadline=None)
@given(st.data(), random_fields())
def test_any_selection_of_uncompressed_blocks_gives_what_numpy_gives(
    data: st.DataObject, field: RandomField
) -> None:
    """Whole blocks or parts of them, in order or not, recorded or not."""
    field = RandomField(
        field.spec.model_copy(update={"codec": RAW}),
        field.run_steps, field.samples, field.steps, field.values,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        assert isinstance(store, LocalStore)
        run = build(field, store)
        path = PATHS.get(field.spec.place, f"{field.spec.place}/x")
        values, _ = run.whole(path, list(field.steps), field.samples)
        chosen = data.draw(selections(field))

        with straight(store) as archive:
            read = view_of(archive, field).select(chosen, missing="mask").array()

        assert read.tobytes() == expected_of(field, values, chosen).tobytes()


@given(st.data())
def test_blocks_are_in_line_where_the_result_is_a_row_of_them(data: st.DataObject) -> None:
    """A block is a run of neighbouring values in the result, and the next one follows it."""
    extents = [data.draw(st.sampled_from([1, 2, 4])) for _ in range(3)]
    block = [data.draw(st.sampled_from([n for n in (1, 2, 4) if n <= most])) for most in extents]
    numbers = np.arange(np.prod(extents)).reshape(extents)
    grid = [extent // part for extent, part in zip(extents, block, strict=True)]
    cut = numbers.reshape([n for pair in zip(grid, block, strict=True) for n in pair])
    blocks = cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, int(np.prod(block)))
    taken = tuple(
        range(start := data.draw(st.integers(0, most)), data.draw(st.integers(start, most)))
        for most in extents
    )

    result = numbers[tuple(slice(one.start, one.stop) for one in taken)].reshape(-1)

    whole = [one for one in blocks if set(one) & set(result)]
    is_row = np.array_equal(np.concatenate(whole) if whole else result, result)
    assert not in_line(taken, block) or is_row


@pytest.mark.parametrize("harm", ["flipped", "short", "lost"])
def test_what_is_not_as_committed_is_named(tmp_path: Path, harm: str) -> None:
    """The straight way only sees that something is wrong; the general one says what."""
    store = LocalStore(tmp_path)
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    run = Builder(store).declare(spec_of("x", values, block=(2, 8), codec=RAW))
    run.put("trace/x", values, 0).put("trace/x", values, 1)
    key = run.key("trace/x", 1)
    sound = store.read(key)

    with straight(store) as archive:
        field = archive.run("run").field("x")
        assert np.array_equal(field.select({}).array(), [values, values])
        if harm == "lost":
            store.delete(key)
        else:
            store.write(key, sound[:70] if harm == "short" else sound[:70] + b"!" + sound[71:])

        with pytest.raises(FormatError, match="step 1") as caught:
            field.select({}).array()

        lost = ErrorKind.TILE_LOST if harm == "lost" else ErrorKind.TILE_DAMAGED
        assert caught.value.kind is lost
        assert np.array_equal(field.select({"step": 0}).array(), values)
