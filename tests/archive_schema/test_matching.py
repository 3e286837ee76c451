"""Entries are matched by their coordinates as NumPy would, and what matches nothing is told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.matching import Condition, matching, read_wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NAMES = ("K562", "HepG2", "tench, Tinca tinca", "a:b", "GM12878")
ENTRIES = 9
# Sixteenths, so that distances are exact and ties are ties.
floats = st.integers(-64, 64).map(lambda n: n / 16)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-4, 4),
    "float64": floats | st.just(math.nan),
    "str": st.sampled_from(NAMES),
    "bool": st.booleans(),
}


def asked(condition: Sequence[Any]) -> Condition:
    name, dtype, values, text = condition
    return Condition(name, dtype, values, read_wanted(text, name, dtype, values))


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, str, list[Any], str]:
    """Return name, dtype and values of a coordinate, and a text that asks for some."""
    dtype = draw(st.sampled_from(sorted(KINDS)))
    column = draw(st.lists(st.none() | KINDS[dtype], min_size=ENTRIES, max_size=ENTRIES))
    wanted = KINDS[dtype].filter(lambda value: value == value)  # noqa: PLR0124
    if dtype in ("int64", "float64") and draw(st.booleans()):
        low, high = draw(st.none() | wanted), draw(st.none() | wanted)
        text = f"{'' if low is None else low}:{'' if high is None else high}"
    else:
        text = ",".join(map(str, draw(st.lists(wanted, min_size=1, max_size=3))))
    return f"c{draw(st.integers(0, 9))}", dtype, column, text


def oracle(table: Sequence[tuple[str, str, list[Any], str]]) -> list[int] | None:
    """Return what NumPy says matches; None if a value that is asked for is nowhere."""
    there = np.ones(ENTRIES, bool)
    near: list[tuple[NDArray[Any], NDArray[Any], list[float]]] = []
    for _, dtype, column, text in table:
        known = np.array([v is not None and v == v for v in column])  # noqa: PLR0124
        if dtype == "str":
            texts = np.array(["" if v is None else v for v in column])
            wanted = [name for name in NAMES if f",{name}," in f",{text},"]
            if not all((known & (texts == one)).any() for one in wanted):
                return None
            there &= known & np.isin(texts, wanted)
            continue
        plain = np.array([np.nan if v is None else float(v) for v in column])
        if ":" in text:
            low, high = (float(end) if end else None for end in text.split(":"))
            there &= known & (plain >= (-np.inf if low is None else low))
            there &= plain < (np.inf if high is None else high)
            continue
        numbers = [float({"True": 1, "False": 0}.get(one, one)) for one in text.split(",")]
        if dtype == "float64":
            near.append((plain, known, numbers))
        elif not all((known & (plain == one)).any() for one in numbers):
            return None
        else:
            there &= known & np.isin(plain, numbers)
    left = there.copy()
    for plain, known, numbers in near:
        usable = plain[there & known]
        nearest = set()
        for number in numbers if len(usable) else ():
            apart = np.abs(usable - number)
            nearest.add(float(usable[apart == apart.min()].min()))
        left &= known & np.isin(plain, list(nearest))
    return np.flatnonzero(left).tolist()


@given(table=st.lists(conditions(), min_size=1, max_size=3))
def test_what_matches_is_what_numpy_finds(table: list[tuple[str, str, list[Any], str]]) -> None:
    expected = oracle(table)

    if not expected:
        with pytest.raises(NotFoundError) as caught:
            matching([asked(one) for one in table], "step", ENTRIES)
        assert caught.value.kind is ErrorKind.NOTHING_MATCHES
    else:
        assert matching([asked(one) for one in table], "step", ENTRIES) == expected


@given(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_a_list_of_names_is_read_although_names_hold_commas(names: list[str]) -> None:
    assert read_wanted(",".join(names), "name", "str", NAMES) == tuple(names)
    assert read_wanted(", ".join(names), "name", "str", NAMES) == tuple(names)


def test_a_whole_text_is_meant_before_a_list_is() -> None:
    values = ["a", "b", "a,b"]

    assert matching([asked(("name", "str", values, "a,b"))], "sample", 3) == [2]
    assert matching([asked(("name", "str", values, "b,a"))], "sample", 3) == [0, 1]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("inf", [3]),
        ("-inf", [0]),
        ("0.5", [1]),
        ("1e300", [2]),
        ("1:", [2, 3]),
        (":", [0, 1, 2, 3]),
        (":inf", [0, 1, 2]),
    ],
)
def test_infinite_values_are_values(text: str, rows: list[int]) -> None:
    values = [-math.inf, 0.0, 1.0, math.inf, math.nan, None]

    assert matching([asked(("sigma", "float64", values, text))], "step", 6) == rows


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("int64", "2.0"), ("int64", ""), ("int64", "1,"), ("int64", "1:2:3"), ("int64", "1_0"),
        ("int64", "٣"), ("int64", "9" * 30), ("int64", "a:b"), ("float64", "nan"),
        ("float64", "1_0"), ("float64", "x"), ("float64", "0.1:nan"), ("float64", ""),
        ("bool", "2"), ("bool", "true:false"), ("bool", ""),
    ],
)  # fmt: skip
def test_rubbish_is_refused_and_what_was_expected_is_told(dtype: str, text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_wanted(text, "recycle", dtype, [])

    assert caught.value.kind is ErrorKind.INVALID_SELECTION
    assert "recycle=" in str(caught.value)
    assert dtype in str(caught.value)


def test_the_values_there_are_are_told_in_short() -> None:
    values = list(range(1000))

    with pytest.raises(NotFoundError) as caught:
        matching([asked(("seed", "int64", values, "5,1000"))], "sample", 1000)

    told = str(caught.value)
    assert "no sample has seed=1000" in told
    assert "0, 1, 2" in told
    assert "999 (1000 values)" in told
    assert len(told) < 300


@given(seeds=st.lists(st.integers(2**53, 2**53 + 3), min_size=1, max_size=4, unique=True))
def test_large_integers_are_told_apart(seeds: list[int]) -> None:
    assume(len(seeds) > 1)

    condition = asked(("seed", "int64", seeds, str(seeds[-1])))

    assert matching([condition], "sample", len(seeds)) == [len(seeds) - 1]
