"""Files of a run: resumed where they broke off, never overwritten, never half."""

from __future__ import annotations

import asyncio
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

import h5py
import httpx
import numpy as np
import pytest

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    InvalidInputError,
    StorageError,
)
from clients import ArchiveClient, AsyncArchiveClient, RetryPolicy
from tests.clients.cutting import cutting
from tests.clients.scripted import BUSY, Answer, Asked, document, run_document, scripted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clients import Run
    from tests.clients.conftest import Recorded

QUICK = RetryPolicy(attempts=2, first_pause_s=0.001)
CONTENT = bytes(range(256)) * 40


def serving(content: bytes, tag: str) -> Answer:
    """Return the whole of a file."""
    return Answer(content, headers={"ETag": f'"{tag}"'})


def rest_of(content: bytes, tag: str) -> Callable[[Asked], Answer]:
    """Return what answers a request for the rest of a file."""

    def answer(asked: Asked) -> Answer:
        start = int(asked.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if asked.headers["If-Range"] != f'"{tag}"':
            return serving(content, tag)
        headers = {
            "ETag": f'"{tag}"',
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
        }
        return Answer(content[start:], 206, headers)

    return answer


def test_a_run_is_downloaded_in_the_format_of_its_ending(
    recorded: Recorded, everything: Run, tmp_path: Path
) -> None:
    url = f"{recorded.url}/runs/everything"
    cut: dict[str, Any] = {"steps": [0, 8], "samples": slice(2, 4), "fields": ["f2"]}

    h5 = everything.download(tmp_path / "run.h5")
    npz = everything.download(tmp_path / "cut.npz", **cut)
    named = everything.download(tmp_path / "run", format="npz")

    assert h5py.is_hdf5(h5)
    assert h5.read_bytes() == httpx.get(f"{url}.h5").content
    with np.load(npz) as file:
        (name,) = [name for name in file.files if name.endswith("f2")]
        assert np.array_equal(file[name], recorded.values["f2"][[0, 8], 2:4])
    assert named.read_bytes() == httpx.get(f"{url}.npz").content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.npz", "run", "run.h5"]


def test_a_compressed_file_is_downloaded_though_nobody_knows_its_length(
    recorded: Recorded, everything: Run, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []

    h5 = everything.download(
        tmp_path / "run.h5", compression="gzip", progress=lambda *report: told.append(report)
    )
    npz = everything.download(tmp_path / "run.npz", compression="deflate", fields=["f4"])

    with h5py.File(h5) as file:
        assert len(file["steps"]) == len(recorded.values["f4"])
    with np.load(npz) as file:
        np.testing.assert_array_equal(file["trace/f4"], recorded.values["f4"])
    assert told[-1] == (h5.stat().st_size, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.h5", "run.npz"]


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "asynchronous"])
def test_a_download_that_is_cut_goes_on_where_it_broke_off(
    recorded: Recorded, tmp_path: Path, *, awaited: bool
) -> None:
    whole = httpx.get(f"{recorded.url}/runs/everything.npz").content
    retry = RetryPolicy(attempts=3, first_pause_s=0.001)

    async def fetch(url: str) -> None:
        async with AsyncArchiveClient(url, retry=retry) as client:
            await (await client.run("everything")).download(tmp_path / "run.npz")

    with cutting(recorded.url) as proxy:
        # The document and the first third pass the first connection.
        third = len(whole) // 3
        proxy.cuts = [10_000 + third, third, third]
        if awaited:
            asyncio.run(fetch(proxy.url))
        else:
            with ArchiveClient(proxy.url, retry=retry) as client:
                client.run("everything").download(tmp_path / "run.npz")

    assert (tmp_path / "run.npz").read_bytes() == whole
    assert len(proxy.passed) > 2
    assert sum(proxy.passed) < len(whole) * 2, "the whole was fetched again"
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_what_arrived_is_kept_for_the_next_call(tmp_path: Path) -> None:
    """Also for another process: everything that is needed lies beside the file."""
    target = tmp_path / "run.h5"
    cut = Answer(CONTENT, headers={"ETag": '"a"'}, cut=4000)
    away = Answer(b"away", 503, {"Retry-After": "0"})
    with scripted(document(run_document()), cut, away) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(StorageError):
                client.run("r").download(target)
    assert not target.exists()
    assert (tmp_path / "run.h5.part").read_bytes() == CONTENT[:4000]

    with scripted(document(run_document()), rest_of(CONTENT, "a")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            client.run("r").download(target)

    assert target.read_bytes() == CONTENT
    assert script.asked[1].headers["Range"] == "bytes=4000-"
    assert script.asked[1].headers["If-Range"] == '"a"'
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_a_file_that_became_another_one_is_begun_anew(tmp_path: Path) -> None:
    """Two halves of two files would be neither."""
    target = tmp_path / "run.h5"
    (tmp_path / "run.h5.part").write_bytes(b"old" * 1000)
    (tmp_path / "run.h5.part.etag").write_text('"old"')

    with scripted(document(run_document()), rest_of(CONTENT, "new")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            client.run("r").download(target)

    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"a"', '"b"'], ids=["the same file", "another file"])
def test_a_part_that_was_complete_is_not_fetched_again(tmp_path: Path, etag: str) -> None:
    target = tmp_path / "run.h5"
    (tmp_path / "run.h5.part").write_bytes(CONTENT)
    (tmp_path / "run.h5.part.etag").write_text(etag)

    def answer(asked: Asked) -> Answer:
        if asked.headers.get("If-Range") == '"a"':
            return Answer(b"{}", 416, {"Content-Range": f"bytes */{len(CONTENT)}"})
        return serving(CONTENT, "a")

    with scripted(document(run_document()), answer) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            client.run("r").download(target)

    assert target.read_bytes() == CONTENT
    assert len(script.asked) == 2


def test_a_part_that_is_too_long_is_thrown_away(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"
    (tmp_path / "run.h5.part").write_bytes(CONTENT + b"more")
    (tmp_path / "run.h5.part.etag").write_text('"a"')
    refused = Answer(b"{}", 416, {"Content-Range": f"bytes */{len(CONTENT)}"})

    with scripted(document(run_document()), refused, serving(CONTENT, "a")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            client.run("r").download(target)

    assert target.read_bytes() == CONTENT


def test_a_proxy_that_ignores_if_range_does_not_mix_two_files(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"
    (tmp_path / "run.h5.part").write_bytes(CONTENT[:4000])
    (tmp_path / "run.h5.part.etag").write_text('"a"')
    headers = {"ETag": '"b"', "Content-Range": f"bytes 4000-{len(CONTENT) - 1}/{len(CONTENT)}"}
    other = Answer(CONTENT[4000:][::-1], 206, headers)

    with scripted(document(run_document()), other, serving(CONTENT, "b")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            client.run("r").download(target)

    assert target.read_bytes() == CONTENT


def test_nothing_is_overwritten_unless_it_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"
    target.write_bytes(b"mine")
    with scripted(document(run_document()), serving(CONTENT, "a")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            run = client.run("r")
            with pytest.raises(ConflictError, match="overwrite=True") as caught:
                run.download(target)
            assert len(script.asked) == 1
            assert target.read_bytes() == b"mine"
            run.download(target, overwrite=True)

    assert caught.value.kind is ErrorKind.OUTPUT_EXISTS
    assert target.read_bytes() == CONTENT


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"

    def answer(_: Asked) -> Answer:
        target.write_bytes(b"mine")
        return serving(CONTENT, "a")

    with scripted(document(run_document()), answer) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(ConflictError):
                client.run("r").download(target)

    assert target.read_bytes() == b"mine"
    assert (tmp_path / "run.h5.part").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(CONTENT, headers={"Content-Encoding": "gzip"}), "coded on its way"),
        (Answer(CONTENT, 206, {"Content-Range": "bytes 5-9/10"}), "expected the bytes from 0"),
    ],
    ids=["coded", "other bytes"],
)
def test_an_answer_that_is_not_the_file_is_refused(
    tmp_path: Path, answer: Answer, said: str
) -> None:
    with scripted(document(run_document()), answer) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            with pytest.raises(ArchiveError, match=said):
                client.run("r").download(tmp_path / "run.h5")

    assert not (tmp_path / "run.h5").exists()


def test_a_busy_server_is_waited_for_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with scripted(document(run_document()), BUSY, serving(CONTENT, "a")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            client.run("r").download(
                tmp_path / "run.h5", progress=lambda done, total: told.append((done, total))
            )

    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_a_bar_is_shown_to_who_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, quiet = StringIO(), StringIO()
    with scripted(document(run_document()), serving(CONTENT, "a")) as script:
        with ArchiveClient(script.url, retry=QUICK) as client:
            run = client.run("r")
            monkeypatch.setattr(sys, "stderr", shown)
            run.download(tmp_path / "run.h5", progress=True)
            monkeypatch.setattr(sys, "stderr", quiet)
            run.download(tmp_path / "run.npz")

    assert "run.h5" in shown.getvalue()
    assert quiet.getvalue() == "", "standard error is no terminal here"


def test_what_no_format_belongs_to_is_refused(everything: Run, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="a name with an ending"):
        everything.download(tmp_path / "run")
    with pytest.raises(InvalidInputError) as caught:
        everything.download(tmp_path / "run.xyz")

    assert caught.value.kind is ErrorKind.FORMAT_NOT_ACCEPTABLE
    assert list(tmp_path.iterdir()) == []
