"""The description of the service is complete, consistent, and readable without a network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from server.app import create_app
from server.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

SCHEMA: dict[str, Any] = create_app(load_settings(store="memory://openapi")).openapi()
PROMISED = (
    "/runs", "/runs/{run}", "/runs/{run}.h5", "/runs/{run}.npz", "/runs/{run}/steps",
    "/runs/{run}/steps/{step}", "/runs/{run}/steps/{step}/{field}",
    "/runs/{run}/steps/{step}/layers/{layer}/{field}", "/runs/{run}/fields/{field}",
    "/runs/{run}/layers/{layer}/{field}", "/runs/{run}/layers", "/runs/{run}/inputs/{field}",
    "/runs/{run}/outputs/{field}", "/runs/{run}/samples", "/runs/{run}/query",
    "/runs/{run}/zarr/{key}", "/runs/{run}/changes", "/runs/{run}/events",
    "/healthz", "/readyz", "/metrics",
)  # fmt: skip


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in SCHEMA["paths"].items()
        for method, operation in item.items()
    ]


def references(value: object) -> Iterator[str]:
    """Yield every `$ref` below *value*."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.parametrize("path", PROMISED)
def test_every_call_is_described(path: str) -> None:
    assert path in SCHEMA["paths"]


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(("path", "method", "operation"), operations())
def test_the_parameters_of_a_path_are_described(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    described = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}

    assert described == set(re.findall(r"{(\w+)}", path)), method


@pytest.mark.parametrize(("path", "method", "operation"), operations())
def test_problems_are_described_wherever_they_can_come(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    assert "#/components/schemas/Problem" in set(references(operation)), f"{method} {path}"


def test_every_reference_leads_somewhere() -> None:
    for reference in references(SCHEMA):
        found: Any = SCHEMA
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert isinstance(found, dict)


def test_the_page_of_calls_asks_no_other_host(http: httpx.Client) -> None:
    page = http.get("/docs").text

    linked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert linked
    for link in linked:
        assert link.startswith("/"), link
        assert http.get(link).status_code == 200


def test_the_root_leads_to_the_page_of_calls(http: httpx.Client) -> None:
    assert http.get("/").headers["location"] == "/docs"


def test_metrics_count_by_route_and_not_by_run(http: httpx.Client) -> None:
    http.get("/runs/sealed/steps/1/score")
    http.head("/runs/sealed")
    http.get("/runs/no-such-run-for-metrics")

    text = http.get("/metrics").text

    assert 'call="/runs/{run}/steps/{step}/{field}",method="GET",status="200"' in text
    assert 'call="/runs/{run}",method="HEAD",status="200"' in text
    assert "no-such-run-for-metrics" not in text
