"""What is known of a field without asking the server, and how it is narrowed down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from clients.choosing import chosen_by
from clients.session import AsyncSession, Session
from clients.slices import MaskedArray, Top, largest, masked, read, reduced

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from clients.axis import Pick
    from clients.choosing import Choice
    from clients.exchange import Operation
    from clients.slices import Source
    from clients.slicing import Key, Selection

SessionT = TypeVar("SessionT", bound=Session | AsyncSession)
ResultT = TypeVar("ResultT")


class Reductions(ABC, Generic[ResultT]):
    """Reductions that the server makes, so that only their result travels.

    Sums are accumulated in float64, and come as float64; ``min`` and ``max`` keep the dtype of
    the field. *over* names one dimension or several; None is all of them.
    """

    @abstractmethod
    def reduce(self, op: str, over: str | Sequence[str] | None = None) -> ResultT:
        """Reduce by the operation *op*; the methods below are its names."""

    def mean(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the mean."""
        return self.reduce("mean", over)

    def std(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the standard deviation, divided by the count."""
        return self.reduce("std", over)

    def min(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the least value."""
        return self.reduce("min", over)

    def max(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the largest value."""
        return self.reduce("max", over)

    def sum(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the sum."""
        return self.reduce("sum", over)

    def l2(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the root of the sum of squares."""
        return self.reduce("l2", over)

    def entropy(self, over: str | Sequence[str] | None = None) -> ResultT:
        """Return the entropy in nats of the values, normalised to the sum 1."""
        return self.reduce("entropy", over)


class ArrayView(Generic[SessionT]):
    """What is known of a field, or of a selection of one, without asking the server.

    The step axis is indexed by step number, every other axis by position: ``array[17]`` is
    what was recorded at step 17, ``array[-1]`` at the last step, ``array[10:20]`` at the
    recorded steps in ``[10, 20)``. For steps 0, 1, 2, …, that is what NumPy does too. Several
    lists select each their own axis.

    Everything refers to the run as its document was when the array was taken from it.
    """

    def __init__(
        self, session: SessionT, source: Source, selection: Selection | None = None
    ) -> None:
        self._session = session
        self._source = source
        self._selection = source.whole if selection is None else selection

    @property
    def name(self) -> str:
        """Name of the field."""
        return self._source.document.name

    @property
    def layer(self) -> str | None:
        """The layer that the field was recorded for, if any."""
        return self._source.document.layer

    @property
    def attributes(self) -> dict[str, Any]:
        """What the recorder said about the field."""
        return dict(self._source.document.attributes)

    @property
    def dims(self) -> tuple[str, ...]:
        """Name of each axis."""
        return self._selection.dims

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Length of each axis; None where it changes from step to step."""
        return self._selection.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.dims)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values, little-endian."""
        return self._source.dtype

    @property
    def size(self) -> int | None:
        """Number of values; None where it changes from step to step."""
        return self._selection.size

    @property
    def nbytes(self) -> int | None:
        """Bytes that `read` fetches; None where that changes from step to step."""
        return None if self.size is None else self.size * self.dtype.itemsize

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of the steps that are taken; none for inputs and outputs."""
        return self._selection.steps()

    @property
    def source(self) -> tuple[Source, Selection]:
        """The field, and what is taken of it."""
        return self._source, self._selection

    def select(self, **picks: Pick) -> Self:
        """Return a lazy array of what *picks* take, by name of a dimension.

        Raises
        ------
        InvalidInputError
            ``unknown-parameter``, ``invalid-selection`` or ``selection-out-of-bounds``.
        NotFoundError
            ``step-not-recorded``.
        """
        return type(self)(self._session, self._source, self._selection.select(picks))

    def _chosen(self, choices: dict[str, Choice]) -> Operation[Self]:
        found = yield from chosen_by(self._source, self._selection, choices, self._session.options)
        return type(self)(self._session, self._source, found)

    def __len__(self) -> int:
        """Return the length of the first axis."""
        if not self.shape or self.shape[0] is None:
            raise TypeError(f"{self!r} has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        axes = ", ".join(
            f"{dim}: {'?' if length is None else length}"
            for dim, length in zip(self.dims, self.shape, strict=True)
        )
        where = "" if self.layer is None else f"{self.layer}/"
        return f"<{type(self).__name__} {where}{self.name} ({axes}) {self.dtype}>"

    def _indexed(self, key: Key) -> Self:
        return type(self)(self._session, self._source, self._selection.index(key))

    def _read(self) -> Operation[NDArray[Any]]:
        return read(self._source, self._selection, self._session.options)

    def _masked(self) -> Operation[MaskedArray]:
        return masked(self._source, self._selection, self._session.options)

    def _largest(self, k: int, threshold: float | None) -> Operation[Top]:
        return largest(self._source, self._selection, self._session.options, k, threshold)

    def _reduced(self, op: str, over: str | Sequence[str] | None) -> Operation[NDArray[Any]]:
        return reduced(self._source, self._selection, self._session.options, op, over)
