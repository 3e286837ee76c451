"""Buckets: reached as other tools reach them, and what is wrong is said when they are not."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from archive_schema.errors import (
    ConflictError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StoreRefusedError,
)
from archive_schema.store import Store, StoreOptions, open_store
from archive_schema.store.foreign import foreign_errors, foreign_filesystem
from archive_schema.store.s3 import S3Access
from tests.clients.scripted import Answer, Asked, scripted
from tests.s3_server import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.s3_server import S3Server

WRONG = "a-secret-that-is-wrong"
QUICK: dict[str, Any] = {"request_timeout_s": 0.5, "patience_s": 0.5}
SIGNED = StoreOptions(access_key_id="AKID", secret_access_key=WRONG, **QUICK)
CALLS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("k"),
    "read_range": lambda store: store.read_range("k", 0, 1),
    "size": lambda store: store.size("k"),
    "write": lambda store: store.write("k", b"1"),
    "create": lambda store: store.create("k", b"1"),
    "delete": lambda store: store.delete("k"),
    "folders": lambda store: store.folders("k"),
    "objects": lambda store: list(store.objects("k")),
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Take every credential and address out of the environment; return the home folder."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3", "ALLOW_HTTP"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    # Nobody is to be asked who is not of this test.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


@pytest.fixture
def keys(s3: S3Server) -> StoreOptions:
    """Return what reaches the S3 server without any variable."""
    return StoreOptions(
        endpoint_url=s3.endpoint_url,
        access_key_id=s3.environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=s3.environment["AWS_SECRET_ACCESS_KEY"],
        **QUICK,
    )


def write_profile(home: Path, s3: S3Server, config: str) -> None:
    """Write profile ``lab``, with keys that are right, and *config*."""
    (home / ".aws/credentials").write_text(
        "[lab]\n"
        f"aws_access_key_id = {s3.environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {s3.environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    (home / ".aws/config").write_text(config)


def both_reach(url: str, options: StoreOptions | None = None) -> None:
    """Write through the store and read through fsspec, and the other way round."""
    store = open_store(url, options)
    filesystem, path = foreign_filesystem(f"{url}/there", options)

    store.write("there", b"1")
    assert filesystem.cat_file(path) == b"1"
    filesystem.pipe_file(path, b"22")
    assert store.read("there") == b"22"


def test_keys_are_enough(bare: Path, s3: S3Server, keys: StoreOptions) -> None:
    del bare
    both_reach(s3.fresh_url(), keys)


def test_keys_of_our_own_variables_are_enough(
    bare: Path, s3: S3Server, keys: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    del bare
    for name, value in keys.variables().items():
        monkeypatch.setenv(name, value)

    both_reach(s3.fresh_url())


@pytest.mark.parametrize(
    "config",
    [
        "[profile lab]\nendpoint_url = {}\nregion = eu-north-1\n",
        "[profile lab]\nservices = here\n[services here]\ns3 =\n  endpoint_url = {}\n",
    ],
)
@pytest.mark.parametrize("variable", [None, "AWS_PROFILE", "TRACE_ARCHIVE_STORE_PROFILE"])
def test_a_profile_is_enough(
    bare: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, config: str, variable: str | None
) -> None:
    write_profile(bare, s3, config.format(s3.endpoint_url))
    if variable is not None:
        monkeypatch.setenv(variable, "lab")

    both_reach(s3.fresh_url(), StoreOptions(profile="lab") if variable is None else None)


def test_a_profile_that_is_named_wins_over_keys_in_the_environment(
    bare: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(bare, s3, f"[profile lab]\nendpoint_url = {s3.endpoint_url}\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-somebody-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")

    both_reach(s3.fresh_url(), StoreOptions(profile="lab"))


@pytest.mark.parametrize(
    ("variables", "options", "found"),
    [
        ({}, StoreOptions(), (None, "us-east-1", False)),
        ({"AWS_DEFAULT_REGION": "r"}, StoreOptions(), (None, "r", False)),
        ({"AWS_DEFAULT_REGION": "d", "AWS_REGION": "r"}, StoreOptions(), (None, "r", False)),
        ({"AWS_REGION": "r"}, StoreOptions(region="o"), (None, "o", False)),
        ({"AWS_ENDPOINT_URL": "http://a"}, StoreOptions(), ("http://a", "us-east-1", True)),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://s"},
            StoreOptions(),
            ("http://s", "us-east-1", True),
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://s"},
            StoreOptions(endpoint_url="http://o", path_style=False),
            ("http://o", "us-east-1", False),
        ),
        (
            {"TRACE_ARCHIVE_STORE_ENDPOINT_URL": "http://t", "AWS_ENDPOINT_URL_S3": "http://s"},
            StoreOptions(),
            ("http://t", "us-east-1", True),
        ),
    ],
)
def test_where_it_is_comes_from_the_nearest_place(
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    options: StoreOptions,
    found: tuple[str | None, str, bool],
) -> None:
    del bare
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    access = S3Access.resolved("bucket", options)

    assert (access.endpoint_url, access.region, access.path_style) == found


def test_a_bucket_stands_in_the_path_or_in_the_host(bare: Path) -> None:
    """As obstore and s3fs each want to be told."""
    del bare
    endpoint = StoreOptions(endpoint_url="https://r2.example.org/")
    path = S3Access.resolved("b", endpoint)
    host = S3Access.resolved("b", replace(endpoint, path_style=False))
    dotted = S3Access.resolved("b.c", StoreOptions())

    assert path.config()["endpoint"] == "https://r2.example.org"
    assert host.config()["endpoint"] == "https://b.r2.example.org"
    assert host.config()["virtual_hosted_style_request"]
    assert dotted.path_style  # no certificate is made for b.c.s3.amazonaws.com
    styles = [
        access.fsspec_arguments()["config_kwargs"]["s3"]["addressing_style"]
        for access in (path, host, dotted)
    ]
    assert styles == ["path", "virtual", "path"]


@pytest.mark.parametrize(
    "prefix", ["", "/", "/a", "/a/", "/a b/ü", "/n/e/s/t", "/100%20%", "/x#y?z", "/a+b"]
)
def test_any_prefix_is_a_store(s3: S3Server, prefix: str, tmp_path: Path) -> None:
    """It means what it says, as for other tools: nothing is decoded."""
    store = open_store(f"s3://{BUCKET}{prefix}")
    name = tmp_path.name
    store.create(f"{name}/one", b"1")
    store.write(f"{name}/two/b.1", b"22")

    below = f"{prefix.strip('/')}/{name}".lstrip("/")
    keys = foreign_filesystem(f"s3://{BUCKET}")[0].find(f"{BUCKET}/{below}")
    assert keys == [f"{BUCKET}/{below}/one", f"{BUCKET}/{below}/two/b.1"]
    assert {found.key for found in store.objects(name)} == {f"{name}/one", f"{name}/two/b.1"}
    assert store.folders(name) == ["two"]
    assert store.read(f"{name}/two/b.1") == b"22"
    with pytest.raises(ConflictError):
        store.create(f"{name}/one", b"2")
    del s3


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"secret_access_key": WRONG}, "secret key"),
        ({"access_key_id": "nobody"}, "access key"),
    ],
)
def test_who_is_refused_is_told_why(
    keys: StoreOptions, call: str, change: dict[str, Any], told: str
) -> None:
    """And is not kept waiting: it will not change."""
    store = open_store(f"s3://{BUCKET}/x", replace(keys, **change, patience_s=1e6))

    with pytest.raises(StoreRefusedError) as caught:
        CALLS[call](store)

    # The answer to a HEAD has no body that says more.
    assert ("let these credentials in" if call == "size" else told) in str(caught.value)
    assert not caught.value.retryable
    assert WRONG not in str(caught.value)


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"size"}))
def test_a_bucket_that_is_not_there_is_no_empty_one(keys: StoreOptions, call: str) -> None:
    """But for the answer to a HEAD, which tells the two apart nowhere."""
    store = open_store("s3://no-such-bucket/x", replace(keys, patience_s=1e6))

    with pytest.raises(StoreRefusedError, match="no such bucket"):
        CALLS[call](store)


@pytest.mark.parametrize("call", CALLS)
def test_without_credentials_one_is_told_what_to_do(bare: Path, call: str) -> None:
    del bare
    store = open_store("s3://bucket/x", StoreOptions(endpoint_url="http://127.0.0.1:9", **QUICK))

    with pytest.raises(StoreRefusedError, match="no credentials: name a profile"):
        CALLS[call](store)


def test_credentials_that_a_program_gives_are_asked_for_when_they_are_needed(
    bare: Path, s3: S3Server
) -> None:
    """And not for each request; a program that fails may be asked again."""
    program, asked = bare / "keys", bare / "asked"
    (bare / ".aws/config").write_text(
        f"[profile lab]\nendpoint_url = {s3.endpoint_url}\ncredential_process = sh {program}\n"
    )
    program.write_text(f"echo . >> {asked}; exit 1")
    store = open_store(s3.fresh_url(), StoreOptions(profile="lab", patience_s=0.1))
    assert not asked.exists()

    with pytest.raises(StorageError, match="no credentials") as caught:
        store.write("k", b"1")
    given = {
        "Version": 1,
        "AccessKeyId": s3.environment["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": s3.environment["AWS_SECRET_ACCESS_KEY"],
        "Expiration": "2999-01-01T00:00:00Z",
    }
    program.write_text(f"echo . > {asked}; echo '{json.dumps(given)}'")
    for _ in range(3):
        store.write("k", b"1")
        assert store.read("k") == b"1"

    assert caught.value.retryable
    assert asked.read_text() == ".\n"


def test_foreign_files_are_refused_in_the_same_words(
    bare: Path, s3: S3Server, keys: StoreOptions
) -> None:
    del bare

    def kind_of(url: str, options: StoreOptions) -> ErrorKind:
        filesystem, path = foreign_filesystem(url, options)
        with pytest.raises((NotFoundError, StorageError)) as caught, foreign_errors(url):
            filesystem.cat_file(path)
        assert WRONG not in str(caught.value)
        return caught.value.kind

    url = f"{s3.fresh_url()}/none"
    assert kind_of(url, keys) is ErrorKind.OBJECT_NOT_FOUND
    assert kind_of(url, replace(keys, secret_access_key=WRONG)) is ErrorKind.STORE_REFUSED
    assert kind_of(url, StoreOptions(endpoint_url=s3.endpoint_url)) is ErrorKind.STORE_REFUSED


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("scheme", "told"),
    [("http", "connection refused"), ("https", "no TLS is spoken"), ("silent", "no answer")],
)
def test_what_is_not_reached_is_told_apart(s3: S3Server, call: str, scheme: str, told: str) -> None:
    """And no call waits for ever."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if scheme == "silent":
            listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if scheme == "https":
            url = s3.endpoint_url.replace("http:", "https:")
        timeout_s = 0.2 if scheme == "silent" else 20.0
        options = replace(SIGNED, endpoint_url=url, request_timeout_s=timeout_s, patience_s=0.1)
        store = open_store("s3://bucket/x", options)

        with pytest.raises(StorageError, match=told) as caught:
            CALLS[call](store)

    assert isinstance(caught.value, StoreRefusedError) is (scheme == "https")
    assert url in str(caught.value)


