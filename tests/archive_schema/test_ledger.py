"""The ledger is the sum of the commits, in whatever order they come."""

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_schema.ledger import Coordinate, Ledger
from archive_schema.models import (
    Commit,
    FieldSpec,
    Index,
    Place,
    SampleColumn,
    StepColumn,
    TileColumns,
)

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
SPEC: Final = FieldSpec(
    name="x", dims=("step", "sample", "d"), tail=(2,), tile=4, block=(2, 2), dtype="float32",
    stored_dtype="float32", source_dtype="float32",
)  # fmt: skip
PATH: Final = "trace/x"


def columns(*tiles: tuple[int, int, int], salt: int = 0) -> TileColumns:
    """Tiles as (step, tile, samples), with numbers that depend on them."""
    return TileColumns(
        field=PATH,
        step=tuple(step for step, _, _ in tiles),
        tile=tuple(tile for _, tile, _ in tiles),
        samples=tuple(samples for _, _, samples in tiles),
        nbytes=tuple(100 + step for step, _, _ in tiles),
        crc32c=tuple(salt + 7 * step + tile for step, tile, _ in tiles),
        crc32=tuple(salt + 9 * step + tile for step, tile, _ in tiles),
        blocks=tuple((10 + step, 20) for step, _, _ in tiles),
    )


def commit(tiles: TileColumns | None = None, **parts: Any) -> Commit:
    found = () if tiles is None else (tiles,)
    return Commit(writer="main", epoch=0, sequence=0, time=NOW, tiles=found, **parts)


def ledger_of(*commits: Commit | Index) -> Ledger:
    ledger = Ledger()
    ledger.declare(PATH, SPEC)
    for one in commits:
        ledger.add(one)
    return ledger


KEYS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 3)), min_size=1, max_size=20, unique=True
)


@given(KEYS, st.randoms(use_true_random=False))
def test_the_order_of_commits_does_not_matter(keys: list[tuple[int, int]], random: Any) -> None:
    commits = [commit(columns((step, tile, 4))) for step, tile in keys]
    shuffled = random.sample(commits, len(commits))

    first, second = ledger_of(*commits), ledger_of(*shuffled)

    assert first.index().tiles == second.index().tiles
    assert first.steps == tuple(sorted({step for step, _ in keys}))
    assert not first.conflicts


@given(KEYS)
def test_an_index_holds_what_the_commits_held(keys: list[tuple[int, int]]) -> None:
    """A sealed run is read from its index alone."""
    steps = StepColumn(name="t", dtype="float64", step=(1, 3), value=(0.5, "NaN"))
    samples = SampleColumn(name="label", dtype="int64", start=2, value=(5, 6))
    ledger = ledger_of(
        commit(columns(*((s, t, 4) for s, t in keys)), steps=(steps,), samples=(samples,))
    )

    index = Index.model_validate_json(ledger.index().model_dump_json())
    again = ledger_of(index)

    assert again.index() == ledger.index()
    for step, tile in keys:
        assert again.fields[PATH].tile(step, tile) == ledger.fields[PATH].tile(step, tile)
    assert again.sample_coordinates["label"].values == {2: 5, 3: 6}
    assert np.isnan(again.step_coordinates["t"].values[3])


def test_a_tile_is_found_with_its_numbers() -> None:
    field = ledger_of(commit(columns((3, 1, 2)))).fields[PATH]

    entry = field.tile(3, 1)

    assert entry is not None
    assert (entry.samples, entry.nbytes, entry.ends) == (2, 103, (13, 33))
    assert entry.shape == (2, 2)
    assert field.samples == 6
    assert (field.count, field.nbytes) == (1, 103)
    assert field.tile(3, 0) is None
    assert field.tile(2, 1) is None
    assert field.tile(3, 9) is None


def test_the_first_of_two_contents_stays_and_the_second_is_reported() -> None:
    ledger = ledger_of(commit(columns((0, 0, 4))), commit(columns((0, 0, 4), salt=1)))

    assert ledger.fields[PATH].tile(0, 0) == ledger_of(commit(columns((0, 0, 4)))).fields[
        PATH
    ].tile(0, 0)
    assert ledger.conflicts == ["trace/x, step 0, tile 0: two contents"]


def test_recorded_says_which_samples_are_there() -> None:
    field = ledger_of(commit(columns((0, 0, 4), (0, 1, 2), (5, 1, 4)))).fields[PATH]

    mask = field.recorded(9, [0, 1, 5])

    assert mask.astype(int).tolist() == [
        [1, 1, 1, 1, 1, 1, 0, 0, 0],
        [0] * 9,
        [0, 0, 0, 0, 1, 1, 1, 1, 0],
    ]


def test_a_coordinate_keeps_its_first_value_and_reports_another() -> None:
    one = StepColumn(name="t", dtype="float64", step=(0, 1), value=(1.0, "NaN"))
    same = StepColumn(name="t", dtype="float64", step=(0, 1), value=(1.0, "NaN"))
    other = StepColumn(name="t", dtype="float64", step=(1,), value=(2.0,))

    assert not ledger_of(commit(steps=(one,)), commit(steps=(same,))).conflicts
    ledger = ledger_of(commit(steps=(one,)), commit(steps=(other,)))
    assert len(ledger.conflicts) == 1
    assert np.isnan(ledger.step_coordinates["t"].values[1])


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float64", {0: 1.5}, [1.5, np.nan]),
        ("int64", {0: 3}, [3.0, np.nan]),
        ("int64", {0: 3, 1: 4}, [3, 4]),
        ("bool", {0: True, 1: False}, [True, False]),
        ("str", {1: "b"}, ["", "b"]),
    ],
)
def test_a_gap_in_a_coordinate_is_no_value(
    dtype: str, values: dict[int, Any], expected: list[Any]
) -> None:
    np.testing.assert_array_equal(Coordinate("c", dtype, values).array([0, 1]), expected)


def test_a_ragged_field_has_a_shape_at_each_step() -> None:
    spec = FieldSpec(
        name="scores", dims=("step", "plate"), ragged=True, dtype="float64",
        stored_dtype="float64", source_dtype="float64",
    )  # fmt: skip
    ledger = Ledger()
    field = ledger.declare("trace/scores", spec)
    ledger.add(
        commit(
            TileColumns(
                field="trace/scores",
                step=(0, 4),
                tile=(0, 0),
                samples=(0, 0),
                nbytes=(50, 0),
                crc32c=(1, 0),
                crc32=(2, 0),
                blocks=((30,), ()),
                shape=((3,), (0,)),
                block=((3,), (1,)),
            )
        )
    )

    assert field.shape_at(0) == (3,)
    assert field.shape_at(4) == (0,)
    assert field.shape_at(1) is None
    entry = field.tile(0)
    assert entry is not None
    assert entry.ends == (30,)
    assert ledger.at(Place.TRACE, None, "scores") is field
    again = Ledger()
    again.declare("trace/scores", spec)
    again.add(ledger.index())
    assert again.index() == ledger.index()
