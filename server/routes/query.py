"""Several slices in one answer: one round trip where a viewer or a plot needs many arrays."""

from hashlib import blake2b
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from archive_schema.errors import ErrorKind, InvalidInputError, TooLargeError
from archive_schema.wire import Problem, QueryDocument, SliceFormat, SliceQuery
from server.answers import BodyResponse, Head
from server.conditional import etag
from server.formats import choose_format, values_of
from server.formats.binary import npz, raw_parts
from server.parameters import select
from server.query import RunView, Slice
from server.replies import known_parameters
from server.service import service_of

FORMATS: Final = (SliceFormat.NPZ, SliceFormat.RAW)
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
        name = _name(asked)
        if name in found:
            message = f"two slices are called {name!r}; give one of them another name"
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        found[name] = _slice(view, asked, wanted.missing)
    _check(found, service.settings.max_answer_bytes)
    digest = blake2b("".join(f"{n}:{s.digest};" for n, s in found.items()).encode())
    members = [(name, values_of(one, masked=masked)) for name, one in found.items()]
    body = npz(members) if chosen is SliceFormat.NPZ else raw_parts(members)
    return BodyResponse(Head(etag(digest.hexdigest()[:32], chosen), "no-store"), body)


def _slice(view: RunView, asked: SliceQuery, missing: Literal["error", "mask"]) -> Slice:
    field = view.field(asked.field, layer=asked.layer, place=asked.place)
    selectors, _ = select(asked.select, field.dims, ())
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
