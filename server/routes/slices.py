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
from urllib.parse import quote

from anyio.to_thread import run_sync

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.models import Place
from archive_schema.wire import (
    DIMS_HEADER,
    DTYPE_HEADER,
    LAYERS_HEADER,
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
from server.formats import TEXT_FORMATS, choose_format, encode, values_of
from server.formats.binary import npz
from server.formats.triplets import TOP_FORMATS, encode_top
from server.limits import check_size
from server.parameters import slice_request
from server.query import REDUCTIONS, LayerSlices, is_glob, top
from server.routes.call import COORDINATES, Call, Parameter
from server.routes.planned import planned, planned_layers
from server.routes.reduced import by_layer, reduced

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from server.formats import Values
    from server.parameters import SliceRequest, Top
    from server.query import Planned, Reduction, RunView
    from server.service import Service
    from server.settings import Settings

FORMATS: Final = tuple(SliceFormat)
INLINE_NBYTES: Final = 64 * 1024
INLINE_STEPS: Final = 8
"""A slice of so many steps and bytes is read faster than a thread is reached."""
LONGEST_HEADER: Final = 4096
_DTYPE, _SHAPE, _DIMS, _STEPS, _LAYERS = (
    name.lower().encode()
    for name in (DTYPE_HEADER, SHAPE_HEADER, DIMS_HEADER, STEPS_HEADER, LAYERS_HEADER)
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
    Parameter(
        "top",
        "Give the largest values of a matrix as (row, column, value); the places along axes before"
        " these come first.",
        example="50",
    ),
    Parameter("threshold", "Leave out triplets below this value.", example="0.01"),
    COORDINATES,
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
        step = step_number(path["step"]) if "step" in path else None
        found, request = await self._planned(run, exchange, step)
        if request.top is not None:
            await self._send_top(exchange, found, request, request.top)
        elif request.reduce is not None:
            await self._send_reduced(exchange, found, request, request.reduce)
        else:
            await self._send_slice(exchange, found, request, began)

    async def _planned(
        self, run: RunView, exchange: Exchange, step: int | None
    ) -> tuple[Planned, SliceRequest]:
        path, query_string = exchange.path, exchange.scope["query_string"]
        layer = path.get("layer")
        if layer is not None and is_glob(layer) and layer not in run.layers():
            return await run_sync(planned_layers, run, path, query_string, step)
        field = run.field(path["field"], layer=layer, place=self._place)
        request = slice_request(query_string, field.dims, () if step is None else ("step",))
        # To look through coordinates takes a while where there are many samples.
        if request.named:
            return await run_sync(planned, field, request, step), request
        return planned(field, request, step), request

    async def _send_slice(
        self, exchange: Exchange, found: Planned, request: SliceRequest, began: float
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), FORMATS)
        check_answer(found, chosen, self._service.settings)
        masked = request.missing == "mask"
        tag = etag(found.digest, f"{chosen}-mask" if masked else chosen)
        if isinstance(found, LayerSlices) and not found.alike():
            if chosen is not SliceFormat.NPZ:
                found.check_alike()
            members = [(name, values_of(one, masked=masked)) for name, one in found.slices.items()]
            head = _head(found, tag, request)
            if not await send_not_modified(exchange, head):
                await send_body(exchange, head, npz(members), began=began)
            return
        values = values_of(found, masked=masked)
        head = _head(found, tag, request, values)
        small = found.nbytes <= INLINE_NBYTES and len(found.steps) <= INLINE_STEPS
        # Encoding reads nothing yet, but to know the length of a large table takes a while.
        body = encode(values, chosen) if small else await run_sync(encode, values, chosen)
        if await send_not_modified(exchange, head):
            return
        if small and exchange.scope["method"] == "GET":
            whole = partial(whole_answer, head, body, found.field.run.version, began=began)
            away = self._service.remote or bool(found.layers)
            answer = await run_sync(whole) if away else whole()
            self._service.recent.put(exchange.asked, answer)
            await send_whole(exchange, answer)
        else:
            await send_body(exchange, head, body, began=began)

    async def _send_reduced(
        self, exchange: Exchange, found: Planned, request: SliceRequest, operation: Reduction
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), FORMATS)
        check_size(found, self._service.settings.max_reduced_bytes, "a reduction")
        over = request.over or ()
        if isinstance(found, LayerSlices):
            apart = by_layer(found, over)
            if not apart or chosen is not SliceFormat.NPZ:
                found.check_alike(over if apart else ())
        tag = etag(found.digest, f"{chosen}-{operation}-{'.'.join(over)}")
        if await send_not_modified(exchange, _head(found, tag, request)):
            return
        began = perf_counter()
        made = await run_sync(reduced, found, operation, over)
        if isinstance(made, list):
            await send_body(exchange, _head(found, tag, request), npz(made), began=began)
            return
        head = _head(found, tag, request, made)
        await send_body(exchange, head, encode(made, chosen), began=began)

    async def _send_top(
        self, exchange: Exchange, found: Planned, request: SliceRequest, wanted: Top
    ) -> None:
        chosen = choose_format(request.format, exchange.header(b"accept"), TOP_FORMATS)
        if isinstance(found, LayerSlices):
            found.check_alike()
        check_size(found, self._service.settings.max_reduced_bytes, "a search for the largest")
        tag = etag(found.digest, f"{chosen}-top-{wanted.count}-{wanted.threshold}")
        head = _head(found, tag, request)
        if await send_not_modified(exchange, head):
            return
        began = perf_counter()
        largest = await run_sync(top, found, wanted.count, wanted.threshold)
        await send_body(exchange, head, encode_top(found, largest, chosen), began=began)


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


def check_answer(found: Planned, chosen: SliceFormat, settings: Settings) -> None:
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


def _head(found: Planned, tag: str, request: SliceRequest, values: Values | None = None) -> Head:
    headers: list[tuple[bytes, bytes]] = []
    if values is not None:
        headers += [
            (_DTYPE, values.dtype_name.encode()),
            (_SHAPE, ",".join(map(str, values.shape)).encode()),
            (_DIMS, ",".join(values.dims).encode()),
        ]
    text = steps_text(found.steps)
    if text and len(text) <= LONGEST_HEADER and not (found.layers and values is None):
        headers.append((_STEPS, text.encode()))
    if found.layers:
        names = ",".join(quote(layer, safe="") for layer in found.layers)
        if len(names) <= LONGEST_HEADER:
            headers.append((_LAYERS, names.encode()))
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
