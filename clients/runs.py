"""One run: what is known of it, its fields by name, and what can be asked about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.wire import steps_of
from clients.arrays import Array, AsyncArray, SessionT
from clients.documents import followed, opened
from clients.download import downloaded, file_request
from clients.progress import shown
from clients.queries import queried
from clients.session import AsyncSession, Session
from clients.slices import Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from datetime import datetime
    from os import PathLike

    from numpy.typing import NDArray

    from archive_schema.models import RunStatus
    from archive_schema.wire import FieldDocument, RunDocument
    from clients.download import Report
    from clients.slicing import Pick

ArrayT = TypeVar("ArrayT", Array, AsyncArray)
ValueT = TypeVar("ValueT")


class Named(Mapping[str, ValueT]):
    """Things of a run by name: its fields, its layers, the fields of a layer.

    Raises
    ------
    NotFoundError
        Of the given kind, for a name that is not there, telling those that are.
    """

    def __init__(self, kind: ErrorKind, what: str, values: dict[str, ValueT]) -> None:
        self._kind = kind
        self._what = what
        self._values = values

    def __getitem__(self, name: str) -> ValueT:
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(self._values) or "none"
            message = f"no {self._what} {name!r}; there is: {known}"
            raise NotFoundError(self._kind, message) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    # Of a Mapping these two go by KeyError, which a NotFoundError is not.
    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        """Return what has *name*, or *default*."""
        return self._values.get(name, default)

    def __repr__(self) -> str:
        return f"<{self._what}s of {', '.join(self._values) or 'nothing'}>"


class RunView(Generic[SessionT, ArrayT]):
    """What is known of a run without asking the server: its document, as it last came.

    A run that is being recorded grows; `refresh` or `follow` bring a newer document. Arrays
    that were taken before keep the shape they had.
    """

    _array: Callable[[SessionT, Source], ArrayT]

    def __init__(self, session: SessionT, document: RunDocument) -> None:
        self._session = session
        self._document = document

    @property
    def document(self) -> RunDocument:
        """Everything that the server says about the run."""
        return self._document

    @property
    def id(self) -> str:
        """Name of the run in the archive."""
        return self._document.id

    @property
    def system(self) -> str:
        """Which upstream format the run follows."""
        return self._document.system

    @property
    def status(self) -> RunStatus:
        """Whether the run is recording, sealed or incomplete."""
        return self._document.status

    @property
    def created(self) -> datetime:
        """When the run was declared."""
        return self._document.created

    @property
    def metadata(self) -> dict[str, Any]:
        """What the recorder said about the run."""
        return dict(self._document.metadata)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the run."""
        return self._document.tags

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of the steps at which anything is recorded, rising."""
        return steps_of(self._document.step_ranges)

    @property
    def samples(self) -> int:
        """Length of the sample axis."""
        return self._document.samples

    @property
    def version(self) -> str:
        """Changes with everything that is recorded."""
        return self._document.version

    @property
    def fields(self) -> Named[ArrayT]:
        """Fields recorded at steps."""
        return self._named("field", self._document.fields)

    @property
    def inputs(self) -> Named[ArrayT]:
        """What the sampler was given."""
        return self._named("input", self._document.inputs)

    @property
    def outputs(self) -> Named[ArrayT]:
        """What the sampler gave at last."""
        return self._named("output", self._document.outputs)

    @property
    def layers(self) -> Named[Named[ArrayT]]:
        """The recorded fields of each layer of the model."""
        layers = {
            layer.name: self._named(f"field of layer {layer.name!r},", layer.fields)
            for layer in self._document.layers
        }
        return Named(ErrorKind.LAYER_NOT_FOUND, "layer", layers)

    def layer(self, name: str) -> Named[ArrayT]:
        """Return the recorded fields of the layer *name*.

        Raises
        ------
        NotFoundError
            ``layer-not-found``.
        """
        return self.layers[name]

    def __getitem__(self, name: str) -> ArrayT:
        """Return the field *name*; what is missing is a ``field-not-found``."""
        return self.fields[name]

    # Without this Python would take run[0], run[1], … for what there is to iterate over.
    def __iter__(self) -> Iterator[str]:
        """Go through the names of the fields."""
        return iter(self.fields)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id} ({self.system}, {self.status}): "
            f"{self._document.steps} steps, {self.samples} samples; {', '.join(self.fields)}>"
        )

    def _named(self, what: str, documents: Iterable[FieldDocument]) -> Named[ArrayT]:
        arrays = {
            document.name: self._array(self._session, Source(self._document, document))
            for document in documents
        }
        return Named(ErrorKind.FIELD_NOT_FOUND, what, arrays)


class Run(RunView[Session, Array]):
    """A run, read by blocking calls. Threads may share one."""

    _array = Array

    def refresh(self) -> Run:
        """Fetch the run's document anew; return the run itself."""
        self._document = self._session.run(opened(self.id, self._session.options))
        return self

    def query(self, arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Fetch several arrays of this run in one request: ``{"a": run["x"].select(step=3)}``.

        More than 256 of them, or more bytes than a request may be for, take several.
        """
        wanted = {name: array.source for name, array in arrays.items()}
        return self._session.run(queried(self.id, wanted, self._session.options))

    def follow(self, *, poll_s: float = 1.0, since: str | None = None) -> Iterator[int]:
        """Yield the number of each step with something new, until the run is over.

        A step comes again when more of it was recorded, such as the next batch of samples.
        The run is refreshed before a step is given.

        Parameters
        ----------
        poll_s : float, seconds
            Pause between two questions.
        since
            A `version`: only what was recorded after it. By default everything.
        """
        for document, steps in self._session.iterate(
            followed(self.id, since, poll_s, self._session.options)
        ):
            self._document = document
            for step in steps:
                yield step

    def download(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002  the word of the API
        steps: Pick | None = None,
        samples: Pick | None = None,
        fields: Sequence[str] | None = None,
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
            self.id, target, format=format, steps=steps, samples=samples, fields=fields
        )
        with shown(target.name, progress=progress) as report:
            return self._session.run(
                downloaded(
                    request, target, self._session.options, overwrite=overwrite, report=report
                )
            )


class AsyncRun(RunView[AsyncSession, AsyncArray]):
    """A run, read on an event loop."""

    _array = AsyncArray

    async def refresh(self) -> AsyncRun:
        """Fetch the run's document anew; return the run itself."""
        self._document = await self._session.run(opened(self.id, self._session.options))
        return self

    async def query(self, arrays: Mapping[str, AsyncArray]) -> dict[str, NDArray[Any]]:
        """Fetch several arrays of this run in one request; see `Run.query`."""
        wanted = {name: array.source for name, array in arrays.items()}
        return await self._session.run(queried(self.id, wanted, self._session.options))

    async def follow(self, *, poll_s: float = 1.0, since: str | None = None) -> AsyncIterator[int]:
        """Yield the number of each step with something new; see `Run.follow`."""
        async for document, steps in self._session.iterate(
            followed(self.id, since, poll_s, self._session.options)
        ):
            self._document = document
            for step in steps:
                yield step

    async def download(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = None,  # noqa: A002  the word of the API
        steps: Pick | None = None,
        samples: Pick | None = None,
        fields: Sequence[str] | None = None,
        overwrite: bool = False,
        progress: bool | Report | None = None,
    ) -> Path:
        """Download the run as one file; see `Run.download`."""
        target = Path(path)
        request = file_request(
            self.id, target, format=format, steps=steps, samples=samples, fields=fields
        )
        with shown(target.name, progress=progress) as report:
            return await self._session.run(
                downloaded(
                    request, target, self._session.options, overwrite=overwrite, report=report
                )
            )
