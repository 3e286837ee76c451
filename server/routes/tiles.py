"""Values put over HTTP: what is put at ``tiles/steps/3/x`` of a run is read at its ``steps/3/x``.

An answer comes when the values are committed, and is the acknowledgement: 201 if they are new,
200 if equal ones were recorded before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from anyio.to_thread import run_sync

from archive_schema.errors import ErrorKind, InvalidInputError, TooLargeError
from archive_schema.models import Place, check_run_id
from archive_schema.wire import DTYPE_HEADER, MEDIA_TYPES, SHAPE_HEADER, SliceFormat
from server.answers import Exchange
from server.parameters import query_parameters, refuse_unknown
from server.push.additions import Declaration, SampleValues, Values
from server.push.arrays import npy_described, npz_arrays, raw_described, received
from server.push.documents import (
    declaration,
    json_columns,
    json_coordinates,
    json_object,
    npz_step,
)
from server.push.upload import ClientGoneError, Upload
from server.routes.call import Call, Parameter
from server.routes.slices import step_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from server.push.additions import Addition, Array
    from server.service import Service

_NPY: Final = MEDIA_TYPES[SliceFormat.NPY]
_RAW: Final = MEDIA_TYPES[SliceFormat.RAW]
_NPZ: Final = MEDIA_TYPES[SliceFormat.NPZ]
_JSON: Final = MEDIA_TYPES[SliceFormat.JSON]
_UNSAID: Final = ("", "application/x-www-form-urlencoded")
"""Media types of who says none: curl says the second for whatever it posts."""
_ZIP_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
_MOST_JSON_NBYTES: Final = 1 << 20
_SAMPLES: Final = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")
_SAMPLES_PARAMETER: Final = Parameter(
    "samples", "Which samples of the run the values hold; all of them without it.", example="0:8"
)


@dataclass(frozen=True, slots=True)
class _Body:
    """The body of one request, what its headers say of it, and the memory it may take."""

    upload: Upload
    exchange: Exchange
    max_bytes: int
    hold: Callable[[int], None]
    """Takes memory, until the request is answered."""

    def media_type(self, *allowed: str) -> str:
        """Return the media type of the body, empty if it is not said.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` for another than those *allowed*.
        """
        coding = self.exchange.header(b"content-encoding") or "identity"
        if coding.strip().lower() != "identity":
            raise _expected("Content-Encoding", "none", coding)
        given = self.exchange.header(b"content-type") or ""
        name = given.partition(";")[0].strip().lower()
        if name in _UNSAID:
            return ""
        if name not in allowed:
            raise _expected("Content-Type", " or ".join(allowed), given)
        return name

    async def array(self) -> Array:
        """Receive one array."""
        described = (
            raw_described(
                self.exchange.header(DTYPE_HEADER.lower().encode()),
                self.exchange.header(SHAPE_HEADER.lower().encode()),
            )
            if self.media_type(_NPY, _RAW) == _RAW
            else await npy_described(self.upload)
        )
        described.check(self.max_bytes)
        return await received(self.upload, described, self.hold)

    async def is_npz(self) -> bool:
        """Return whether the body is an `.npz`, and not JSON."""
        said = self.media_type(_JSON, _NPZ, "application/zip")
        return (await self.upload.peek(4)) in _ZIP_SIGNATURES if not said else said != _JSON

    async def arrays(self) -> dict[str, Array]:
        """Receive every array of an `.npz`."""
        if self.upload.length is None:
            raise _expected("Content-Length", "the length of the .npz body", "nothing")
        self.hold(self.upload.length)
        body = BytesIO()
        await self.upload.copy(body)
        return await run_sync(npz_arrays, body, self.max_bytes, self.hold)

    async def json(self) -> dict[str, Any]:
        """Receive a JSON object."""
        data = await self.upload.read(_MOST_JSON_NBYTES + 1)
        if len(data) > _MOST_JSON_NBYTES:
            message = f"expected JSON of at most {_MOST_JSON_NBYTES:,} bytes; an .npz may have more"
            raise TooLargeError(ErrorKind.REQUEST_TOO_LARGE, message)
        return json_object(data)


class _Put:
    """Answers a PUT once what it brought is committed."""

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        given = query_parameters(scope["query_string"])
        refuse_unknown(given, [parameter.name for parameter in self.parameters])
        run_id = check_run_id(exchange.path["run"])
        service, settings = self._service, self._service.settings
        if not service.pushes.has_open(run_id):
            # Before a body is sent in vain to a run that is not there, or sealed.
            await service.writing(service.pushes.open, run_id)
        with service.inflight.hold() as hold:
            upload = Upload(
                receive,
                _length(exchange),
                max_bytes=settings.max_object_bytes,
                timeout_s=settings.upload_timeout_s,
            )
            body = _Body(upload, exchange, settings.max_object_bytes, hold)
            try:
                addition = await self.read(exchange.path, given, body)
            except ClientGoneError:  # in the middle of the body: there is nobody to answer
                return
            new = await service.writing(service.pushes.put, run_id, addition)
        status = HTTPStatus.CREATED if new else HTTPStatus.OK
        headers = [(b"content-length", b"0"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body"})

    async def read(
        self, path: Mapping[str, str], given: Mapping[str, str], body: _Body
    ) -> Addition:
        """Return what a request brings."""
        raise NotImplementedError


class _PutField(_Put):
    """Takes values of one field, at a step or of the whole run."""

    parameters = (_SAMPLES_PARAMETER,)

    def __init__(self, service: Service, place: Place) -> None:
        super().__init__(service)
        self._place = place

    async def read(
        self, path: Mapping[str, str], given: Mapping[str, str], body: _Body
    ) -> Addition:
        """Return the values."""
        step = step_number(path["step"]) if "step" in path else 0
        samples = _samples(given)
        arrays = {path["field"]: await body.array()}
        return Values(self._place, arrays, (), step, samples, path.get("layer"))


class _PutStep(_Put):
    """Takes coordinates of a step as JSON, or fields and coordinates of it as `.npz`."""

    parameters = (_SAMPLES_PARAMETER,)

    async def read(
        self, path: Mapping[str, str], given: Mapping[str, str], body: _Body
    ) -> Addition:
        """Return the values."""
        step, samples = step_number(path["step"]), _samples(given)
        if await body.is_npz():
            arrays, coordinates = npz_step(await body.arrays())
        else:
            arrays, coordinates = {}, json_coordinates(await body.json())
        return Values(Place.TRACE, arrays, coordinates, step, samples)


class _PutSamples(_Put):
    """Takes sample coordinates as JSON or as `.npz`."""

    parameters = (_SAMPLES_PARAMETER,)

    async def read(self, _: Mapping[str, str], given: Mapping[str, str], body: _Body) -> Addition:
        """Return the values."""
        samples = _samples(given)
        if await body.is_npz():
            columns = {name: values.array for name, values in (await body.arrays()).items()}
        else:
            columns = json_columns(await body.json())
        return SampleValues(columns, samples)


class _PutDeclaration(_Put):
    """Takes what the first values of a field do not say."""

    async def read(self, path: Mapping[str, str], _: Mapping[str, str], body: _Body) -> Addition:
        """Return the declaration."""
        body.media_type(_JSON)
        document = declaration(await body.json())
        layer = path.get("layer")
        place = Place(document.place) if layer is None else Place.LAYERS
        return Declaration(place, layer, path["field"], document)


def tile_calls(service: Service) -> list[Call]:
    """Return every call that takes values."""
    trace, layers = _PutField(service, Place.TRACE), _PutField(service, Place.LAYERS)
    inputs, outputs = _PutField(service, Place.INPUTS), _PutField(service, Place.OUTPUTS)
    step, declared = _PutStep(service), _PutDeclaration(service)
    array, table = (_NPY, _RAW), (_JSON, _NPZ)
    calls: tuple[tuple[str, _Put, str, str, tuple[str, ...]], ...] = (
        ("steps/{step}/{field}", trace, "put_step_field", "Record a field at one step", array),
        (
            "steps/{step}/layers/{layer:path}/{field}",
            layers,
            "put_step_layer_field",
            "Record a layer's field at one step",
            array,
        ),
        ("inputs/{field}", inputs, "put_input", "Record what the sampler began with", array),
        ("outputs/{field}", outputs, "put_output", "Record a final result", array),
        ("steps/{step}", step, "put_step", "Record coordinates, or all, of a step", table),
        ("samples", _PutSamples(service), "put_samples", "Record sample coordinates", table),
        ("fields/{field}", declared, "declare_field", "Declare a field", (_JSON,)),
        (
            "layers/{layer:path}/{field}",
            declared,
            "declare_layer_field",
            "Declare a layer's field",
            (_JSON,),
        ),
    )
    return [
        Call(
            f"/runs/{{run}}/tiles/{path}",
            answer,
            name,
            summary,
            "values",
            answer.parameters,
            statuses=(
                HTTPStatus.UNAUTHORIZED,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.CONFLICT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            ),
            method="PUT",
            body=media_types,
            successes=(
                (HTTPStatus.CREATED, "Recorded: committed to the store."),
                (HTTPStatus.OK, "Recorded before, with equal values."),
            ),
        )
        for path, answer, name, summary, media_types in calls
    ]


def _samples(given: Mapping[str, str]) -> slice | None:
    text = given.get("samples")
    if text is None:
        return None
    found = _SAMPLES.fullmatch(text.strip())
    if found is None:
        raise _expected("samples", "start:stop, such as 0:8", text)
    return slice(int(found[1]), int(found[2]))


def _length(exchange: Exchange) -> int | None:
    text = exchange.header(b"content-length")
    return None if text is None else int(text)


def _expected(name: str, expected: str, got: str) -> InvalidInputError:
    message = f"{name}: expected {expected}, got {got[:100]!r}"
    return InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
