"""A simulation that is archived while it runs: nothing half, nothing mixed, and it can go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from archive_schema.records import RunRecords
from archive_schema.store import open_store
from recorder.importers import Following, import_file
from recorder.importers.batchie import open_batchie_tree
from recorder.importers.foreign_tree import ForeignTree
from recorder.importers.tree import import_tree
from server.exporters import MadeFile
from server.exporters.kept_files import kept_tree_file
from server.query import Archive
from server.systems.batchie import Simulation
from server.systems.layer_file import files_at
from tests.importers.batchie_files import (
    SCREEN,
    plate_folder,
    write_metadata,
    write_plate,
    write_thetas,
)
from tests.importers.test_batchie_round_trip import REAL, content, exported, take, tree_of
from tests.server_fixture import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from archive_schema.store import Store
    from recorder.importers import ImportReport
    from recorder.importers.foreign import ForeignFile
    from server.query import RunView

PROGRAM = Path(sys.executable).with_name("trace-archive")
_PATIENCE_S = 60.0


def follow(root: Path, store: Store, *acts: Callable[[], object]) -> ImportReport:
    """Follow a tree with three looks after each act, and then end."""
    script = [act for one in acts for act in (one, lambda: None, lambda: None)]
    remaining: Iterator[Callable[[], object]] = iter([lambda: None, lambda: None, *script])

    def wait() -> bool:
        act = next(remaining, None)
        if act is not None:
            act()
        return act is not None

    return import_file("batchie", root, store, "run", following=Following(wait))


def attempts(store: Store) -> list[tuple[int, int, int, bool]]:
    with Archive(store) as archive:
        found = Simulation(archive.run("run")).folders
    return [(one.iter, one.plate, one.attempt, one.current) for one in found]


def test_a_file_is_taken_once_it_is_whole(store: Store, archive: Archive, tmp_path: Path) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_plate(folder)
    path = folder / "thetas_0.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    metadata = (folder / "screen_metadata.json").read_bytes()
    (folder / "screen_metadata.json").unlink()
    seen: list[bool] = []

    def look() -> None:
        seen.append(archive.run("run").ledger.fields.get("layers/thetas_0/file") is not None)

    def finish() -> None:
        path.write_bytes(whole)

    def end() -> None:
        (folder / "screen_metadata.json").write_bytes(metadata)

    report = follow(tmp_path, store, look, finish, look, end)

    assert seen == [False, True]
    assert attempts(store) == [(0, 0, 0, True)]
    assert (report.sealed, report.missing) == (False, ())
    assert exported(archive.run("run")) == tree_of(tmp_path)


def test_a_folder_that_is_done_again_is_the_next_attempt(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_thetas(folder / "thetas_0.h5", 2, seed=1)

    def again() -> None:
        shutil.rmtree(folder)
        # What was there comes last: nothing that comes before it belongs to the old one.
        write_thetas(folder / "thetas_1.h5", 2, seed=2)

    def more() -> None:
        write_plate(folder, seed=3)

    report = follow(tmp_path, store, again, more)

    assert any("was done again" in sentence for sentence in report.odd)
    assert exported(archive.run("run")) == tree_of(tmp_path)
    found = Simulation(archive.run("run"))
    held = [[file.about.path for file in found.files(one.step)] for one in found.folders]
    assert held[0] == ["thetas_0.h5"]
    assert len(held[-1]) == 12
    assert [one.current for one in found.folders] == [False] * (len(held) - 1) + [True]


def test_what_is_removed_or_only_touched_changes_nothing(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_plate(folder)
    before = tree_of(tmp_path)

    def touch() -> None:
        for path in folder.iterdir():
            os.utime(path, (1, 1))

    def remove() -> None:
        (folder / "thetas_0.h5").unlink()

    follow(tmp_path, store, touch, remove)

    assert attempts(store) == [(0, 0, 0, True)]
    assert exported(archive.run("run")) == before


def test_what_was_done_again_meanwhile_is_found_out_by_the_next_import(
    store: Store, archive: Archive, tmp_path: Path
) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_thetas(folder / "thetas_0.h5", 2, seed=1)
    take(tmp_path, store)
    shutil.rmtree(folder)
    write_plate(folder, seed=2, unobserved=0)

    report = take(tmp_path, store)

    assert report.sealed
    assert attempts(store) == [(0, 0, 0, False), (0, 0, 1, True)]
    assert exported(archive.run("run")) == tree_of(tmp_path)
    assert take(tmp_path, store).known


def test_a_tree_that_is_not_there_yet_is_awaited(store: Store, tmp_path: Path) -> None:
    folder = plate_folder(tmp_path / "out", 0, 0)

    report = follow(tmp_path / "out", store, lambda: write_metadata(folder, unobserved=0))

    assert (report.files, report.sealed) == (2, True)


class RedoneTree(ForeignTree):
    """A tree of which a folder is removed and done again just before one of its files is read."""

    def __init__(self, url: Path, redo: Callable[[], object]) -> None:
        super().__init__(str(url))
        self._redo = iter([redo])

    def open(self, path: str) -> AbstractContextManager[ForeignFile]:  # noqa: D102
        if path.endswith("thetas_0.h5"):
            next(self._redo, lambda: None)()
        return super().open(path)


def test_files_of_two_attempts_never_mix(store: Store, archive: Archive, tmp_path: Path) -> None:
    folder = plate_folder(tmp_path, 0, 0)
    write_plate(folder, seed=1)
    before = tree_of(tmp_path)

    def redo() -> None:
        shutil.rmtree(folder)
        write_plate(folder, seed=5)

    looks = iter([True, True, True, True])
    import_tree(
        open_batchie_tree,
        RedoneTree(tmp_path, redo),
        store,
        "run",
        system="batchie",
        progress=lambda *_: None,
        following=Following(lambda: next(looks, False)),
    )

    run, after = archive.run("run"), tree_of(tmp_path)
    held = [contents(run, one.step) for one in Simulation(run).folders]
    assert len(held) == 2
    assert held[0].items() <= before.items()
    assert held[1] == after


def contents(run: RunView, step: int) -> dict[str, Any]:
    """Return the files of one attempt."""
    files = [kept_tree_file(f, f"iter_0/plate_0/{SCREEN}") for f in files_at(run, step)]
    return {f.path: content(f.path, b"".join(MadeFile(f).parts())) for f in files}


def command(root: Path, store: Path) -> subprocess.Popen[str]:
    arguments = ("batchie", root, "--run", "live", "--follow", "--interval", "0.02", "--json")
    return subprocess.Popen(
        [PROGRAM, "import", *map(str, arguments), "--store", store],
        stdout=subprocess.PIPE,
        text=True,
    )


def await_files(url: str, count: int) -> dict[str, Any]:
    """Return what the server says of the simulation once it has so many files."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        answer = httpx.get(f"{url}/runs/live/batchie")
        if answer.is_success:
            found: dict[str, Any] = answer.json()
            if sum(len(one["files"]) for one in found["folders"] if one["current"]) >= count:
                return found
        if time.monotonic() > deadline:
            message = f"{count} files were not archived: {answer.text}"
            raise TimeoutError(message)
        time.sleep(0.02)


