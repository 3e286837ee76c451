"""Any HDF5 file as the fields of a layer, and as what is kept beside them to write it again.

Datasets that a system knows to be entries of one thing (draws of one parameter) are stacked, in the
order of their numbers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import h5py
import numpy as np

from archive_schema.dtypes import dtype_name
from archive_schema.systems.attributes import attribute_to_json
from archive_schema.systems.kept_file import (
    CONTENT,
    FILE,
    KeptAttribute,
    KeptDataset,
    KeptMember,
    KeptPlace,
)
from recorder.importers.hdf5_file import attributes, is_plain, members, values_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fit: TypeAlias = "Callable[[str, NDArray[Any]], tuple[str, NDArray[Any]]]"
"""From a field and its values to the field of the run that takes them, and the values for it."""
Naming: TypeAlias = Callable[[str], "tuple[str, int | None]"]
"""From the path of a dataset or attribute to a field, and its number there if it is stacked."""

_RESERVED: Final = frozenset(
    (FILE, CONTENT, "n", "samples", "layer", "step", "sample", "recorded", "")
)
"""Names that no field taken from a file may have."""
_LEVELS: Final = frozenset(("gzip",))


@dataclass(slots=True)
class TakenHdf5:
    """What was read of a file."""

    fields: dict[str, NDArray[Any]]
    members: tuple[KeptMember, ...]
    values: dict[str, NDArray[Any]]
    """By path, datasets that are no entries of a stack."""
    odd: list[str]


@dataclass(slots=True)
class _Found:
    """Values of the file, and where they come from: a member, and in it an attribute or not."""

    member: int
    attribute: int | None
    path: str
    values: NDArray[Any]


@dataclass(slots=True)
class _Survey:
    members: list[KeptMember] = field(default_factory=list)
    single: list[tuple[str, _Found]] = field(default_factory=list)
    stacked: defaultdict[str, list[tuple[int, _Found]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    odd: list[str] = field(default_factory=list)


def plain_name(path: str) -> str:
    """Return *path* as the name of a field.

    Examples
    --------
    >>> plain_name("a/b c"), plain_name("values")
    ('a_b_c', 'values')
    """
    name = re.sub(r"[^A-Za-z0-9_-]", "_", path)[:100].lstrip("_-")
    return f"field_{name}" if name in _RESERVED or name.endswith("_recorded") else name


def take_hdf5(opened: h5py.File, naming: Naming, fit: Fit) -> TakenHdf5:
    """Read all of *opened*: its values as fields, and all else.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` for what `hdf5_file.members` refuses.
    """
    survey = _Survey()
    _visit(survey, opened, "", naming)
    fields: dict[str, NDArray[Any]] = {}
    for name, found in survey.single:
        _place(survey, found, KeptPlace(field=_put(fields, fit, name, found.values)))
    for name, entries in survey.stacked.items():
        _stack(survey, fields, fit, name, sorted(entries, key=lambda entry: entry[0]))
    values = {found.path: found.values for _, found in survey.single}
    return TakenHdf5(fields, tuple(survey.members), values, survey.odd)


def _visit(survey: _Survey, group: h5py.Group, path: str, naming: Naming) -> None:
    _keep(survey, group, path, None, naming)
    for name, member in members(group).items():
        where = f"{path}/{name}" if path else name
        if isinstance(member, h5py.Group):
            _visit(survey, member, where, naming)
        elif is_plain(member):
            _keep(survey, member, where, _described(member, survey.odd), naming)
            found = _Found(len(survey.members) - 1, None, where, _text(values_of(member)))
            _note(survey, found, naming)
        else:
            survey.odd.append(f"{where} is no array of numbers or text: left out")


def _keep(
    survey: _Survey,
    member: h5py.Group | h5py.Dataset,
    path: str,
    dataset: KeptDataset | None,
    naming: Naming,
) -> None:
    """Keep a member and its attributes; numbers of stacked entries become values."""
    kept: list[KeptAttribute] = []
    at = len(survey.members)
    survey.members.append(KeptMember(path=path))
    for name, value in attributes(member, survey.odd).items():
        where = f"{path}/{name}"
        scalar = isinstance(value, (np.generic, bool, int, float)) and not isinstance(value, bytes)
        if scalar and dataset is None and naming(where)[1] is not None:
            array = np.asarray(value)
            kept.append(KeptAttribute(name=name, dtype=dtype_name(array.dtype)))
            _note(survey, _Found(at, len(kept) - 1, where, array), naming)
        else:
            plain, dtype = attribute_to_json(value)
            kept.append(KeptAttribute(name=name, value=plain, dtype=dtype))
    survey.members[at] = KeptMember(path=path, dataset=dataset, attributes=tuple(kept))


def _note(survey: _Survey, found: _Found, naming: Naming) -> None:
    name, number = naming(found.path)
    if number is None:
        survey.single.append((plain_name(name), found))
    else:
        survey.stacked[plain_name(name)].append((number, found))


def _described(dataset: h5py.Dataset, odd: list[str]) -> KeptDataset:
    text = h5py.check_string_dtype(dataset.dtype)
    if dataset.scaleoffset is not None or dataset.compression == "szip":
        odd.append(f"{dataset.name} is stored by a filter that is not written again")
    return KeptDataset(
        dtype=dataset.dtype.str,
        text=None if text is None else text.encoding,
        shape=dataset.shape,
        maxshape=None if dataset.maxshape == dataset.shape else dataset.maxshape,
        chunks=dataset.chunks,
        compression=dataset.compression if dataset.compression in ("gzip", "lzf") else None,
        level=dataset.compression_opts if dataset.compression in _LEVELS else None,
        shuffle=dataset.shuffle,
        fletcher32=dataset.fletcher32,
        place=KeptPlace(field=""),
    )


def _text(values: NDArray[Any]) -> NDArray[Any]:
    """Return fixed bytes as text if they are UTF-8."""
    if values.dtype.kind != "S":
        return values
    try:
        decoded: NDArray[Any] = np.char.decode(values, "utf-8")
    except UnicodeDecodeError:
        return values
    return decoded


def _put(fields: dict[str, NDArray[Any]], fit: Fit, name: str, values: NDArray[Any]) -> str:
    wanted, count = name, 1
    free, fitting = fit(wanted, values)
    while free in fields:
        count += 1
        free, fitting = fit(f"{wanted}_{count}", values)
    fields[free] = fitting
    return free


def _stack(
    survey: _Survey,
    fields: dict[str, NDArray[Any]],
    fit: Fit,
    name: str,
    entries: list[tuple[int, _Found]],
) -> None:
    """Stack entries of one shape and kind; others become a field of their own."""
    alike: defaultdict[tuple[tuple[int, ...], str], list[tuple[int, _Found]]] = defaultdict(list)
    for number, found in entries:
        alike[found.values.shape, found.values.dtype.kind].append((number, found))
    dtypes = {found.values.dtype.name for _, found in entries if found.values.dtype.kind != "U"}
    if len(dtypes) > 1 or len(alike) > 1:
        shapes = sorted({found.values.shape for _, found in entries})
        also = f" and shapes {shapes}" if len(shapes) > 1 else ""
        survey.odd.append(f"{name} is {' and '.join(sorted(dtypes))}{also} from entry to entry")
    for group in alike.values():
        numbers = [number for number, _ in group]
        values = np.stack([found.values for _, found in group])
        known = _put(fields, fit, name, values)
        if numbers != list(range(len(numbers))):
            survey.odd.append(f"{known} holds the entries {', '.join(map(str, numbers))}")
        for at, (_, found) in enumerate(group):
            _place(survey, found, KeptPlace(field=known, at=at))


def _place(survey: _Survey, found: _Found, place: KeptPlace) -> None:
    member = survey.members[found.member]
    if found.attribute is None:
        assert member.dataset is not None, "values are of a dataset or an attribute"  # noqa: S101
        dataset = member.dataset.model_copy(update={"place": place})
        survey.members[found.member] = member.model_copy(update={"dataset": dataset})
        return
    kept = list(member.attributes)
    kept[found.attribute] = kept[found.attribute].model_copy(update={"place": place})
    survey.members[found.member] = member.model_copy(update={"attributes": tuple(kept)})
