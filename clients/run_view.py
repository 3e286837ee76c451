"""What is known of a run without asking the server, and its fields by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from archive_schema.errors import ErrorKind, NotFoundError
from archive_schema.globs import matching_names
from archive_schema.wire import steps_of
from clients.array_view import SessionT
from clients.arrays import Array, AsyncArray
from clients.coordinates import chosen, coordinates
from clients.slices import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from numpy.typing import NDArray

    from archive_schema.models import RunStatus
    from archive_schema.wire import FieldDocument, RunDocument
    from clients.axis import Pick
    from clients.exchange import Operation

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


class Layers(Named[Named[ArrayT]]):
    """The layers of a run by name; called with a glob, those that match."""

    def __call__(self, glob: str) -> Layers[ArrayT]:
        """Return the layers whose names match *glob*, as people count: ``layers("downs.*")``.

        Raises
        ------
        NotFoundError
            ``layer-not-found`` if none does.
        """
        found = {name: self[name] for name in matching_names(self, glob)}
        return Layers(self._kind, self._what, found or {glob: self[glob]})


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
    def layers(self) -> Layers[ArrayT]:
        """The recorded fields of each layer; ``run.layers("downs.*")`` are those that match."""
        layers = {
            layer.name: self._named(f"field of layer {layer.name!r},", layer.fields)
            for layer in self._document.layers
        }
        return Layers(ErrorKind.LAYER_NOT_FOUND, "layer", layers)

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

    def _coordinates(self, dim: str, pick: Pick | None) -> Operation[dict[str, NDArray[Any]]]:
        numbers = chosen(self._document, dim, pick)
        return coordinates(self._document, dim, numbers, self._session.options)

    def _holding(self, steps: Iterable[int], names: Iterable[str]) -> list[int]:
        """Return those of *steps* at which all the fields *names* are recorded."""
        fields = self.fields
        held = [set(fields[name].steps) if name in fields else set() for name in names]
        return [step for step in steps if all(step in numbers for numbers in held)]

    def _named(self, what: str, documents: Iterable[FieldDocument]) -> Named[ArrayT]:
        arrays = {
            document.name: self._array(self._session, Source(self._document, document))
            for document in documents
        }
        return Named(ErrorKind.FIELD_NOT_FOUND, what, arrays)
