"""Records BATCHIE's jobs: whatever its objects save is taken over, as an import would take it.

1. ``save_h5`` and ``save`` of the classes or objects that are given are wrapped. The file that one
   has written becomes a layer of its plate folder's step, named like the file.
2. ``add_theta`` is wrapped too: each draw of a chain is recorded when it is made, as a layer of its
   own, because nothing brings back the draws of a chain that was killed.

Each job (a chain, a chunk) is a process and a writer of its own; no two share a layer.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from archive_schema.errors import ErrorKind, invalid
from archive_schema.systems.batchie import ATTEMPT, ITER, PLATE, draw_layer
from recorder.importers.batchie.loading import NotWholeError, hand_over, is_known, load
from recorder.importers.fitting import Fitting
from recorder.importers.foreign import open_foreign
from recorder.importers.kept_hdf5 import plain_name

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from recorder.recorder import TraceRecorder

_SAVERS: Final = ("save_h5", "save")


def attach(
    recorder: TraceRecorder,
    *savers: Any,
    step: int,
    iter: int,  # noqa: A002  BATCHIE's word
    plate: int,
    attempt: int = 0,
    chain: int | None = None,
) -> AttachedJob:
    """Record what *savers* save from now on, until what is returned is left or detached.

    Parameters
    ----------
    savers
        Classes or objects: ``ThetaHolder``, ``ChunkedDistanceMatrix``, ``ChunkedScoresHolder``,
        ``ModelEvaluation``, ``Screen``.
    step
        Number of the plate folder in the run, the same in all its jobs:
        ``iter * plates + plate``. One that is done again is another attempt, and another step.
    chain
        Number of the chain that this job draws: its draws are recorded as they are added to a
        ``ThetaHolder``. None for jobs that only load thetas.

    Raises
    ------
    InvalidInputError
        ``invalid-parameter`` for something that saves nothing.
    """
    for saver in savers:
        if not any(hasattr(saver, name) for name in _SAVERS):
            message = f"expected classes or objects with {' or '.join(_SAVERS)}; got {saver!r:.80}"
            raise invalid(ErrorKind.INVALID_PARAMETER, message)
    places = {ITER: iter, PLATE: plate, ATTEMPT: attempt}
    return AttachedJob(recorder, savers, step=step, places=places, chain=chain)


class AttachedJob:
    """A job that is being recorded; leaving it, or `detach`, makes its classes what they were."""

    def __init__(
        self,
        recorder: TraceRecorder,
        savers: tuple[Any, ...],
        *,
        step: int,
        places: dict[str, int],
        chain: int | None,
    ) -> None:
        self._recorder = recorder
        self._step = step
        self._chain = chain
        self._fitting = Fitting(recorder.recorded())
        self._draws = 0
        recorder.record(step, None, None, **places)
        with ExitStack() as stack:
            for saver in savers:
                for name in _SAVERS:
                    if hasattr(saver, name):
                        _wrap(stack, saver, name, self._saved)
                if chain is not None and hasattr(saver, "add_theta"):
                    _wrap(stack, saver, "add_theta", self._added)
            self._stack = stack.pop_all()

    def take(self, path: str | os.PathLike[str]) -> None:
        """Record a file of the plate folder that is there already: ``selected_plate``, …

        Raises
        ------
        InvalidInputError
            ``file-invalid`` if it is none that BATCHIE writes, or not whole.
        """
        path = Path(path)
        with open_foreign(str(path)) as file:
            if not is_known(path.name):
                raise file.refuse("is no file of a plate folder")
            try:
                loaded = load(file, path.name, self._fitting, settled=False)
            except NotWholeError as error:
                raise file.refuse(str(error)) from error
        self._recorder.record(self._step, None, None, **loaded.coordinates)
        if loaded.rows:
            samples = slice(0, len(loaded.rows["sample_name"]))
            self._recorder.sample_coordinates(samples, **loaded.rows)
            self._recorder.record(self._step, samples, None, **loaded.observed)
        hand_over(loaded, self._recorder, self._step)

    def detach(self) -> None:
        """Take the wrappers off; idempotent."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _saved(self, path: Any, *_: Any) -> None:
        self.take(path)

    def _added(self, theta: Any, *_: Any) -> None:
        """Record a draw; its numbers that are no arrays are arrays without axes."""
        if self._chain is None:
            return
        layer = draw_layer(self._chain, self._draws)
        self._draws += 1
        made = theta.private_parameters_dict()
        values = {plain_name(name): np.asarray(one) for name, one in made.items()}
        for name in values:
            self._recorder.declare(name, layer=layer, ragged=True)
        self._recorder.record(self._step, None, layer, **values)


def _wrap(stack: ExitStack, owner: Any, name: str, after: Callable[..., None]) -> None:
    """Call *after* with the arguments of a method of an object or a class, once it has returned."""
    original = getattr(owner, name)

    @wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        after(*args[isinstance(owner, type) :], *kwargs.values())
        return made

    own = vars(owner).get(name)
    setattr(owner, name, method)

    def put_back() -> None:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)

    stack.callback(put_back)
