"""Copies from a CUDA device to the host that the sampler's thread only enqueues.

1. On the stream that computes, the tensor is cloned: what the sampler does to it next comes
   after, and costs device memory only until step 3.
2. A side stream, one for each device and for life, waits for the clone and copies it to pinned
   memory; an event marks the end. Nobody waits for the device here.
3. A worker waits for the event. From then on the clone may go: its memory belongs to the
   computing stream, which never sees it again before the side stream is done with it.

Pinned memory is kept and used again, in powers of two, because the driver rounds up to them
anyway and to pin memory anew stalls the device.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from archive_schema.errors import ErrorKind, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray


def buffer_nbytes(nbytes: int) -> int:
    """Return the size of the buffer that holds *nbytes*: the next power of two.

    Examples
    --------
    >>> buffer_nbytes(0), buffer_nbytes(4096), buffer_nbytes(4097)
    (1, 4096, 8192)
    """
    return 1 << max(nbytes - 1, 0).bit_length()


class BufferPool:
    """Host buffers of powers of two, given out and taken back.

    Parameters
    ----------
    allocate
        Makes a buffer of so many bytes.
    """

    def __init__(self, allocate: Callable[[int], torch.Tensor]) -> None:
        self._allocate = allocate
        self._free: defaultdict[int, list[torch.Tensor]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> torch.Tensor:
        """Return a buffer of at least *nbytes* bytes."""
        size = buffer_nbytes(nbytes)
        with self._lock:
            if self._free[size]:
                return self._free[size].pop()
        return self._allocate(size)

    def give(self, buffer: torch.Tensor) -> None:
        """Take back what `take` returned."""
        with self._lock:
            self._free[buffer.numel()].append(buffer)


@dataclass(slots=True)
class PinnedSnapshot:
    """A copy in pinned memory, complete once its event has happened."""

    buffer: torch.Tensor
    host: torch.Tensor
    """The values, in `buffer`."""
    staged: torch.Tensor | None
    """The clone on the device, for as long as it is copied from."""
    done: torch.cuda.Event
    pool: BufferPool

    def values(self) -> NDArray[Any]:
        """Wait for the copy and return it."""
        self.done.synchronize()
        self.staged = None
        values: NDArray[Any] = self.host.numpy()
        return values

    def release(self) -> None:
        """Give the pinned memory back, once the device has written to it."""
        self.done.synchronize()
        self.staged = None
        self.pool.give(self.buffer)


class DeviceCopier:
    """Enqueues copies from one device."""

    def __init__(self, device: torch.device) -> None:
        torch = sys.modules["torch"]
        self._side = torch.cuda.Stream(device)
        self._pool = BufferPool(_pinned)
        self._under_way: deque[PinnedSnapshot] = deque()
        self._lock = threading.Lock()

    def copy(self, tensor: torch.Tensor, *, owned: bool = False) -> PinnedSnapshot:
        """Enqueue a copy of *tensor* and return at once.

        Parameters
        ----------
        owned : bool
            Whether nobody changes the tensor, so that it needs no clone; it is contiguous then.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` while a CUDA graph is captured: the copy would become part of
            the graph, and its memory would not.
        """
        torch = sys.modules["torch"]
        # Tensors made under the caller's inference mode could not be written to elsewhere.
        with torch.inference_mode(mode=False), torch.no_grad(), torch.cuda.device(tensor.device):
            if torch.cuda.is_current_stream_capturing():
                message = "cannot record while a CUDA graph is captured; record what it gives out"
                raise invalid(ErrorKind.INVALID_PARAMETER, message)
            # Only now: to ask an event anything would break a capture.
            self._drop_staged()
            nbytes = tensor.numel() * tensor.element_size()
            buffer = self._pool.take(nbytes)
            host = buffer[:nbytes].view(tensor.dtype).view(tensor.shape)
            staged = tensor if owned else contiguous_clone(tensor)
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                host.copy_(staged, non_blocking=True)
                # Whoever waits for it sleeps, and does not spin on a core of the sampler.
                done = torch.cuda.Event(blocking=True)
                done.record(self._side)
        snapshot = PinnedSnapshot(buffer, host, staged, done, self._pool)
        with self._lock:
            self._under_way.append(snapshot)
        return snapshot

    def _drop_staged(self) -> None:
        """Free the clones of copies that have ended, also where no worker has come to them yet."""
        with self._lock:
            while self._under_way and self._under_way[0].done.query():
                self._under_way.popleft().staged = None


def contiguous_clone(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy on the same device, in C order, after what the current stream does to it."""
    return tensor.clone(memory_format=sys.modules["torch"].contiguous_format)


@lru_cache
def copier_of(device: torch.device) -> DeviceCopier:
    """Return the copier of *device*: one side stream for the life of the process."""
    return DeviceCopier(device)


def _pinned(nbytes: int) -> torch.Tensor:
    module = sys.modules["torch"]
    buffer: torch.Tensor = module.empty(nbytes, dtype=module.uint8, pin_memory=True)
    return buffer
