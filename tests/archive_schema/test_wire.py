"""Steps travel as ranges and come back as themselves."""

from hypothesis import given
from hypothesis import strategies as st

from archive_schema.selection import parse_selector
from archive_schema.wire import ranges_text, step_ranges, steps_of


@given(st.sets(st.integers(0, 200), max_size=40).map(sorted))
def test_steps_survive_as_ranges(steps: list[int]) -> None:
    ranges = step_ranges(steps)

    assert list(steps_of(ranges)) == steps
    found = [
        step
        for part in ranges_text(ranges).split(",")
        if part
        for selector in [parse_selector(part, "step")]
        for step in (range(*selector.indices(10**6)) if isinstance(selector, slice) else [selector])
    ]
    assert found == steps


def test_a_regular_run_is_one_range() -> None:
    assert step_ranges(range(10_000)) == ((0, 10_000, 1),)
    assert step_ranges(range(0, 1000, 4)) == ((0, 997, 4),)
    assert step_ranges([]) == ()
