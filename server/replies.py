"""JSON documents as conditional answers, and the check of parameters that all of them share."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from fastapi import Request, Response

from server.conditional import cache_control, etag, none_matches
from server.parameters import query_parameters, refuse_unknown

if TYPE_CHECKING:
    from archive_schema.wire import WireDocument

METADATA: str = "meta."
"""Prefix of parameters that filter by metadata."""


def known_parameters(request: Request) -> None:
    """Check that a request has only the parameters that its route declares, each once.

    Raises
    ------
    InvalidInputError
        ``unknown-parameter`` or ``invalid-parameter``.
    """
    declared = [field.alias for field in request.scope["route"].dependant.query_params]
    given = query_parameters(request.scope["query_string"])
    open_ended = "meta.<key>" in declared
    names = (name for name in given if not (open_ended and name.startswith(METADATA)))
    refuse_unknown(names, declared)


def reply(request: Request, document: WireDocument, *, sealed: bool = False) -> Response:
    """Answer with a document, or with 304 if the client holds it already."""
    data = document.model_dump_json().encode()
    return reply_bytes(request, data, "application/json", sealed=sealed)


def document_tag(document: WireDocument) -> str:
    """Return the tag that an answer with *document* has."""
    return _tag(document.model_dump_json().encode())


def _tag(data: bytes) -> str:
    # The answers are small, and made anew more often than they repeat: their bytes name them.
    return etag(blake2b(data, digest_size=16).hexdigest(), "doc")


def reply_bytes(
    request: Request, data: bytes, media_type: str, *, sealed: bool = False, varies: bool = False
) -> Response:
    """Answer with *data*, or with 304 if the client holds it already."""
    tag = _tag(data)
    headers = {"ETag": tag, "Cache-Control": cache_control(sealed=sealed)}
    if varies:
        headers["Vary"] = "Accept"
    if none_matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
