"""What can be added to a run, blocking and asynchronous: values, declarations, tags, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from clients.arrays import Array, AsyncArray
from clients.pushing import annotated, declared, pushed, pushed_samples, pushed_whole, sealed
from clients.run_view import RunView
from clients.session import AsyncSession, Session

if TYPE_CHECKING:
    from collections.abc import Sequence


class Recording(RunView[Session, Array]):
    """A run that can be added to by blocking calls."""

    def push(
        self,
        step: int,
        samples: slice | range | None = None,
        layer: str | None = None,
        **values: Any,
    ) -> bool:
        """Record values of one step; when it returns they are safe in the archive.

        Parameters
        ----------
        step
            Number of the step.
        samples
            Which samples of the run the arrays hold: ``slice(start, stop)``; None for all.
        layer
            Record arrays as fields of this layer.
        values
            By name. Python and NumPy scalars are coordinates of the step; arrays are fields,
            whose first axis is the sample axis unless they are declared otherwise.

        Returns
        -------
        bool
            Whether anything was new: the same values again are nothing.

        Raises
        ------
        ConflictError
            ``tile-differs`` or ``coordinate-differs`` if other values are recorded, and stay;
            ``run-sealed``.
        InvalidInputError
            If a step, samples, dtype or shape is not what the run or the field declares.
        StorageError
            If it could not be stored, after the retries; it may be pushed again.
        """
        operation = pushed(
            self.id, step, values, samples=samples, layer=layer, options=self._session.options
        )
        return self._session.run(operation)

    def push_inputs(self, samples: slice | range | None = None, **arrays: Any) -> bool:
        """Record what the sampler was given; arguments and errors as `push`."""
        options = self._session.options
        return self._session.run(pushed_whole(self.id, "inputs", samples, arrays, options))

    def push_outputs(self, samples: slice | range | None = None, **arrays: Any) -> bool:
        """Record what came out at the end; arguments and errors as `push`."""
        options = self._session.options
        return self._session.run(pushed_whole(self.id, "outputs", samples, arrays, options))

    def push_samples(self, samples: slice | range | None = None, **values: Any) -> bool:
        """Record sample coordinates, one number or text a sample; errors as `push`."""
        return self._session.run(pushed_samples(self.id, samples, values, self._session.options))

    def declare(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        *,
        layer: str | None = None,
        **settled: Any,
    ) -> bool:
        """Declare a field before its first values; return whether it was not declared before.

        Parameters
        ----------
        dtype, shape
            Of the values that come first, as they will be pushed.
        settled
            What they do not say: ``dims``, ``tokens``, ``every``, ``first``, ``ragged``,
            ``tile``, ``storage``, ``codec``, ``block``, ``attributes``, ``place``.

        Raises
        ------
        ConflictError
            ``field-differs``.
        """
        document = {"dtype": dtype, "shape": tuple(shape), **settled}
        return self._session.run(declared(self.id, layer, name, document, self._session.options))

    def seal(self, *, force: bool = False) -> Self:
        """Finish the run: nothing can be added to it any more; return the run itself.

        Parameters
        ----------
        force
            Stop recorders that are still at it.

        Raises
        ------
        ConflictError
            ``writer-active``.
        """
        operation = sealed(self.id, force=force, options=self._session.options)
        self._document = self._session.run(operation)
        return self

    def tag(self, *tags: str) -> Self:
        """Replace the run's tags, of a sealed run too; return the run itself."""
        operation = annotated(self.id, {"tags": tags}, self._session.options)
        self._document = self._session.run(operation)
        return self

    def note(self, text: str) -> Self:
        """Replace what is noted of the run, of a sealed run too; return the run itself."""
        operation = annotated(self.id, {"note": text}, self._session.options)
        self._document = self._session.run(operation)
        return self


class AsyncRecording(RunView[AsyncSession, AsyncArray]):
    """`Recording` on an event loop."""

    async def push(
        self,
        step: int,
        samples: slice | range | None = None,
        layer: str | None = None,
        **values: Any,
    ) -> bool:
        """Record values of one step; see `Run.push`."""
        operation = pushed(
            self.id, step, values, samples=samples, layer=layer, options=self._session.options
        )
        return await self._session.run(operation)

    async def push_inputs(self, samples: slice | range | None = None, **arrays: Any) -> bool:
        """Record what the sampler was given; see `Run.push`."""
        options = self._session.options
        return await self._session.run(pushed_whole(self.id, "inputs", samples, arrays, options))

    async def push_outputs(self, samples: slice | range | None = None, **arrays: Any) -> bool:
        """Record what came out at the end; see `Run.push`."""
        options = self._session.options
        return await self._session.run(pushed_whole(self.id, "outputs", samples, arrays, options))

    async def push_samples(self, samples: slice | range | None = None, **values: Any) -> bool:
        """Record sample coordinates; see `Run.push_samples`."""
        options = self._session.options
        return await self._session.run(pushed_samples(self.id, samples, values, options))

    async def declare(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        *,
        layer: str | None = None,
        **settled: Any,
    ) -> bool:
        """Declare a field before its first values; see `Run.declare`."""
        document = {"dtype": dtype, "shape": tuple(shape), **settled}
        options = self._session.options
        return await self._session.run(declared(self.id, layer, name, document, options))

    async def seal(self, *, force: bool = False) -> Self:
        """Finish the run; see `Run.seal`."""
        operation = sealed(self.id, force=force, options=self._session.options)
        self._document = await self._session.run(operation)
        return self

    async def tag(self, *tags: str) -> Self:
        """Replace the run's tags; return the run itself."""
        operation = annotated(self.id, {"tags": tags}, self._session.options)
        self._document = await self._session.run(operation)
        return self

    async def note(self, text: str) -> Self:
        """Replace what is noted of the run; return the run itself."""
        operation = annotated(self.id, {"note": text}, self._session.options)
        self._document = await self._session.run(operation)
        return self
