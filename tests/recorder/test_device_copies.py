"""What of the copies from an accelerator can be tried without one: the pool of host buffers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from recorder.cuda import BufferPool, buffer_nbytes


def allocated(nbytes: int) -> torch.Tensor:
    return torch.empty(nbytes, dtype=torch.uint8)


@given(st.integers(0, 2**40))
def test_a_buffer_is_the_next_power_of_two(nbytes: int) -> None:
    """The driver rounds up to it anyway."""
    size = buffer_nbytes(nbytes)

    assert size >= nbytes
    assert size & (size - 1) == 0
    assert size < 2 * max(nbytes, 1)


@given(st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=40))
def test_no_buffer_is_given_out_twice(requests: list[tuple[int, bool]]) -> None:
    """A buffer that came back is used again; there are never more than were needed at once."""
    made: list[int] = []

    def allocate(nbytes: int) -> torch.Tensor:
        made.append(nbytes)
        return allocated(nbytes)

    pool = BufferPool(allocate)
    held: list[torch.Tensor] = []
    most: dict[int, int] = {}
    for nbytes, gives_back in requests:
        buffer = pool.take(nbytes)
        assert buffer.numel() == buffer_nbytes(nbytes)
        assert all(buffer.data_ptr() != other.data_ptr() for other in held)
        held.append(buffer)
        size = buffer.numel()
        most[size] = max(most.get(size, 0), sum(other.numel() == size for other in held))
        if gives_back:
            pool.give(held.pop(0))
    assert {size: made.count(size) for size in set(made)} == most
