"""Which objects a run can have, by key: what may be put there, and by which rule.

Nothing is stored under a key that the format does not know, and no document under a key that is
not its own: a commit names its own writer, epoch and number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from fastcrc.crc32 import iscsi as crc32c

from archive_schema.documents import parse_document
from archive_schema.errors import ErrorKind, FormatError, invalid
from archive_schema.layout import (
    claim_key,
    commit_key,
    field_key,
    field_path,
    heartbeat_key,
    manifest_key,
    run_prefix,
)
from archive_schema.models import (
    Claim,
    Commit,
    Document,
    FieldSpec,
    Heartbeat,
    Index,
    Place,
    RunManifest,
    Seal,
    Sealing,
    check_run_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Rule(Enum):
    """How an object may be put."""

    CREATED = auto()
    """Once, and never changed."""
    REWRITTEN = auto()
    """As often as anybody likes: a repetition says the same, or something newer."""
    TILE = auto()
    """Created; put over what nobody committed while the run is being sealed."""
    CHUNK = auto()
    """A tile if a field is declared there, else the values of a coordinate, which are rewritten."""


class _Kind(NamedTuple):
    """Objects of one kind: what their keys look like, and what is known of them."""

    pattern: re.Pattern[str]
    rule: Rule
    model: type[Document] | None = None
    home: Callable[[str, Any, bytes], str] | None = None
    """From the run, the document and its bytes to the one key at which it belongs."""


_NAME: Final = r"(?!__)[A-Za-z0-9_][A-Za-z0-9_-]{0,127}"
_NODE: Final = r"(?!__)(?!\.+(?:/|\Z))[A-Za-z0-9._~%-]+"
_EPOCH: Final = "[0-9]{6}"
_GROUP: Final = (
    r"(?:(?:trace|layers)(?:_every_[0-9]{1,12})?(?:_from_[0-9]{1,12})?|inputs|outputs|ragged)"
)
_INDEX: Final = rf"(?:step|sample|recorded|{_NAME}_recorded)"
_CHUNK: Final = r"c(?:\.[0-9]{1,12})*"
_LONGEST: Final = 1000
"""Bytes of a key; object stores take 1024."""

_KINDS: Final = (
    _Kind(
        re.compile(r"run\.json"),
        Rule.CREATED,
        RunManifest,
        lambda _, manifest, __: manifest_key(manifest.id),
    ),
    _Kind(
        re.compile(rf"fields/(?:[a-z]+|layers/{_NODE})/{_NAME}\.json"),
        Rule.CREATED,
        FieldSpec,
        lambda run, spec, _: field_key(run, field_path(*spec.address)),
    ),
    _Kind(
        re.compile(rf"commits/{_NAME}/{_EPOCH}/claim\.json"),
        Rule.CREATED,
        Claim,
        lambda run, claim, _: claim_key(run, claim.writer, claim.epoch),
    ),
    _Kind(
        re.compile(rf"commits/{_NAME}/{_EPOCH}/[0-9]{{8}}\.json"),
        Rule.CREATED,
        Commit,
        lambda run, one, _: commit_key(run, one.writer, one.epoch, one.sequence),
    ),
    _Kind(
        re.compile(rf"heartbeats/{_NAME}\.json"),
        Rule.REWRITTEN,
        Heartbeat,
        lambda run, beat, _: heartbeat_key(run, beat.writer),
    ),
    _Kind(re.compile(r"sealing\.json"), Rule.CREATED, Sealing),
    _Kind(
        re.compile(r"index-[0-9a-f]{8}\.json"),
        Rule.REWRITTEN,
        Index,
        lambda run, _, data: f"{run_prefix(run)}/index-{crc32c(data):08x}.json",
    ),
    _Kind(re.compile(r"seal\.json"), Rule.CREATED, Seal),
    _Kind(re.compile(rf"displaced/{_NAME}/{_EPOCH}/{_GROUP}/(?:{_NODE}/)+{_CHUNK}"), Rule.CREATED),
    _Kind(re.compile(rf"trace\.zarr/(?:{_GROUP}/(?:{_NODE}/)*)?zarr\.json"), Rule.REWRITTEN),
    _Kind(re.compile(rf"trace\.zarr/{_GROUP}/(?:{_NODE}/)?{_INDEX}/{_CHUNK}"), Rule.REWRITTEN),
    # Other coordinates lie beside the fields, under names that no field has.
    _Kind(re.compile(rf"trace\.zarr/trace[^/]*/(?P<field>{_NAME})/{_CHUNK}"), Rule.CHUNK),
    _Kind(re.compile(rf"trace\.zarr/{_GROUP}/(?:{_NODE}/)+{_CHUNK}"), Rule.TILE),
)


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """A key that the format knows."""

    run_id: str
    path: str
    """Below the run."""
    kind: _Kind
    field: str | None
    """Of a chunk beside fields: path of the field that may be declared there."""

    @property
    def key(self) -> str:
        """The key in the store."""
        return f"{run_prefix(self.run_id)}/{self.path}"

    @property
    def rule(self) -> Rule:
        """How the object may be put."""
        return self.kind.rule

    def check(self, data: bytes) -> None:
        """Refuse bytes that do not belong here.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter``.
        """
        if self.path.endswith("zarr.json"):
            _check_zarr(data, self.path)
        if self.kind.model is None:
            return
        try:
            document = parse_document(data, self.path, self.kind.model)
        except FormatError as error:
            raise invalid(ErrorKind.INVALID_PARAMETER, str(error)) from error
        home = self.kind.home and self.kind.home(self.run_id, document, data)
        if home not in (None, self.key):
            message = f"the document belongs at {home!r} and was put at {self.key!r}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)


def object_key(run_id: str, path: str) -> ObjectKey:
    """Return what the format says of an object.

    Raises
    ------
    InvalidInputError
        ``invalid-name`` for a key that no object of a run has.
    """
    check_run_id(run_id)
    if len(path) <= _LONGEST:
        for kind in _KINDS:
            found = kind.pattern.fullmatch(path)
            if found is not None:
                array = found.groupdict().get("field")
                field = array and field_path(Place.TRACE, None, array)
                return ObjectKey(run_id, path, kind, field)
    message = f"expected the key of an object of a run (docs/format.md), got {path[:200]!r}"
    raise invalid(ErrorKind.INVALID_NAME, message)


def check_path(path: str) -> str:
    """Return *path* if it may lead to something inside a run, known or not.

    Raises
    ------
    InvalidInputError
        ``invalid-name``, so that nothing outside of the run is ever reached.
    """
    if len(path) > _LONGEST or not re.fullmatch(rf"{_NODE}(?:/{_NODE})*", path):
        message = f"expected a key inside a run, of names with '/' between them; got {path[:200]!r}"
        raise invalid(ErrorKind.INVALID_NAME, message)
    return path


def _check_zarr(data: bytes, path: str) -> None:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"{path} is no JSON document: {error}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message) from error
    version = document.get("zarr_format") if isinstance(document, dict) else None
    if version != 3:  # noqa: PLR2004  the version of Zarr
        message = f"{path} is no document of Zarr v3: its zarr_format is {version!r}"
        raise invalid(ErrorKind.INVALID_PARAMETER, message)
