"""The fields of a run while it is recorded: declared at first sight, checked at every call."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from archive_schema.dtypes import numpy_dtype
from archive_schema.errors import ErrorKind, invalid
from archive_schema.layout import field_path, group_path
from recorder.declaration import FieldOptions, check_agrees, first_declaration, text_fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.models import FieldSpec
    from archive_schema.systems.declaration import SystemDeclaration
    from recorder.declaration import Address


class RecordedField:
    """One field: its declaration, and how far it has got into the store.

    The codec and the block of a field that another writer declared first are theirs: `lock`
    guards that change, which a worker makes before the first tile is encoded.
    """

    def __init__(self, spec: FieldSpec, *, stored: bool, probed: bool) -> None:
        self.spec = spec
        self.path = field_path(*spec.address)
        self.stored_itemsize = numpy_dtype(spec.stored_dtype).itemsize
        self.stored = stored
        """Whether the declaration is in the store."""
        self.probed = probed
        """Whether the codec is settled, or depends on how well the first tile compresses."""
        self.lock = threading.Lock()

    def takes(self, at: int) -> bool:
        """Return whether the field is recorded at position *at* of the run's step axis."""
        spec = self.spec
        return at >= spec.first and (at - spec.first) % spec.every == 0

    def check(self, source: str, shape: tuple[int, ...]) -> None:
        """Refuse values that are not like the declared ones.

        Parameters
        ----------
        source
            Name of their dtype.
        shape
            All axes but step.

        Raises
        ------
        InvalidInputError
            ``dtype-mismatch`` or ``shape-mismatch``.
        """
        spec = self.spec
        if source != spec.source_dtype and not text_fits(source, spec.source_dtype):
            message = f"field {spec.name!r}: expected dtype {spec.source_dtype}, got {source}"
            raise invalid(ErrorKind.DTYPE_MISMATCH, message)
        if spec.ragged:
            dims = spec.dims[1:]
            if len(shape) != len(dims):
                message = f"field {spec.name!r}: expected axes {dims}, got shape {shape}"
                raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        elif (shape[1:] if spec.tile else shape) != spec.tail or (spec.tile and not shape):
            lead = ["samples"] if spec.tile else []
            expected = ", ".join([*lead, *map(str, spec.tail)])
            message = f"field {spec.name!r}: expected shape ({expected}), got {shape}"
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)


class Fields:
    """Every field of the run that this recorder knows.

    Parameters
    ----------
    system
        Names the axes of the fields it declares.
    """

    def __init__(self, system: SystemDeclaration) -> None:
        self._system = system
        self._options: dict[Address, FieldOptions] = {}
        self._known: dict[Address, RecordedField] = {}
        self._dims: dict[str, dict[str, tuple[int, str]]] = {}
        """For each Zarr group, the length of each axis and which field had it first."""

    def __iter__(self) -> Iterator[RecordedField]:
        return iter(list(self._known.values()))

    def get(self, address: Address) -> RecordedField | None:
        """Return the field at *address* once it is known."""
        return self._known.get(address)

    def resume(self, spec: FieldSpec) -> None:
        """Take note of a field that the run had before."""
        self.keep(RecordedField(spec, stored=True, probed=True))

    def drop(self, address: Address) -> None:
        """Forget a field of which nothing came into the store, and what was settled of it."""
        self._options.pop(address, None)
        self.forget(address)

    def forget(self, address: Address) -> None:
        """Forget a field of which nothing came into the store; what was settled of it holds."""
        field = self._known.get(address)
        if field is None or field.stored:
            return
        del self._known[address]
        known = self._dims.get(group_path(field.spec), {})
        for dim in [dim for dim, (_, owner) in known.items() if owner == field.spec.name]:
            del known[dim]

    def settle(self, address: Address, options: FieldOptions) -> None:
        """Remember what the caller says of a field.

        Raises
        ------
        ConflictError
            ``field-differs`` if the field is known and otherwise.
        """
        place, layer, name = address
        known = self._known.get(address)
        if known is not None:
            check_agrees(known.spec, options.within(self._system.field(place, name, layer)))
        self._options[address] = options

    def options(self, address: Address) -> FieldOptions:
        """Return what is settled about a field, by the caller or else by the system."""
        place, layer, name = address
        options = self._options.get(address, FieldOptions())
        return options.within(self._system.field(place, name, layer))

    def declare(
        self, address: Address, source: str, shape: tuple[int, ...], *, sampled: bool, tile: int
    ) -> RecordedField:
        """Return a field declared from its first values, which `keep` makes known.

        Arguments and errors are those of `first_declaration`.
        """
        options = self.options(address)
        own = self._options.get(address)
        if (own is None or own.dims is None) and len(options.dims or shape) != len(shape):
            # What the system says is of another array of this name: promoters have one
            # prediction a sample, where other datasets have several.
            sampled = sampled or (options.dims or ())[:1] == ("sample",)
            options = replace(options, dims=None)
        spec = first_declaration(address, options, source, shape, sampled=sampled, tile=tile)
        return RecordedField(spec, stored=False, probed=options.codec is not None)

    def keep(self, field: RecordedField) -> None:
        """Make a field known.

        Raises
        ------
        InvalidInputError
            ``shape-mismatch`` if an axis has another length than the axis of that name has in
            the same Zarr group: xarray would not open it.
        """
        spec = field.spec
        self._known[spec.address] = field
        if spec.ragged:  # each of its arrays has a group of its own
            return
        known = self._dims.setdefault(group_path(spec), {})
        tail = dict(zip(spec.dims[len(spec.dims) - len(spec.tail) :], spec.tail, strict=True))
        for dim, length in tail.items():
            had, owner = known.get(dim, (length, ""))
            if had != length:
                del self._known[spec.address]
                message = (
                    f"field {spec.name!r}: expected {had} along {dim!r}, as field {owner!r} has,"
                    f" got {length}; name the axis otherwise by declare({spec.name!r}, dims=…)"
                )
                raise invalid(ErrorKind.SHAPE_MISMATCH, message)
        for dim, length in tail.items():
            known.setdefault(dim, (length, spec.name))
