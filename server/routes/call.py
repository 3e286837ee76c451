"""A call that is answered by plain ASGI, and how OpenAPI describes it.

FastAPI's own routes cost several times what a small slice does. These cost a regular
expression and nothing else, so they say themselves what FastAPI would have found out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Match, Route

from archive_schema.wire import PROBLEM_MEDIA_TYPE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

_CONVERTER: Final = re.compile(r":[a-z]+(?=})")
_PATH_PARAMETERS: Final = {
    "run": "Id of the run.",
    "step": "Step number; negative from the last recorded step.",
    "field": "Name of the field.",
    "layer": "Name of the layer, with its dots, `blocks.11.mlp`, or a glob, `blocks.*.mlp`: then"
    " the answer has an axis `layer`, or as npz an array for each layer where they differ.",
    "key": "Key inside the Zarr hierarchy, `trace/score/zarr.json`, or, of an object, the run.",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter."""

    name: str
    description: str
    choices: tuple[str, ...] = ()
    example: str | None = None
    open: bool = False
    """Whether it stands for parameters of any name."""


COORDINATES: Final = Parameter(
    "coordinates",
    "Coordinates of steps and samples by their names: `recycle=2`, `cell_type=K562,HepG2`,"
    " `timestep=0.5` (the nearest), `timestep=0.2:0.4`. Several narrow together. `step.<name>` or"
    " `sample.<name>` where a dimension, an option or the other axis has the same name.",
    open=True,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One path, what answers it, and what OpenAPI says of it."""

    path: str
    """As Starlette routes it: ``/runs/{run}/layers/{layer:path}/{field}``."""
    answer: ASGIApp
    name: str
    summary: str
    tag: str
    parameters: tuple[Parameter, ...] = ()
    media_types: tuple[str, ...] = ()
    """Of the answer."""
    statuses: tuple[HTTPStatus, ...] = field(default=())
    """Problems that can come beside 404, 422, 500 and 503."""
    method: str = "GET"
    body: tuple[str, ...] = ()
    """Media types of the request's body, of a call that takes one."""
    successes: tuple[tuple[HTTPStatus, str], ...] = (
        (HTTPStatus.OK, "OK"),
        (HTTPStatus.NOT_MODIFIED, "The client holds it already (If-None-Match)."),
    )

    def route(self) -> Route:
        """Return the route; one for GET answers HEAD, too."""
        return _NamedRoute(self.path, self.answer, methods=[self.method], name=self.name)

    @property
    def openapi_path(self) -> str:
        """The path as OpenAPI writes it."""
        return _CONVERTER.sub("", self.path)

    def operation(self) -> dict[str, Any]:
        """Return the operation object of OpenAPI 3.1."""
        in_path = re.findall(r"{([a-z]+)}", self.openapi_path)
        problems = (
            *self.statuses,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            HTTPStatus.SERVICE_UNAVAILABLE,
        )
        binary = {"schema": {"type": "string", "format": "binary"}}
        bodies = {"requestBody": {"required": True, "content": dict.fromkeys(self.body, binary)}}
        return {
            **(bodies if self.body else {}),
            "summary": self.summary,
            "operationId": self.name,
            "tags": [self.tag],
            "parameters": [
                *(_described(name, "path", _PATH_PARAMETERS[name]) for name in in_path),
                *(query_parameter(parameter) for parameter in self.parameters),
            ],
            "responses": {
                **{
                    str(status.value): {
                        "description": description,
                        **(
                            {"content": dict.fromkeys(self.media_types, binary)}
                            if status is HTTPStatus.OK and self.media_types
                            else {}
                        ),
                    }
                    for status, description in self.successes
                },
                **{
                    str(status.value): {
                        "description": status.phrase,
                        "content": {
                            PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                        },
                    }
                    for status in sorted(problems)
                },
            },
        }


class _NamedRoute(Route):
    """A route that the metrics can name; FastAPI's router leaves plain routes without a name."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as any route, and say which one it was."""
        match, child_scope = super().matches(scope)
        child_scope["route"] = self
        return match, child_scope


def query_parameter(parameter: Parameter) -> dict[str, Any]:
    """Return a parameter as OpenAPI describes it."""
    described = _described(parameter.name, "query", parameter.description)
    if parameter.open:
        # So OpenAPI says that each member is a parameter of its own.
        texts = {"type": "object", "additionalProperties": {"type": "string"}}
        return {**described, "style": "form", "explode": True, "schema": texts}
    if parameter.choices:
        described["schema"]["enum"] = list(parameter.choices)
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _described(name: str, where: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string"},
    }
