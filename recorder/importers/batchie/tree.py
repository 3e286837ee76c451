"""The plate folders of one simulation, taken over as they come.

A step is one attempt at a plate folder. BATCHIE's driver removes a folder that was cut short and
does it again, and its models draw without a seed: files of two attempts must never mix. So a step
only ever takes files that were in the folder at one time, together with all that the step holds
already; once one of those has gone or changed and others come, they are the next attempt, which is
another step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from archive_schema.errors import InvalidInputError
from archive_schema.models import Place
from archive_schema.systems.batchie import (
    ATTEMPT,
    ITER,
    METADATA_FILE,
    PLATE,
    UNOBSERVED,
    is_draw,
)
from archive_schema.systems.kept_file import FILE
from recorder.importers.batchie.loading import (
    LoadedFile,
    NotWholeError,
    hand_over,
    is_known,
    load,
    path_of,
)
from recorder.importers.batchie.report import Folder, describe
from recorder.importers.comparison import given_crc32
from recorder.importers.fitting import Fitting
from recorder.importers.importer import TreeImporter

if TYPE_CHECKING:
    import numpy as np
    from pydantic import JsonValue

    from archive_schema.ledger import Ledger
    from archive_schema.records import RunRecords
    from recorder.importers.foreign_tree import ForeignTree, Signature
    from recorder.importers.source import Findings, Progress, Sink

_ITER: Final = re.compile(r"iter_([0-9]{1,9})")
_PLATE: Final = re.compile(r"plate_([0-9]{1,9})")
_BELOW: Final = "model_evaluation_analysis"


def open_batchie_tree(
    tree: ForeignTree, part: str | None, records: RunRecords | None
) -> BatchieTree | None:
    """Return the simulation in *tree* of the screen *part*; None if there is none yet.

    Raises
    ------
    InvalidInputError
        ``file-invalid`` if there are several screens, and none is named.
    """
    screens = {
        screen for folder in _plate_folders(tree).values() for screen in tree.folders(folder)
    } - {"work"}
    if part is None and len(screens) > 1:
        message = f"expected one screen, found {', '.join(sorted(screens))}: name one by --part"
        raise tree.refuse(message)
    screen = part or next(iter(screens), None)
    if screen is None or screen not in screens:
        return None
    return BatchieTree(tree, screen, None if records is None else records.ledger)


@dataclass(slots=True)
class _Step:
    """One attempt at one plate folder, as far as it is recorded."""

    number: int
    attempt: int
    held: dict[str, Signature | None] = field(default_factory=dict)
    """Files, by path, and how they looked when they were what is recorded; None if not known."""


class BatchieTree:
    """One simulation of one screen.

    Parameters
    ----------
    screen
        Name of the folder below each plate folder.
    ledger
        What is recorded of it already.
    """

    def __init__(self, tree: ForeignTree, screen: str, ledger: Ledger | None) -> None:
        self._tree = tree
        self._screen = screen
        self._ledger = ledger
        self._fitting = Fitting(ledger)
        self._steps: dict[tuple[int, int], _Step] = {}
        self._next = 0
        self._rows: dict[str, list[Any]] = {}
        self._unobserved: dict[tuple[int, int], int] = {}
        self._seen: dict[str, Signature] = {}
        self._folders: dict[tuple[int, int], Folder] = {}
        self._redone: list[str] = []
        self._taken: dict[tuple[int, str], bytes] = {}
        """What tells the files that were taken over since this was made from others."""
        self.metadata: dict[str, JsonValue] = {"screen": screen, "imported": {"format": "tree"}}
        if ledger is not None:
            self._resume(ledger)

    @property
    def steps(self) -> list[int]:
        """Steps of the latest attempts at the folders that are there."""
        return [step.number for at, step in self._steps.items() if at in self._folders]

    @property
    def samples(self) -> int:
        """Experiments of the screen."""
        return max(map(len, self._rows.values()), default=0)

    @property
    def files(self) -> int:
        """Files that are held of the latest attempts."""
        return sum(len(step.held) for step in self._steps.values())

    @property
    def ended(self) -> bool:
        """Whether every folder is complete and held, and no plate is left to be observed."""
        whole = all(folder.complete and not folder.pending for folder in self._folders.values())
        return whole and 0 in self._unobserved.values()

    def findings(self) -> Findings:
        """Return what is missing or odd in the tree as it is now."""
        return describe(self._folders, self._redone)

    def look(self, sink: Sink, progress: Progress, *, settled: bool) -> bool:
        """Take over what is new and whole; return whether there was anything."""
        listed = {at: self._listed(path) for at, path in _plate_folders(self._tree).items()}
        total = sum(map(len, listed.values()))
        done = 0
        taken = False
        for at, files in sorted(listed.items()):
            if files:
                taken |= self._look_into(at, files, sink, settled=settled)
            done += len(files)
            progress(done, total)
        return taken

    def compare(self, sink: Sink, progress: Progress) -> None:
        """Hand over every file that is there."""
        listed = {at: self._listed(path) for at, path in _plate_folders(self._tree).items()}
        for count, (at, files) in enumerate(sorted(listed.items()), 1):
            if not files:
                continue
            folder = self._folders[at] = Folder(_folder(*at), complete=METADATA_FILE in files)
            step = self._steps.get(at) or self._begun(at, 0)
            for path in files:
                loaded = self._loaded(at, path, settled=True)
                if loaded is not None:
                    self._record(sink, at, step, loaded)
                    folder.take(loaded)
            progress(count, len(listed))

    def _look_into(
        self, at: tuple[int, int], files: dict[str, Signature], sink: Sink, *, settled: bool
    ) -> bool:
        """Take over what is new in one plate folder."""
        folder = self._folders.setdefault(at, Folder(_folder(*at)))
        folder.complete = METADATA_FILE in files
        step = self._steps.get(at)
        held = {} if step is None else step.held
        known = [path for path in files if is_known(path)]
        folder.left_out = sorted(set(files) - set(known))
        fresh = [path for path in known if held.get(path) != files[path]]
        stable = [p for p in fresh if settled or self._seen.get(f"{at}/{p}") == files[p]]
        self._seen |= {f"{at}/{path}": files[path] for path in fresh}
        folder.pending = sorted(set(fresh) - set(stable))
        settled = settled or (folder.complete and not folder.pending)
        new = [path for path in stable if path not in held]
        changed = False
        if step is not None:
            again = {path: files[path] for path in stable if path in held}
            unfinished, changed = self._checked(at, step, again, sink)
            new += unfinished
        if changed or (new and not held.keys() <= files.keys()):
            self._again(at)
            new = [path for path in known if path not in folder.pending]
        return bool(new) and self._take(
            at, {path: files[path] for path in new}, sink, settled=settled
        )

    def _checked(
        self, at: tuple[int, int], step: _Step, again: dict[str, Signature], sink: Sink
    ) -> tuple[list[str], bool]:
        """Compare files that look otherwise than when they were recorded.

        Returns
        -------
        list of str, bool
            Those that are recorded in part, and whether another is recorded otherwise.
        """
        unfinished, changed = [], False
        for path, signature in again.items():
            loaded = self._loaded(at, path, settled=False)
            equal = False if loaded is None else self._equals(step, loaded)
            if equal and loaded is not None:
                self._record_about(sink, at, step, loaded)
                self._folders[at].take(loaded)
                step.held[path] = signature
            elif equal is None:
                unfinished.append(path)
            else:
                # One that cannot be read may be on its way: it is not compared, nor mixed with.
                changed = changed or loaded is not None
        return unfinished, changed

    def _again(self, at: tuple[int, int]) -> None:
        """Begin the next attempt at a folder."""
        step = self._begun(at, self._steps[at].attempt + 1)
        folder = self._folders[at]
        self._folders[at] = Folder(folder.name, folder.complete, pending=folder.pending)
        self._redone.append(f"{folder.name} was done again: step {step.number} has it now")

    def _take(
        self, at: tuple[int, int], new: dict[str, Signature], sink: Sink, *, settled: bool
    ) -> bool:
        """Record files, as long as all that their step holds is still there beside them."""
        step = self._steps.get(at)
        together = new if step is None else step.held | new
        taken = False
        for path, signature in new.items():
            loaded = self._loaded(at, path, settled=settled)
            if loaded is None:
                continue
            if not together.items() <= self._listed(_folder(*at)).items():
                self._folders[at].pending = sorted({*self._folders[at].pending, *new})
                break
            step = step or self._begun(at, 0)
            self._record(sink, at, step, loaded)
            step.held[path] = signature
            self._folders[at].take(loaded)
            taken = True
        return taken

    def _record(self, sink: Sink, at: tuple[int, int], step: _Step, loaded: LoadedFile) -> None:
        self._record_about(sink, at, step, loaded)
        hand_over(loaded, sink, step.number)
        self._taken[step.number, loaded.layer] = loaded.fields[FILE].tobytes()

    def _record_about(
        self, sink: Sink, at: tuple[int, int], step: _Step, loaded: LoadedFile
    ) -> None:
        """Record what a file says of its step and of the samples."""
        sink.record(step.number, None, None, **{ITER: at[0], PLATE: at[1], ATTEMPT: step.attempt})
        sink.record(step.number, None, None, **loaded.coordinates)
        if UNOBSERVED in loaded.coordinates:
            self._unobserved[at] = int(loaded.coordinates[UNOBSERVED])
        if not loaded.rows:
            return
        rows = {name: column.tolist() for name, column in loaded.rows.items()}
        if not self._rows:
            self._rows = rows
        if rows == self._rows:
            count = len(rows["sample_name"])
            sink.sample_coordinates(slice(0, count), **loaded.rows)
            sink.record(step.number, slice(0, count), None, **loaded.observed)
        else:
            loaded.odd.append(
                f"{path_of(loaded.layer)} has other experiments than the first: its observations"
                " are in its layer, and not by sample"
            )

    def _loaded(self, at: tuple[int, int], path: str, *, settled: bool) -> LoadedFile | None:
        folder = self._folders[at]
        if not is_known(path):
            folder.left_out = sorted({*folder.left_out, path})
            return None
        try:
            with self._tree.open(f"{_folder(*at)}/{self._screen}/{path}") as file:
                return load(file, path, self._fitting, settled=settled)
        except NotWholeError as error:
            folder.broken[path] = str(error)
        except InvalidInputError:  # it went since it was listed
            folder.pending = sorted({*folder.pending, path})
        return None

    def _equals(self, step: _Step, loaded: LoadedFile) -> bool | None:
        """Return whether a file is recorded as it is; None if it is so in part."""
        taken = self._taken.get((step.number, loaded.layer))
        if taken is not None:
            return taken == loaded.fields[FILE].tobytes()
        there = [
            self._entry_equals(step, loaded.layer, name, values)
            for name, values in loaded.fields.items()
        ]
        return False if False in there else None if None in there else True

    def _entry_equals(
        self, step: _Step, layer: str, name: str, values: np.ndarray[Any, Any]
    ) -> bool | None:
        known = None if self._ledger is None else self._ledger.at(Place.LAYERS, layer, name)
        entry = None if known is None else known.tile(step.number)
        if known is None or entry is None:
            return None
        return entry.shape == values.shape and entry.crc32 == given_crc32(values, known)

    def _begun(self, at: tuple[int, int], attempt: int) -> _Step:
        step = self._steps[at] = _Step(self._next, attempt)
        self._next += 1
        return step

    def _listed(self, folder: str) -> dict[str, Signature]:
        return self._tree.files(f"{folder}/{self._screen}", lambda name: name == _BELOW)

    def _resume(self, ledger: Ledger) -> None:
        """Take note of the steps that are recorded, and of the layers that they hold."""
        known = [ledger.step_coordinates.get(name) for name in (ITER, PLATE, ATTEMPT)]
        for number in ledger.steps:
            place = [None if one is None else one.values.get(number) for one in known]
            if None in place:
                continue
            first, second, attempt = (int(value) for value in place if value is not None)
            had = self._steps.get((first, second))
            if had is None or had.attempt < attempt:
                self._steps[first, second] = _Step(number, attempt)
        steps = {step.number: step for step in self._steps.values()}
        for one in ledger.fields.values():
            layer = one.spec.layer
            for number in () if layer is None else one.steps:
                if layer is not None and number in steps and not is_draw(layer):
                    steps[number].held[path_of(layer)] = None
        self._next = max(ledger.steps, default=-1) + 1
        self._rows = {
            name: [column.values[at] for at in sorted(column.values)]
            for name, column in ledger.sample_coordinates.items()
        }
        unobserved = ledger.step_coordinates.get(UNOBSERVED)
        for at, step in self._steps.items():
            if unobserved is not None and step.number in unobserved.values:
                self._unobserved[at] = int(unobserved.values[step.number])


def _plate_folders(tree: ForeignTree) -> dict[tuple[int, int], str]:
    """Return the plate folders by their numbers."""
    return {
        (int(first[1]), int(second[1])): f"{one}/{two}"
        for one in tree.folders()
        if (first := _ITER.fullmatch(one))
        for two in tree.folders(one)
        if (second := _PLATE.fullmatch(two))
    }


def _folder(first: int, second: int) -> str:
    return f"iter_{first}/plate_{second}"


IMPORTER: Final = TreeImporter(open=open_batchie_tree, signs=("iter_*/plate_*",))
