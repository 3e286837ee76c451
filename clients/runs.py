"""One run and what can be asked about it, blocking and asynchronous."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.arrays import Array, AsyncArray
from clients.axis import SAMPLE, STEP
from clients.documents import followed, opened
from clients.download import downloaded, file_request
from clients.extras import labelled
from clients.progress import shown
from clients.queries import queried
from clients.recording import AsyncRecording, Recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    import xarray
    from numpy.typing import NDArray

    from clients.axis import Pick
    from clients.choosing import Choice
    from clients.download import Report


class Run(Recording):
    """A run, read and written by blocking calls. Threads may share one."""

    _array = Array

    def refresh(self) -> Run:
        """Fetch the run's document anew; return the run itself."""
        self._document = self._session.run(opened(self.id, self._session.options))
        return self

    def step_coordinates(self, steps: Pick | None = None) -> dict[str, NDArray[Any]]:
        """Fetch the coordinates of recorded steps: timestep, noise level, ….

        Returns
        -------
        dict of NDArray, shape (steps,)
            ``step``, the step numbers, and then each coordinate. Where a step has no value it
            is NaN, or an empty text, and integers come as float64.
        """
        return self._session.run(self._coordinates(STEP, steps))

    def sample_coordinates(self, samples: Pick | None = None) -> dict[str, NDArray[Any]]:
        """Fetch the coordinates of samples: label, seed, …; see `step_coordinates`."""
        return self._session.run(self._coordinates(SAMPLE, samples))

    def to_xarray(
        self, fields: Iterable[str] | None = None, *, layer: str | None = None
    ) -> xarray.Dataset:
        """Return fields as a dataset, which fetches values when something is computed.

        A field that is recorded at other steps than the run has an axis of its own,
        ``step_<field>``.

        Parameters
        ----------
        fields
            Their names; by default all but those whose shape changes from step to step.
        layer
            Take the fields of this layer.
        """
        made = labelled()
        coords = self._session.run(made.run_coordinates(self._document, self._session.options))
        there = self.fields if layer is None else self.layer(layer)
        names = [n for n in there if None not in there[n].shape] if fields is None else fields
        dataset: xarray.Dataset = made.dataset(
            self._document, {name: there[name] for name in names}, coords
        )
        return dataset

    def query(self, arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Fetch several arrays of this run in one request: ``{"a": run["x"].select(step=3)}``.

        More than 256 of them, or more bytes than a request may be for, take several.
        """
        wanted = {name: array.source for name, array in arrays.items()}
        return self._session.run(queried(self.id, wanted, self._session.options))

    def follow(self, *fields: str, poll_s: float = 1.0, since: str | None = None) -> Iterator[int]:
        """Yield the number of each step with something new, until the run is over.

        What one step holds becomes visible bit by bit, so a step comes again when more of it
        was recorded: another field, or the next batch of samples. The run is refreshed before
        a step is given.

        Parameters
        ----------
        fields
            Leave out steps until all of these are recorded, for some sample at least.
        poll_s : float, seconds
            Pause between two questions.
        since
            A `version`: only what was recorded after it. By default everything.
        """
        for document, steps in self._session.iterate(
            followed(self.id, since, poll_s, self._session.options)
        ):
            self._document = document
            yield from self._holding(steps, fields)

    def download(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002  the word of the API
        steps: Pick | None = None,
        samples: Pick | None = None,
        fields: Sequence[str] | None = None,
        layers: Sequence[str] | None = None,
        where: Mapping[str, Choice] | None = None,
        compression: str | None = None,
        overwrite: bool = False,
        progress: bool | Report | None = None,
    ) -> Path:
        """Download the run as one file, in a format of its system.

        A download that broke off is continued by the same call: what arrived lies in
        ``<path>.part`` until it is complete.

        Parameters
        ----------
        path
            Where the file goes.
        format
            Name of a format of the run's system; by default what *path* ends in: ``.h5``.
        steps, samples, fields
            Only these.
        layers
            Globs: of the layers only those that match.
        where
            What coordinates of steps and samples must be: ``{"cell_type": "K562"}``; see
            `Array.sel`.
        compression
            ``gzip`` for HDF5, ``deflate`` for NPZ: a smaller file, whose download begins anew
            if it breaks off. The server compresses it once before the first byte of an HDF5
            file comes.
        overwrite
            Replace an existing file.
        progress
            Whether to show a bar; by default if standard error is a terminal. Or a function
            of the bytes that are there and those that there will be.

        Raises
        ------
        ConflictError
            ``output-exists``.
        StorageError
            When no more of it came, after the retries.
        """
        target = Path(path)
        request = file_request(
            self.id,
            target,
            format=format,
            steps=steps,
            samples=samples,
            fields=fields,
            layers=layers,
            where=where,
            compression=compression,
        )
        with shown(target.name, progress=progress) as report:
            return self._session.run(
                downloaded(
                    request, target, self._session.options, overwrite=overwrite, report=report
                )
            )


class AsyncRun(AsyncRecording):
    """A run, read and written on an event loop."""

    _array = AsyncArray

    async def refresh(self) -> AsyncRun:
        """Fetch the run's document anew; return the run itself."""
        self._document = await self._session.run(opened(self.id, self._session.options))
        return self

    async def step_coordinates(self, steps: Pick | None = None) -> dict[str, NDArray[Any]]:
        """Fetch the coordinates of recorded steps; see `Run.step_coordinates`."""
        return await self._session.run(self._coordinates(STEP, steps))

    async def sample_coordinates(self, samples: Pick | None = None) -> dict[str, NDArray[Any]]:
        """Fetch the coordinates of samples; see `Run.step_coordinates`."""
        return await self._session.run(self._coordinates(SAMPLE, samples))

    async def query(self, arrays: Mapping[str, AsyncArray]) -> dict[str, NDArray[Any]]:
        """Fetch several arrays of this run in one request; see `Run.query`."""
        wanted = {name: array.source for name, array in arrays.items()}
        return await self._session.run(queried(self.id, wanted, self._session.options))

    async def follow(
        self, *fields: str, poll_s: float = 1.0, since: str | None = None
    ) -> AsyncIterator[int]:
        """Yield the number of each step with something new; see `Run.follow`."""
        async for document, steps in self._session.iterate(
            followed(self.id, since, poll_s, self._session.options)
        ):
            self._document = document
            for step in self._holding(steps, fields):
                yield step

    async def download(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002  the word of the API
        steps: Pick | None = None,
        samples: Pick | None = None,
        fields: Sequence[str] | None = None,
        layers: Sequence[str] | None = None,
        where: Mapping[str, Choice] | None = None,
        compression: str | None = None,
        overwrite: bool = False,
        progress: bool | Report | None = None,
    ) -> Path:
        """Download the run as one file; see `Run.download`."""
        target = Path(path)
        request = file_request(
            self.id,
            target,
            format=format,
            steps=steps,
            samples=samples,
            fields=fields,
            layers=layers,
            where=where,
            compression=compression,
        )
        with shown(target.name, progress=progress) as report:
            return await self._session.run(
                downloaded(
                    request, target, self._session.options, overwrite=overwrite, report=report
                )
            )
