"""Fields as lazy arrays: what they hold is known, what is asked of them is fetched."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from clients.array_view import ArrayView, Reductions
from clients.extras import labelled
from clients.session import AsyncSession, Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import xarray

    from clients.choosing import Choice
    from clients.slices import MaskedArray, Top
    from clients.slicing import Key


class Array(ArrayView[Session], Reductions[NDArray[Any]]):
    """A field whose values are fetched when they are asked for: exactly those, and each time."""

    def read(self) -> NDArray[Any]:
        """Fetch all values.

        Raises
        ------
        NotFoundError
            ``not-recorded`` where part of it was not recorded.
        """
        return self._session.run(self._read())

    def sel(self, **choices: Choice) -> Array:
        """Return a lazy array of the steps and samples whose coordinates are as *choices* say.

        The coordinates are fetched at once, the values when they are asked for. Numbers that
        are no integers mean the nearest value recorded, a slice the values in ``[start, stop)``;
        several coordinates narrow together, and the axis is kept. Names of dimensions are
        selected as by `select`, before; ``class_`` is the coordinate ``class``.

        Raises
        ------
        InvalidInputError
            ``unknown-parameter``, ``invalid-parameter`` or ``invalid-selection``.
        NotFoundError
            ``nothing-matches``, naming the values there are.
        """
        return self._session.run(self._chosen(choices))

    def to_xarray(self) -> xarray.DataArray:
        """Fetch all values, with the coordinates of their steps and samples."""
        made = labelled()
        options = self._session.options
        coords = self._session.run(made.axis_coordinates(*self.source, options))
        array: xarray.DataArray = made.data_array(*self.source, self.read(), coords)
        return array

    def masked(self) -> MaskedArray:
        """Fetch what is recorded, and mask what is not: for a run that is being recorded."""
        return self._session.run(self._masked())

    def top(self, k: int, threshold: float | None = None) -> Top:
        """Find the *k* largest values of a matrix, such as one attention map, on the server.

        Parameters
        ----------
        threshold
            Leave out what is below it.
        """
        return self._session.run(self._largest(k, threshold))

    def __getitem__(self, key: Key) -> NDArray[Any]:
        return self._indexed(key).read()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Fetch entry by entry of the first axis, one request each."""
        # Without this method Python would count up to an IndexError, and meet a missing step.
        for at in self.steps if self.dims[:1] == ("step",) else range(len(self)):
            yield self[at]

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001  NumPy's protocol
    ) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self!r} is not in memory, so it cannot be given without a copy")
        return self.read() if dtype is None else self.read().astype(dtype, copy=False)

    def reduce(self, op: str, over: str | Sequence[str] | None = None) -> NDArray[Any]:
        """Reduce by the operation *op* on the server."""
        return self._session.run(self._reduced(op, over))


class AsyncArray(ArrayView[AsyncSession], Reductions[Awaitable[NDArray[Any]]]):
    """`Array` for an event loop: ``await array[3, 0:8]``, ``await array.mean("sample")``."""

    __iter__: ClassVar[None] = None  # or a loop would get awaitables without end

    async def read(self) -> NDArray[Any]:
        """Fetch all values; errors as `Array.read`."""
        return await self._session.run(self._read())

    async def sel(self, **choices: Choice) -> AsyncArray:
        """Return a lazy array of the steps and samples that *choices* mean; see `Array.sel`."""
        return await self._session.run(self._chosen(choices))

    async def to_xarray(self) -> xarray.DataArray:
        """Fetch all values, with the coordinates of their steps and samples."""
        made = labelled()
        options = self._session.options
        coords = await self._session.run(made.axis_coordinates(*self.source, options))
        array: xarray.DataArray = made.data_array(*self.source, await self.read(), coords)
        return array

    async def masked(self) -> MaskedArray:
        """Fetch what is recorded, and mask what is not."""
        return await self._session.run(self._masked())

    async def top(self, k: int, threshold: float | None = None) -> Top:
        """Find the *k* largest values of a matrix on the server."""
        return await self._session.run(self._largest(k, threshold))

    def __getitem__(self, key: Key) -> Awaitable[NDArray[Any]]:
        return self._indexed(key).read()

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001  NumPy's protocol
    ) -> NDArray[Any]:
        raise TypeError(f"{self!r} is read asynchronously: await its read()")

    def reduce(self, op: str, over: str | Sequence[str] | None = None) -> Awaitable[NDArray[Any]]:
        """Reduce by the operation *op* on the server."""
        return self._session.run(self._reduced(op, over))
