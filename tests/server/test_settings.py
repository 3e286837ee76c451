"""Settings come from variables and arguments, and what is unsafe is refused in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from archive_schema.errors import ErrorKind, InvalidInputError
from server.settings import load_settings


def test_arguments_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_ARCHIVE_STORE", "from-the-environment")
    monkeypatch.setenv("TRACE_ARCHIVE_PORT", "1234")
    monkeypatch.setenv("TRACE_ARCHIVE_CORS_ORIGINS", "https://a.example, https://b.example")

    settings = load_settings(store="given", port=None)

    assert settings.store == "given"
    assert settings.port == 1234
    assert settings.cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_is_the_default_and_needs_no_more(host: str) -> None:
    assert load_settings(store="x").host == "127.0.0.1"
    assert load_settings(store="x", host=host).host == host


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "TRACE_ARCHIVE_STORE"),
        ({"store": "x", "host": "0.0.0.0"}, "--public"),
        ({"store": "x", "host": "::"}, "--public"),
        ({"store": "x", "host": "example.org"}, "--public"),
        ({"store": "memory://x", "workers": 2}, "workers"),
        ({"store": "x", "workers": 2, "port": 0}, "port"),
        ({"store": "x", "workers": 0}, "workers"),
        ({"store": "x", "port": "http"}, "TRACE_ARCHIVE_PORT"),
        ({"store": "x", "root_path": "traces/"}, "/traces"),
        ({"store": "x", "max_answer_bytes": 1 << 40}, "max_answer_bytes"),
    ],
)
def test_what_is_unsafe_or_senseless_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told) as caught:
        load_settings(**values)

    assert caught.value.kind is ErrorKind.INVALID_PARAMETER


def test_a_public_host_can_be_meant() -> None:
    assert load_settings(store="x", host="0.0.0.0", public=True).public
