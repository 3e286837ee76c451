"""A run of BATCHIE: which step is which plate folder, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archive_schema.errors import ErrorKind, InvalidInputError, NotFoundError
from archive_schema.systems.batchie import ATTEMPT, ITER, PLATE, FileKind
from server.systems.layer_file import LayerFile, files_at

if TYPE_CHECKING:
    from server.query import RunView


@dataclass(frozen=True, slots=True)
class PlateFolder:
    """One attempt at one plate folder."""

    step: int
    iter: int
    plate: int
    attempt: int
    current: bool
    """Whether no later attempt was made."""

    @property
    def path(self) -> str:
        """Return the folder's path below the simulation's."""
        return f"iter_{self.iter}/plate_{self.plate}"


class Simulation:
    """The steps of a run by their iteration and plate.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for a run of another system.
    """

    def __init__(self, run: RunView) -> None:
        if run.manifest.system != "batchie":
            message = (
                f"expected a run of system 'batchie'; run {run.manifest.id!r} is of"
                f" {run.manifest.system!r}"
            )
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        self.run = run

    @property
    def screen(self) -> str:
        """Return the name of the folder below each plate folder."""
        return str(self.run.manifest.metadata.get("screen", self.run.manifest.id))

    @cached_property
    def folders(self) -> list[PlateFolder]:
        """All attempts, in the order of their iterations, plates and attempts."""
        places = [self._place(step) for step in self.run.steps]
        latest = {place[:2]: place[2] for place in sorted(p for p in places if p is not None)}
        return sorted(
            (
                PlateFolder(step, *place, current=latest[place[:2]] == place[2])
                for step, place in zip(self.run.steps, places, strict=True)
                if place is not None
            ),
            key=lambda one: (one.iter, one.plate, one.attempt),
        )

    def folder(self, step: int) -> PlateFolder:
        """Return the plate folder that *step* is.

        Raises
        ------
        NotFoundError
            ``step-not-recorded``.
        """
        for one in self.folders:
            if one.step == step:
                return one
        message = f"step {step} of run {self.run.manifest.id!r} is no plate folder"
        raise NotFoundError(ErrorKind.STEP_NOT_RECORDED, message)

    def files(self, step: int) -> list[LayerFile]:
        """Return the whole files of a step."""
        return [file for file in files_at(self.run, step) if file.whole]

    def of_kind(self, step: int, kind: FileKind) -> list[LayerFile]:
        """Return the whole files of one kind, by the numbers of their chunks or chains."""
        found = [f for f in files_at(self.run, step) if kind.pattern.fullmatch(f.layer)]
        return sorted((f for f in found if f.whole), key=lambda f: kind.number(f.layer))

    def nearest(self, step: int, kind: FileKind) -> list[LayerFile]:
        """Return files of a kind at *step*, or where its iteration has them: at an earlier plate.

        Models and distances are made once an iteration.

        Raises
        ------
        NotFoundError
            ``not-recorded``.
        """
        at = self.folder(step)
        before = [f for f in self.folders if f.iter == at.iter and f.plate < at.plate and f.current]
        for one in (at, *reversed(before)):
            found = self.of_kind(one.step, kind)
            if found:
                return found
        message = f"run {self.run.manifest.id!r} has no {kind.name} at step {step} ({at.path})"
        raise NotFoundError(ErrorKind.NOT_RECORDED, message)

    def coordinate(self, name: str, step: int) -> Any:
        """Return the value of a step coordinate, or None."""
        known = self.run.ledger.step_coordinates.get(name)
        return None if known is None else known.values.get(step)

    def screen_before(self, step: int) -> LayerFile | None:
        """Return the screen that the plates of *step* were scored on: the plates of all are alike.

        The advanced screen of the step has them too; while it is not there, an earlier one.
        """
        at = [one.step for one in self.folders]
        earlier = [one.step for one in self.folders if one.current][::-1]
        for one in (step, *(s for s in earlier if at.index(s) < at.index(step))):
            names = {file.layer: file for file in self.files(one)}
            for layer in ("advanced_screen", "training.screen"):
                if layer in names:
                    return names[layer]
        return None

    def _place(self, step: int) -> tuple[int, int, int] | None:
        found = [self.coordinate(name, step) for name in (ITER, PLATE, ATTEMPT)]
        return None if None in found else (int(found[0]), int(found[1]), int(found[2]))
