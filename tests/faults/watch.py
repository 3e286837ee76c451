"""Readers that look at a run all the time, and believe nothing.

Each answer must be one of three: values equal to the truth, "not recorded", or an error that
the faults of the moment explain. Part of a tile, zeros for something absent, and a tile that
was there and is gone are none of them.
"""

from __future__ import annotations

import io
import random
import threading
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import httpx
import numpy as np

from archive_schema.errors import ArchiveError, NotFoundError
from tests.faults.truth import BATCHES, FIELDS, LAYER, STEPS, TILE, Tile, tiles, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from server.query import Archive

CUT: Final = "cut"
"""Kind of an answer that its receiver sees to be incomplete, or of a connection that broke."""
_PAUSE_S: Final = 0.02
"""Readers leave some of the machine to those whom they watch."""
_OVER_STEPS: Final = 0.3
"""How many reads go over all steps."""


class RefusedError(Exception):
    """An answer that is an error, of the given kind."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Source(Protocol):
    """A way to read one run."""

    name: str

    def tile(self, tile: Tile) -> NDArray[Any] | None:
        """Return the values of a tile, or None if it is not recorded."""

    def steps(self, tile: Tile) -> Mapping[int, NDArray[Any] | None]:
        """Return the tile's samples at all steps by one read; None where nothing is recorded."""


class InProcess:
    """Reads by the query layer."""

    name = "in process"

    def __init__(self, archive: Archive, run: str) -> None:
        self._archive = archive
        self._run = run

    def tile(self, tile: Tile) -> NDArray[Any] | None:
        """Return the values of a tile, or None if it is not recorded."""
        try:
            view = self._archive.run(self._run).field(_name(tile), layer=_layer(tile))
            return view.select({"step": tile.step, "sample": _samples(tile)}).array()
        except NotFoundError:
            return None
        except ArchiveError as error:
            raise RefusedError(error.kind, str(error)) from error

    def steps(self, tile: Tile) -> Mapping[int, NDArray[Any] | None]:
        """Return the tile's samples at all steps by one read; None where nothing is recorded."""
        try:
            view = self._archive.run(self._run).field(_name(tile), layer=_layer(tile))
            found = view.select({"sample": _samples(tile)}, missing="mask")
            return _by_step(found.steps, found.array(), found.recorded())
        except NotFoundError:
            return {}
        except ArchiveError as error:
            raise RefusedError(error.kind, str(error)) from error


class OverHttp:
    """Reads from a service."""

    name = "over HTTP"

    def __init__(self, client: httpx.Client, run: str) -> None:
        self._client = client
        self._run = run

    def tile(self, tile: Tile) -> NDArray[Any] | None:
        """Return the values of a tile, or None if it is not recorded."""
        named = _name(tile) if _layer(tile) is None else f"layers/{_layer(tile)}/{_name(tile)}"
        answer = self._get(f"steps/{tile.step}/{named}", tile, "npy")
        return None if answer is None else np.load(answer)

    def steps(self, tile: Tile) -> Mapping[int, NDArray[Any] | None]:
        """Return the tile's samples at all steps by one read; None where nothing is recorded."""
        inside = "fields" if _layer(tile) is None else f"layers/{_layer(tile)}"
        answer = self._get(f"{inside}/{_name(tile)}", tile, "npz", missing="mask")
        if answer is None:
            return {}
        with np.load(answer) as loaded:
            return _by_step(loaded["step"].tolist(), loaded[_name(tile)], loaded["recorded"])

    def _get(self, path: str, tile: Tile, kind: str, **more: str) -> io.BytesIO | None:
        samples = f"{tile.start}:{tile.start + TILE}"
        parameters = {"samples": samples, "format": kind, **more}
        try:
            answer = self._client.get(f"/runs/{self._run}/{path}", params=parameters)
        except httpx.TransportError as error:
            raise RefusedError(CUT, repr(error)) from error
        if answer.is_success:
            return io.BytesIO(answer.content)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        unavailable = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        if unavailable != ("retry-after" in answer.headers):
            raise RefusedError(f"{answer.status_code} {dict(answer.headers)}", answer.text)
        raise RefusedError(answer.json()["kind"], answer.text)


