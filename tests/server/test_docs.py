"""`docs/http.md` says what is there, all of it and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from archive_schema.errors import from_kind
from server.app import create_app
from server.problems import status_of
from server.settings import PREFIX, Settings, load_settings
from tests.server_fixture import served

if TYPE_CHECKING:
    from tests.server.conftest import Served

TEXT = (Path(__file__).parents[2] / "docs/http.md").read_text("utf-8")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_call_is_told() -> None:
    schema = create_app(load_settings(store="memory://docs")).openapi()
    told = set(re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) (/[^`?\s]*)", TEXT))
    for first, *others in re.findall(r"`GET (/[^`]*)`((?: · `/[^`]*`)+)", TEXT):
        for other in re.findall(r"`(/[^`]*)`", others[0]):
            told |= {first.rpartition(other.split("/")[1])[0] + other, other}
            told.add(re.sub(r"/(inputs|fields)(?=/|$)", other.partition("/{")[0], first))

    for path in schema["paths"]:
        ending = re.fullmatch(r"/runs/{run}(\.[a-z0-9]+)", path)
        if ending:
            assert f"`{ending[1]}`" in TEXT or f"{{run}}{ending[1]}" in TEXT
        else:
            assert path in told, path


def test_every_kind_that_a_reader_can_meet_has_the_status_that_is_told() -> None:
    told = {
        kind: int(status)
        for status, kinds in re.findall(r"^\| (\d{3}) \| (.*) \|$", section("Errors"), re.MULTILINE)
        for kind in re.findall(r"`([a-z-]+)`", kinds)
    }

    for kind, status in told.items():
        assert status_of(from_kind(kind, "")) == status, kind


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_told(name: str) -> None:
    assert f"`{name.upper()}`" in section("Settings"), f"{PREFIX}{name.upper()}"


@pytest.mark.parametrize("prefix", ["", "/traces"])
def test_a_proxy_may_keep_the_prefix_or_take_it_away(served_store: Served, prefix: str) -> None:
    with served(served_store.store.url, root_path="/traces") as url:
        for path in ("/runs", "/runs/sealed", "/runs/sealed/steps/1/score", "/runs/sealed.npz"):
            assert httpx.get(f"{url}{prefix}{path}").status_code == 200
        page = httpx.get(f"{url}{prefix}/docs").text
        lead = httpx.get(f"{url}{prefix}/").headers["location"]

    assert '"/traces/openapi.json"' in page.replace("'", '"')
    assert lead == "/traces/docs"
