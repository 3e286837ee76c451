"""Several slices in one answer: one round trip where a viewer or a plot needs many arrays."""

from hashlib import blake2b
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from archive_schema.errors import ErrorKind, InvalidInputError, TooLargeError
from archive_schema.globs import is_glob
from archive_schema.selection import plural
from archive_schema.wire import Problem, QueryDocument, SliceFormat, SliceQuery
from server.answers import BodyResponse, Head
from server.conditional import etag
from server.formats import choose_format, values_of
from server.formats.binary import npz, raw_parts
from server.parameters import select
from server.query import FieldView, RunView, Slice, matching_fields, narrowed
from server.replies import known_parameters
from server.routes.planned import choosable
from server.service import service_of

FORMATS: Final = (SliceFormat.NPZ, SliceFormat.RAW)
MOST_SLICES: Final = 4096
"""Slices in one answer, those of each layer that a glob matches counted."""
_LONGEST_NAME: Final = 200

router: Final = APIRouter(
    tags=["slices"],
    dependencies=[Depends(known_parameters)],
    responses={"default": {"model": Problem, "description": "A problem document."}},
)


@router.post(
    "/runs/{run}/query",
    summary="Several slices in one answer",
    response_class=Response,
    responses={
        200: {
            "description": "The slices, as one npz file or one stream of raw parts.",
            "content": {"application/x-npz": {}, "application/octet-stream": {}},
        }
    },
)
def query(
    request: Request,
    run: str,
    wanted: Annotated[QueryDocument, Body()],
    format: Annotated[str | None, Query(description="npz or raw.")] = None,  # noqa: A002  the word of the API
) -> Response:
    """Return every slice that is asked for, in the order in which they are asked for."""
    service = service_of(request)
    chosen = choose_format(format, request.headers.get("accept"), FORMATS)
    masked = wanted.missing == "mask"
    if masked and chosen is SliceFormat.RAW:
        message = "missing=mask needs a format that can say what is not recorded: npz; got raw"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    view = service.archive.run(run)
    found: dict[str, Slice] = {}
    for asked in wanted.slices:
        for name, field in _fields(view, asked):
            if name in found:
                message = f"two slices are called {name!r}; give one of them another name"
                raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
            found[name] = _slice(field, asked, wanted.missing)
        if len(found) > MOST_SLICES:
            message = f"expected globs for at most {MOST_SLICES} slices in one answer"
            raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, message)
    _check(found, service.settings.max_answer_bytes)
    digest = blake2b("".join(f"{n}:{s.digest};" for n, s in found.items()).encode())
    members = [(name, values_of(one, masked=masked)) for name, one in found.items()]
    body = npz(members) if chosen is SliceFormat.NPZ else raw_parts(members)
    return BodyResponse(Head(etag(digest.hexdigest()[:32], chosen), "no-store"), body)


def _fields(view: RunView, asked: SliceQuery) -> list[tuple[str, FieldView]]:
    """Return what is asked of, with the names in the answer: a glob is each layer's."""
    layer = asked.layer
    if layer is None or not is_glob(layer) or layer in view.layers():
        return [(_name(asked), view.field(asked.field, layer=layer, place=asked.place))]
    found = matching_fields(view, layer, asked.field)
    # By the name that was given a layer is told from those of another glob.
    first = "" if asked.name is None else f"{_name(asked)}."
    last = f".{asked.field}" if asked.name is None else ""
    return [(f"{first}{field.spec.layer}{last}", field) for field in found]


def _slice(field: FieldView, asked: SliceQuery, missing: Literal["error", "mask"]) -> Slice:
    selectors, _, named = select(asked.select, field.dims, ())
    if named:
        known = [plural(dim) for dim in field.dims]
        selectors = narrowed(field.run, selectors, named, choosable(field), known)
    return field.select(selectors, missing=missing)


def _name(asked: SliceQuery) -> str:
    name = asked.name
    if name is None:
        name = asked.field if asked.layer is None else f"{asked.layer}.{asked.field}"
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        message = f"expected a name of 1 to {_LONGEST_NAME} printable characters, got {name!r:.300}"
        raise InvalidInputError(ErrorKind.INVALID_NAME, message)
    return name


def _check(found: dict[str, Slice], limit: int) -> None:
    total = sum(one.nbytes for one in found.values())
    if total > limit:
        sizes = ", ".join(f"{name} {one.nbytes:,}" for name, one in found.items())
        message = (
            f"the slices have {total:,} bytes together ({sizes:.500}) and one answer takes at"
            f" most {limit:,}; ask for them in several queries, or for parts of them"
        )
        raise TooLargeError(ErrorKind.ANSWER_TOO_LARGE, message)
