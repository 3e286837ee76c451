"""How a store is reached is said once, in one place, and secrets stay there."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

import pytest

from archive_schema.cli import GROUP
from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.flags import StorePlace, takes_store
from archive_schema.store import StoreOptions, open_store

SECRET = "wJalrXUtnFEMI/K7MDENG"
KEYS: dict[str, Any] = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET}
FLAGS = {"endpoint_url", "region", "path_style", "profile", "anonymous"}


def test_secrets_are_not_shown() -> None:
    """Options end up in logs and tracebacks."""
    options = StoreOptions(**KEYS, session_token=f"token-{SECRET}", token=f"tap-{SECRET}")

    assert SECRET not in repr(options)
    assert SECRET not in repr(StorePlace("s3://bucket", options))
    assert "AKIDEXAMPLE" in repr(options)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"secret_access_key": SECRET}, "needs access_key_id"),
        ({"access_key_id": "x"}, "needs secret_access_key"),
        ({"session_token": SECRET}, "needs access_key_id and secret_access_key"),
        ({**KEYS, "profile": "lab"}, "profile and access_key_id"),
        ({"profile": "lab", "anonymous": True}, "profile and anonymous"),
        ({"endpoint_url": "minio:9000"}, "such as https://host:9000; got 'minio:9000'"),
        ({"endpoint_url": f"http://user:{SECRET}@minio"}, "no credentials"),
        ({"request_timeout_s": 0}, "more than 0 seconds; got 0"),
        ({"patience_s": -1.0}, "more than 0 seconds; got -1.0"),
    ],
)
def test_what_contradicts_itself_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        StoreOptions(**values)

    assert caught.value.kind is ErrorKind.INVALID_PARAMETER
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


def test_variables_complete_what_is_not_said() -> None:
    environment = {
        "TRACE_ARCHIVE_STORE_ENDPOINT_URL": "http://there:9000",
        "TRACE_ARCHIVE_STORE_REGION": "auto",
        "TRACE_ARCHIVE_STORE_PATH_STYLE": "no",
        "TRACE_ARCHIVE_STORE_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "TRACE_ARCHIVE_STORE_SECRET_ACCESS_KEY": SECRET,
        "TRACE_ARCHIVE_STORE_SESSION_TOKEN": "",
    }

    found = StoreOptions(region="eu-west-1", patience_s=3).completed(environment)

    assert found == StoreOptions(
        endpoint_url="http://there:9000",
        region="eu-west-1",
        path_style=False,
        **KEYS,
        patience_s=3,
    )


@pytest.mark.parametrize("said", [{"profile": "lab"}, {"anonymous": True}, {"anonymous": False}])
def test_who_asks_is_decided_as_a_whole(said: dict[str, Any]) -> None:
    """Keys of one place with the session token of another are nobody's."""
    environment = {
        "TRACE_ARCHIVE_STORE_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "TRACE_ARCHIVE_STORE_SECRET_ACCESS_KEY": SECRET,
    }

    assert StoreOptions(**said).completed(environment) == StoreOptions(**said)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ANONYMOUS", "perhaps", "ANONYMOUS is true or false; got 'perhaps'"),
        ("SECRET_ACCESS_KEY", SECRET, "needs access_key_id"),
        ("ENDPOINT_URL", "there", "got 'there'"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused(name: str, value: str, told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        StoreOptions().completed({f"TRACE_ARCHIVE_STORE_{name}": value})

    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        StoreOptions(),
        StoreOptions("http://x", "auto", path_style=False, **KEYS, session_token="t"),
        StoreOptions(profile="lab", path_style=True),
        StoreOptions(anonymous=True),
    ],
)
def test_another_process_is_given_the_same_options(options: StoreOptions) -> None:
    assert asdict(StoreOptions().completed(options.variables())) == asdict(options)


def test_every_command_with_a_store_takes_the_same_options() -> None:
    with_store = []
    for entry in entry_points(group=GROUP):
        parameters = signature(entry.load()).parameters
        if "store" in parameters:
            with_store.append(entry.name)
            assert parameters.keys() >= FLAGS, entry.name
        assert not {"secret_access_key", "session_token"} & parameters.keys(), (
            "what stands on a command line is seen by every process"
        )

    assert {"demo", "export", "import", "ls", "rm", "serve", "show", "verify"} <= set(with_store)


def test_flags_become_options() -> None:
    got: list[tuple[StorePlace, int]] = []

    @takes_store
    def command(number: int, store: StorePlace = StorePlace("here")) -> None:  # noqa: B008
        got.append((store, number))

    said = dict.fromkeys(FLAGS) | {"anonymous": False}
    command(number=1, store="there", **said)
    command(number=2, store="s3://b", **said | {"anonymous": True, "path_style": False})

    assert signature(command).parameters["store"].default == "here"
    assert got == [
        (StorePlace("there"), 1),
        (StorePlace("s3://b", StoreOptions(path_style=False, anonymous=True)), 2),
    ]


@pytest.mark.parametrize(
    ("url", "options", "kind"),
    [
        ("gs://bucket/x", StoreOptions(region="eu"), ErrorKind.INVALID_PARAMETER),
        ("az://container/x", StoreOptions(profile="lab"), ErrorKind.INVALID_PARAMETER),
        ("s3://bucket", StoreOptions(profile="of-nobody"), ErrorKind.INVALID_PARAMETER),
        ("az://container/x", None, ErrorKind.STORE_URL_INVALID),
        ("file://host/x", None, ErrorKind.STORE_URL_INVALID),
        ("file:", None, None),
    ],
)
def test_a_store_that_cannot_be_meant_is_refused_when_it_is_opened(
    monkeypatch: pytest.MonkeyPatch, url: str, options: StoreOptions | None, kind: ErrorKind | None
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    if kind is None:
        assert open_store(url, options).url.endswith("/file%3A")
        return

    with pytest.raises(InvalidInputError) as caught:
        open_store(url, options)

    assert caught.value.kind is kind
    assert "Debug" not in str(caught.value)
