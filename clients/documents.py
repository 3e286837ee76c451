"""The JSON documents of the API: lists of runs, one run, and what is new in it."""

from __future__ import annotations

import json
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from archive_schema.errors import ErrorKind, FormatError
from archive_schema.models import RunStatus, check_run_id
from archive_schema.wire import Changes, RunDocument, RunPage, RunSummary, WireDocument, steps_of
from clients.exchange import Item, Listing, Operation, Pause, Reply, Request
from clients.retry import fetched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clients.options import Options

DocumentT = TypeVar("DocumentT", bound=WireDocument)

LARGEST_PAGE: Final = 200
"""Runs in one page."""
_NEW_OR_NOT: Final = (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)


def run_path(run_id: str) -> str:
    """Return the path of a run, relative to the base URL.

    Raises
    ------
    InvalidInputError
        ``invalid-name``: an id with a slash or ``..`` would be another path.
    """
    return f"runs/{quote(check_run_id(run_id), safe='')}"


def opened(run_id: str, options: Options) -> Operation[RunDocument]:
    """Fetch the document of one run."""
    request = Request(run_path(run_id))
    return (yield from fetched(request, options.retry, partial(parsed, RunDocument)))


def run_filters(meta: Mapping[str, Any], **given: str | None) -> tuple[tuple[str, str], ...]:
    """Return what a list of runs is filtered and sorted by, as parameters of a request."""
    plain = ((name, value) for name, value in given.items() if value is not None)
    # As JSON has it, so that True is true; a text stays without quotes.
    texts = ((key, v if isinstance(v, str) else json.dumps(v)) for key, v in meta.items())
    return (*plain, *((f"meta.{key}", text) for key, text in texts))


def listed(
    filters: Sequence[tuple[str, str]], limit: int | None, options: Options
) -> Listing[RunSummary]:
    """Go through the pages of runs that match *filters*, at most *limit* runs."""
    left, cursor = limit, None
    while left is None or left > 0:
        size = LARGEST_PAGE if left is None else min(left, LARGEST_PAGE)
        after = () if cursor is None else (("cursor", cursor),)
        request = Request("runs", params=(*filters, ("limit", str(size)), *after))
        page = yield from fetched(request, options.retry, partial(parsed, RunPage))
        for run in page.runs[:left]:
            yield Item(run)
        left = None if left is None else left - len(page.runs)
        cursor = page.next
        if cursor is None:
            return


def followed(
    run_id: str, since: str | None, poll_s: float, options: Options
) -> Listing[tuple[RunDocument, tuple[int, ...]]]:
    """Tell when a run has something new, until nothing more can be recorded.

    Yields
    ------
    RunDocument, tuple of int
        The run as it is then, and the steps with something new.
    """
    tag, live = None, RunStatus.RECORDING
    while True:
        request = Request(
            f"{run_path(run_id)}/changes",
            params=() if since is None else (("since", since),),
            headers={} if tag is None else {"If-None-Match": tag},
        )
        # While nothing is new the answer is a 304 without a body.
        changes, tag = yield from fetched(
            request, options.retry, partial(_changes, tag), accept=_NEW_OR_NOT
        )
        if changes is not None and (changes.version != since or changes.status is not live):
            since = changes.version
            document = yield from opened(run_id, options)
            yield Item((document, steps_of(changes.steps)))
            if changes.status is not live:
                return
        yield Pause(poll_s)


def parsed(model: type[DocumentT], reply: Reply) -> DocumentT:
    """Return the JSON document in *reply*.

    Raises
    ------
    FormatError
        ``record-damaged`` if it is none.
    """
    try:
        return model.model_validate_json(reply.body)
    except ValidationError as error:
        message = f"{reply.url} answered with no {model.__name__}: {error}"
        raise FormatError(ErrorKind.RECORD_DAMAGED, message) from error


def _changes(tag: str | None, reply: Reply) -> tuple[Changes | None, str | None]:
    if reply.status == HTTPStatus.NOT_MODIFIED:
        return None, tag
    return parsed(Changes, reply), reply.headers.get("etag")