class Bucket:
    """Objects that are kept as S3 keeps them, behind answers that a test spoils."""

    def __init__(self, *spoilt: Answer | None, lands: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self._spoilt = list(spoilt)
        """Answers to puts, in this order; None for the right one."""
        self._lands = lands
        """Whether a put whose answer is spoilt is carried out."""

    def __call__(self, asked: Asked) -> Answer:
        """Answer a request."""
        key = unquote(asked.path.partition("?")[0])
        headers = {"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
        if asked.method == "PUT":
            spoilt = self._spoilt.pop(0) if self._spoilt else None
            taken = asked.headers.get("if-none-match") == "*" and key in self.objects
            if not taken and (spoilt is None or self._lands):
                self.objects[key] = asked.body
            return spoilt or Answer(status=412 if taken else 200, headers=headers)
        if key not in self.objects:
            return Answer(status=404)
        return Answer(self.objects[key], headers=headers)


def test_a_put_whose_answer_was_lost_is_found_to_be_ours() -> None:
    bucket = Bucket(Answer(status=503), Answer(status=500))
    with scripted(bucket) as script:
        store = open_store("s3://b/x", replace(SIGNED, endpoint_url=script.url, patience_s=60))

        store.create("k", b"mine")

    assert bucket.objects == {"/b/x/k": b"mine"}
    assert [asked.method for asked in script.asked] == ["PUT", "PUT", "PUT", "GET"]


def test_a_put_whose_answer_was_lost_may_have_come_second() -> None:
    bucket = Bucket(Answer(status=503))
    with scripted(bucket) as script:
        bucket.objects["/b/x/k"] = b"theirs"
        store = open_store("s3://b/x", replace(SIGNED, endpoint_url=script.url, patience_s=60))

        with pytest.raises(ConflictError):
            store.create("k", b"mine")

    assert bucket.objects == {"/b/x/k": b"theirs"}


def test_a_conflict_about_nothing_is_asked_again() -> None:
    """Of two puts that meet, S3 may answer 409 to both and carry out none."""
    bucket = Bucket(Answer(status=409), Answer(status=409), lands=False)
    with scripted(bucket) as script:
        store = open_store("s3://b/x", replace(SIGNED, endpoint_url=script.url, patience_s=60))

        store.create("k", b"mine")

    assert bucket.objects == {"/b/x/k": b"mine"}


def test_a_store_that_contradicts_itself_is_not_asked_for_ever() -> None:
    bucket = Bucket(*[Answer(status=412)] * 1000, lands=False)
    with scripted(bucket) as script:
        store = open_store("s3://b/x", replace(SIGNED, endpoint_url=script.url, patience_s=0.3))

        with pytest.raises(StorageError, match="as if it were there, and it is not"):
            store.create("k", b"mine")


def test_an_equal_object_of_somebody_else_is_a_conflict() -> None:
    """Of two who create the same, one is told that it was second."""
    bucket = Bucket()
    bucket.objects["/b/x/k"] = b"same"
    with scripted(bucket) as script:
        store = open_store("s3://b/x", replace(SIGNED, endpoint_url=script.url))

        with pytest.raises(ConflictError):
            store.create("k", b"same")


def test_a_store_that_is_busy_is_asked_again() -> None:
    busy = Answer(b"<Error><Code>SlowDown</Code></Error>", status=503)
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with scripted(busy, busy, Answer(listing)) as script:
        options = replace(SIGNED, endpoint_url=script.url, patience_s=60)

        assert open_store("s3://b/x", options).folders("runs") == []

    assert len(script.asked) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (Answer(b"<Code>RequestTimeTooSkewed</Code>", 403), "store-unreachable", "clock"),
        (Answer(b"<Code>ExpiredToken</Code>", 400), "store-refused", "session token"),
        (Answer(b"<Code>PermanentRedirect</Code>", 301), "store-refused", "another region"),
        (Answer(b"<Code>AuthorizationHeaderMalformed</Code>", 400), "store-refused", "region"),
        (Answer(b"<Code>XMinioStorageFull</Code>", 507), "store-full", "full"),
        (Answer(b"<Code>SlowDown</Code>", 503), "store-unreachable", "fewer requests"),
    ],
)
def test_what_s3_says_is_understood(answer: Answer, kind: str, told: str) -> None:
    with scripted(answer) as script:
        store = open_store("s3://b/x", replace(SIGNED, endpoint_url=script.url, patience_s=0.1))

        with pytest.raises(StorageError, match=told) as caught:
            store.write("k", b"1")

    assert caught.value.kind == kind


