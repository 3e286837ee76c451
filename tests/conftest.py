"""Stores of every kind, for every test: memory, a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from archive_schema.store import open_store
from tests.s3_server import S3Server
from tests.server_fixture import served

# Before torch is imported, here and in programs that tests start: where tests share the cores,
# a thread for each core in each of them makes all of them wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Nobody here speaks TLS, and each HTTP client that is made reads the certificates of all the
# world's authorities, for longer than most tests take: let there be one authority, nobody.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("data") / "nobody.pem")

# Where tests share the cores, how long an example took, or was drawn, says nothing. And whether a
# change is taken must not hang on luck: the examples are the same each time, and others are tried
# by `pytest --hypothesis-profile=explore`.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", patient)
settings.register_profile("shared", patient, derandomize=True, database=None)
settings.load_profile("shared")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archive_schema.store import Store


@pytest.fixture(scope="session", autouse=True)
def spool_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what tests spool out of the home of who runs them; programs inherit it."""
    place = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACE_ARCHIVE_SPOOL", str(place))
        yield place


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the session."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            server.await_ready()
            yield server
    finally:
        server.kill()


@pytest.fixture(params=["memory", "file", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store, of each kind in turn.

    A suite that says ``"http"``, by indirect parametrization, gets a server before a store.
    """
    if request.param == "http":
        url: str = request.getfixturevalue("gateway_url")
        return url
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    server: S3Server = request.getfixturevalue("s3")
    return server.fresh_url()


@pytest.fixture
def gateway_url() -> Iterator[str]:
    """Return the address of a server before an empty store, which takes writes."""
    with served(f"memory://{uuid.uuid4().hex}", allow_push=True) as url:
        yield url


@pytest.fixture
def store(store_url: str) -> Store:
    """Open an empty store, of each kind in turn."""
    return open_store(store_url)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """Open an empty folder, for what only a folder can show, or where one kind is enough."""
    return open_store(tmp_path / "store")