def test_a_simulation_is_queried_while_it_runs(tmp_path: Path) -> None:
    """A simulation writes, an import follows it, ends and goes on, and a server answers."""
    root, store = tmp_path / "out", tmp_path / "store"
    folders = [REAL / f"iter_{i}/plate_{j}" for i, j in ((0, 0), (0, 1), (0, 2), (1, 0))]
    store.mkdir()
    importer = command(root, store)
    try:
        with served(store.as_uri()) as url:
            shutil.copytree(folders[0], root / "iter_0/plate_0")
            await_files(url, 18)
            report = httpx.get(f"{url}/runs/live/batchie/steps/0/distances/report").json()
            assert report["complete"]
            assert httpx.get(f"{url}/runs/live").json()["status"] == "recording"
            importer.send_signal(signal.SIGINT)
            assert '"sealed": false' in importer.communicate(timeout=_PATIENCE_S)[0]
            assert importer.returncode == 0
            importer = command(root, store)
            for count, folder in ((23, folders[1]), (28, folders[2]), (44, folders[3])):
                shutil.copytree(folder, root / folder.relative_to(REAL))
                await_files(url, count)
            scores = httpx.get(f"{url}/runs/live/batchie/steps/-1/scores").json()["coordinates"]
            assert scores["selected"].count(True) == 1
        assert '"sealed": true' in importer.communicate(timeout=_PATIENCE_S)[0]
    finally:
        importer.kill()
        importer.wait()
    opened = open_store(store)
    assert RunRecords(opened, "live").seal is not None
    with Archive(opened) as archive:
        assert exported(archive.run("live")) == tree_of(REAL)