def test_a_request_is_signed_by_whom_it_should_be(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session token of other keys would spoil every signature."""
    del bare
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    with scripted(Bucket()) as script:
        options = replace(SIGNED, endpoint_url=script.url, region="eu-west-3")
        open_store("s3://b/x", options).create("k", b"1")

    headers = {name.lower(): value for name, value in script.asked[0].headers.items()}
    assert "Credential=AKID/" in headers["authorization"]
    assert "/eu-west-3/s3/" in headers["authorization"]
    assert "x-amz-security-token" not in headers
    assert headers["x-amz-checksum-sha256"]
    assert headers["if-none-match"] == "*"
    assert WRONG not in str(headers)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_anonymous_reader_signs_nothing(
    bare: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Whoever's keys lie around."""
    del bare
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    headers = {"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    with scripted(Answer(b"public", headers=headers)) as script:
        options = StoreOptions(endpoint_url=script.url, anonymous=True)

        assert open_store(f"{scheme}://b/x", options).read("k") == b"public"
        if scheme == "s3":
            filesystem, path = foreign_filesystem("s3://b/x/k", options)
            assert filesystem.cat_file(path) == b"public"

    for asked in script.asked:
        assert "authorization" not in {name.lower() for name in asked.headers}


def test_nothing_opens_a_url_of_nobody() -> None:
    with pytest.raises(InvalidInputError) as caught:
        foreign_filesystem("nowhere://x/file")

    assert caught.value.kind is ErrorKind.STORE_URL_INVALID
