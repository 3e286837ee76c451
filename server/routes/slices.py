"""Slices of fields: the byte route.

A request becomes a planned `Slice`, which knows shape, length and digest before anything is
read; from there on, the answer is one of six encodings of it, of a reduction of it, or of its
largest values.
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.wire import (
    DIMS_HEADER,
    DTYPE_HEADER,
    MEDIA_TYPES,
    SHAPE_HEADER,
    STEPS_HEADER,
    SliceFormat,
    ranges_text,
    step_ranges,
)
from server.answers import (
    Exchange,
    Head,
    send_body,
    send_not_modified,
    send_whole,
    whole_answer,
)
from server.conditional import cache_control, etag
from server.formats import TEXT_FORMATS, Values, choose_format, encode, values_of
from server.formats.triplets import TOP_FORMATS, encode_top
from server.limits import check_size
from server.parameters import slice_request
from server.query import REDUCTIONS, reduce, top
from server.routes.call import Call, Parameter

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from server.parameters import SliceRequest, Top
    from server.query import Reduction, Slice
    from server.service import Service
    from server.settings import Settings

FORMATS: Final = tuple(SliceFormat)
INLINE_NBYTES: Final = 64 * 1024
INLINE_STEPS: Final = 8
"""A slice of so many steps and bytes is read faster than a thread is reached."""
LONGEST_HEADER: Final = 4096
_DTYPE, _SHAPE, _DIMS, _STEPS = (
    name.lower().encode() for name in (DTYPE_HEADER, SHAPE_HEADER, DIMS_HEADER, STEPS_HEADER)
)
_STEP: Final = re.compile(r"-?[0-9]{1,18}")

PARAMETERS: Final = (
    Parameter("format", "Format of the answer; wins over Accept.", tuple(FORMATS)),
    Parameter(
        "samples",
        "Selector of the sample axis: an integer, a slice or a list. Every dimension of the field"
        " is selected so, by its name or its plural: `positions=10:50`.",
        example="0:8",
    ),
    Parameter(
        "missing",
        "What becomes of what is not recorded: a 404, or null beside a mask.",
        ("error", "mask"),
    ),
    Parameter("reduce", "Reduce on the server, accumulated in float64.", REDUCTIONS),
    Parameter("over", "Dimensions to reduce, with commas; all by default.", example="sample"),
    Parameter("top", "Give the largest values of a matrix as (row, column, value).", example="50"),
    Parameter("threshold", "Leave out triplets below this value.", example="0.01"),
)
STEPS: Final = Parameter(
    "steps", "Selector of the step axis, by step number; negative from the last.", example="::10"
)


class SliceAnswer:
    """Answers with slices of the fields at one place."""

    def __init__(self, service: Service, place: Place) -> None:
        self._service = service
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        exchange = Exchange(scope, receive, send)
        path = exchange.path
        run = await self._service.run(path["run"])
        known = self._service.recent.get(exchange.asked, run.version)
        if known is not None:
            await send_whole(exchange, known)
            return
        field = run.field(path["field"], layer=path.get("layer"), place=self._place)
        if "step" in path:
            step = step_number(path["step"])
            request = slice_request(scope["query_string"], field.dims, ("step",))
            selectors = {"step": step, **request.selectors}
        else:
            request = slice_request(scope["query_string"], field.dims)
            selectors = {**request.selectors}
        found = field.select(selectors, missing=request.missing)
        if request.top is not None:
            await self._send_top(exchange, found, request, request.top)
        elif request.reduce is not None:
            await self._send_reduced(exchange, found, request, request.reduce)
        else:
            await self._send_slice(exchange, found, request, began)

    async def _send_slice(
        self, exchange: Exchange, found: Slice, request: SliceRequest, began: float
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), FORMATS)
        check_answer(found, chosen, self._service.settings)
        masked = request.missing == "mask"
        values = values_of(found, masked=masked)
        tag = etag(found.digest, f"{chosen}-mask" if masked else chosen)
        head = _head(found, tag, request, values)
        small = found.nbytes <= INLINE_NBYTES and len(found.steps) <= INLINE_STEPS
        # Encoding reads nothing yet, but to know the length of a large table takes a while.
        body = encode(values, chosen) if small else await run_sync(encode, values, chosen)
        if await send_not_modified(exchange, head):
            return
        if small and exchange.scope["method"] == "GET":
            whole = partial(whole_answer, head, body, found.field.run.version, began=began)
            answer = await run_sync(whole) if self._service.remote else whole()
            self._service.recent.put(exchange.asked, answer)
            await send_whole(exchange, answer)
        else:
            await send_body(exchange, head, body, began=began)

    async def _send_reduced(
        self, exchange: Exchange, found: Slice, request: SliceRequest, operation: Reduction
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), FORMATS)
        check_size(found, self._service.settings.max_reduced_bytes, "a reduction")
        over = request.over or ()
        tag = etag(found.digest, f"{chosen}-{operation}-{'.'.join(over)}")
        if await send_not_modified(exchange, _head(found, tag, request)):
            return
        began = perf_counter()
        dims, array = await run_sync(reduce, found, operation, over)
        coordinates = {name: at for name, at in found.coordinates().items() if name in dims}
        values = Values(
            run=found.field.run.manifest.id,
            field=found.field.spec.name,
            layer=found.field.spec.layer,
            dims=dims,
            shape=array.shape,
            dtype=array.dtype,
            dtype_name=array.dtype.name,
            coordinates=lambda: coordinates,
            pieces=lambda _: iter([array]),
            steps=found.steps,
        )
        head = _head(found, tag, request, values)
        await send_body(exchange, head, encode(values, chosen), began=began)

    async def _send_top(
        self, exchange: Exchange, found: Slice, request: SliceRequest, wanted: Top
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), TOP_FORMATS)
        check_size(found, self._service.settings.max_reduced_bytes, "a search for the largest")
        tag = etag(found.digest, f"{chosen}-top-{wanted.count}-{wanted.threshold}")
        head = _head(found, tag, request)
        if await send_not_modified(exchange, head):
            return
        began = perf_counter()
        triplets = await run_sync(top, found, wanted.count, wanted.threshold)
        await send_body(exchange, head, encode_top(found, triplets, chosen), began=began)


def step_number(text: str) -> int:
    """Return the step number in a path.

    Raises
    ------
    InvalidInputError
        ``invalid-selection``.
    """
    if not _STEP.fullmatch(text):
        message = f"expected a step number in the path, such as 17 or -1; got {text[:40]!r}"
        raise InvalidInputError(ErrorKind.INVALID_SELECTION, message)
    return int(text)


def check_answer(found: Slice, chosen: SliceFormat, settings: Settings) -> None:
    """Check that a slice is not too large for an answer in the format *chosen*.

    Raises
    ------
    TooLargeError
        ``answer-too-large``.
    """
    if chosen in TEXT_FORMATS:
        check_size(found, settings.max_text_bytes, f"an answer as {chosen}")
    else:
        check_size(found, settings.max_answer_bytes, "a binary answer")


def _head(found: Slice, tag: str, request: SliceRequest, values: Values | None = None) -> Head:
    headers: list[tuple[bytes, bytes]] = []
    if values is not None:
        headers += [
            (_DTYPE, values.dtype_name.encode()),
            (_SHAPE, ",".join(map(str, values.shape)).encode()),
            (_DIMS, ",".join(values.dims).encode()),
        ]
    text = steps_text(found.steps)
    if text and len(text) <= LONGEST_HEADER:
        headers.append((_STEPS, text.encode()))
    lifetime = cache_control(sealed=found.field.run.sealed)
    return Head(tag, lifetime, headers, varies=request.format is None)


def steps_text(steps: tuple[int, ...]) -> str:
    """Return step numbers in the order in which they come, ranges where they rise."""
    if len(steps) == 1:  # what is asked most
        return str(steps[0])
    if all(earlier < later for earlier, later in pairwise(steps)):
        return ranges_text(step_ranges(steps))
    return ",".join(map(str, steps))


def slice_calls(service: Service) -> list[Call]:
    """Return every call that answers with a slice."""
    trace, layers = SliceAnswer(service, Place.TRACE), SliceAnswer(service, Place.LAYERS)
    inputs, outputs = SliceAnswer(service, Place.INPUTS), SliceAnswer(service, Place.OUTPUTS)
    calls = (
        ("/runs/{run}/steps/{step}/{field}", trace, "step_field", "A field at one step"),
        (
            "/runs/{run}/steps/{step}/layers/{layer:path}/{field}",
            layers,
            "step_layer_field",
            "A layer's field at one step",
        ),
        ("/runs/{run}/fields/{field}", trace, "field", "A field over steps"),
        (
            "/runs/{run}/layers/{layer:path}/{field}",
            layers,
            "layer_field",
            "A layer's field over steps",
        ),
        ("/runs/{run}/inputs/{field}", inputs, "input_field", "What the sampler began with"),
        ("/runs/{run}/outputs/{field}", outputs, "output_field", "A final result"),
    )
    return [
        Call(
            path,
            answer,
            name,
            summary,
            "slices",
            PARAMETERS if "step}" in path or "puts" in path else (STEPS, *PARAMETERS),
            tuple(MEDIA_TYPES.values()),
            (HTTPStatus.NOT_ACCEPTABLE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        )
        for path, answer, name, summary in calls
    ]