@dataclass(slots=True)
class Seen:
    """What readers saw of one run."""

    reads: int = 0
    """Tiles whose values were held to the truth."""
    refused: Counter[str] = field(default_factory=Counter)
    """Honest errors, by kind."""
    wrong: list[str] = field(default_factory=list)
    """Answers that nothing excuses."""

    def add(self, other: Seen) -> None:
        """Take over what another reader saw."""
        self.reads += other.reads
        self.refused += other.refused
        self.wrong += other.wrong


class Reader:
    """Reads a run on a thread of its own while it is entered.

    Parameters
    ----------
    honest : set of str
        Kinds of errors that the faults of the scenario explain.
    versions : int
        How many samplers there are that record values of their own.
    """

    def __init__(self, source: Source, seed: int, honest: set[str], versions: int = 1) -> None:
        self.seen = Seen()
        self._source = source
        self._chance = random.Random(seed)
        self._honest = honest
        self._versions = versions
        self._known: dict[Tile, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"reader {source.name}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def look_at_all(self) -> set[Tile]:
        """Read every tile, and return those that are recorded."""
        for tile in tiles():
            self._look(tile, self._source.tile(tile))
        return set(self._known)

    def refused(self) -> dict[Tile, str]:
        """Read every tile, and return the kind of error of those that cannot be read."""
        found = {}
        for tile in tiles():
            try:
                self._source.tile(tile)
            except RefusedError as error:
                found[tile] = str(error.kind)
        return found

    def version(self, tile: Tile) -> int | None:
        """Return whose values the reader saw, or None if it saw none."""
        return self._known.get(tile)

    def _loop(self) -> None:
        chance = self._chance
        while not self._end.wait(_PAUSE_S):
            tile = Tile(chance.choice(FIELDS), chance.randrange(STEPS), chance.choice(BATCHES))
            try:
                if chance.random() < _OVER_STEPS:
                    found = self._source.steps(tile)
                    for step in range(STEPS):
                        self._look(tile._replace(step=step), found.get(step))
                else:
                    self._look(tile, self._source.tile(tile))
            except RefusedError as error:
                self.seen.refused[error.kind] += 1
                if error.kind not in self._honest:
                    self.seen.wrong.append(f"{self._source.name}: {tile}: {error}")
            except Exception:  # noqa: BLE001  told at the end, with the rest
                self.seen.wrong.append(traceback.format_exc())

    def _look(self, tile: Tile, values: NDArray[Any] | None) -> None:
        before = self._known.get(tile)
        if values is None:
            if before is not None and "withdrawn" not in self._honest:
                self._wrong(tile, "was recorded, and is not now")
            return
        self.seen.reads += 1
        version = version_of(tile, values, self._versions)
        if version is None:
            zeros = int((values == 0).sum())
            self._wrong(tile, f"other values of shape {values.shape}, {zeros} of them zero")
        elif self._known.setdefault(tile, version) != version:
            self._wrong(tile, f"changed from the values of sampler {before} to those of {version}")

    def _wrong(self, tile: Tile, what: str) -> None:
        self.seen.wrong.append(f"{self._source.name}: {tile}: {what}")


def _by_step(
    steps: tuple[int, ...], values: NDArray[Any], recorded: NDArray[np.bool_]
) -> dict[int, NDArray[Any] | None]:
    """Return what a mask lets through; a tile that is recorded in part comes as what is there."""
    rows = {}
    for at, step in enumerate(steps):
        rows[step] = values[at][recorded[at]] if recorded[at].any() else None
    return rows


def _name(tile: Tile) -> str:
    return tile.field.rpartition("/")[2]


def _layer(tile: Tile) -> str | None:
    return LAYER if tile.field.startswith("layers/") else None


def _samples(tile: Tile) -> slice:
    return slice(tile.start, tile.start + TILE)
