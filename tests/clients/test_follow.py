"""A run is followed while another process records it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest

from archive_schema.errors import NotFoundError
from archive_schema.models import RunStatus
from clients import ArchiveClient, AsyncArchiveClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clients import Run
    from tests.server_fixture import Serve

STEPS = 4


@contextmanager
def sampling(store: Path, end: str) -> Iterator[IO[str]]:
    """Start a sampler; each line that is written makes it go on by one step."""
    command = [
        sys.executable, "-m", "tests.clients.sampler", str(store), "growing", str(STEPS), end,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdin is not None
            yield process.stdin
            process.communicate()
        finally:
            process.kill()
    assert process.returncode == (0 if end == "seal" else 1)


def opened(client: ArchiveClient) -> Run:
    """Open the run as soon as it is there."""
    while True:
        try:
            return client.run("growing")
        except NotFoundError:
            continue


def tell(sampler: IO[str]) -> None:
    sampler.write("go on\n")
    sampler.flush()


@pytest.mark.parametrize(
    ("end", "status"), [("seal", RunStatus.SEALED), ("fail", RunStatus.INCOMPLETE)]
)
def test_each_step_comes_while_it_is_recorded(
    tmp_path: Path, serve: Serve, end: str, status: RunStatus
) -> None:
    """The sampler records a step only after the one before it was read here."""
    url = serve(str(tmp_path / "store"))
    with sampling(tmp_path / "store", end) as sampler, ArchiveClient(url) as client:
        run = opened(client)
        assert run.steps == ()
        tell(sampler)
        seen: list[int] = []
        for step in run.follow("x", poll_s=0.02):
            assert np.array_equal(run["x"][step], np.full((4, 3), step))
            if step not in seen:  # it comes again when its coordinate does
                seen.append(step)
                tell(sampler)

    assert seen == list(range(STEPS))
    assert run.status is status
    assert "x" in run.fields
    with ArchiveClient(url) as client:
        run = client.run("growing")
        assert list(run.follow(since=run.version)) == []
        assert list(run.follow()) == list(range(STEPS))
        assert list(run.follow("x", "y")) == []
        assert run.step_coordinates()["t"].tolist() == [step / 10 for step in range(STEPS)]


def test_the_asynchronous_client_follows_too(tmp_path: Path, serve: Serve) -> None:
    url = serve(str(tmp_path / "store"))

    async def follow(sampler: IO[str]) -> list[int]:
        async with AsyncArchiveClient(url) as client:
            run = await client.run("growing")
            seen: list[int] = []
            async for step in run.follow("x", poll_s=0.02):
                assert np.array_equal(await run["x"][step, 1], np.full(3, step))
                if step not in seen:
                    seen.append(step)
                    tell(sampler)
            assert run.status is RunStatus.SEALED
            return seen

    with sampling(tmp_path / "store", "seal") as sampler:
        with ArchiveClient(url) as client:
            opened(client)
        tell(sampler)
        seen = asyncio.run(follow(sampler))

    assert seen == list(range(STEPS))
