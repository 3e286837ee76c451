"""From a run and the name of a format to a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from archive_schema.errors import ErrorKind, InvalidInputError
from archive_schema.selection import parse_selector, selector_text
from server.exporters.cut import cut_run
from server.exporters.kept import Kept
from server.exporters.registry import formats

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from archive_schema.selection import Selector
    from server.exporters.virtual_file import VirtualFile
    from server.query.run import RunView


@dataclass(frozen=True, slots=True)
class Export:
    """A run as a file."""

    file: VirtualFile
    media_type: str
    filename: str
    notes: tuple[str, ...]
    """What the file does not hold or holds otherwise, a sentence each."""
    selection: tuple[str, str] | None
    """Selectors of just the steps and samples that are in it; see `Cut.selection`."""
    compression: str | None = None
    """How it is made smaller; None as it is."""

    @property
    def nbytes(self) -> int | None:
        """Length of the file; None if nobody knows it before the file was read."""
        return self.file.size if self.compression is None else None

    def compressed(self, compression: str | None) -> Export:
        """Return the same with its values compressed.

        Raises
        ------
        InvalidInputError
            ``invalid-parameter`` if the format has no compression of that name.
        """
        if compression is None:
            return self
        known = None if self.file.packing is None else self.file.packing.name
        if compression != known:
            message = (
                f"compression={compression!r}: {self.filename} can be written"
                f" {'as it is only' if known is None else f'with {known}, or without it'}"
            )
            raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
        return replace(self, compression=compression)

    def read(self) -> Iterator[bytes]:
        """Yield the bytes of the file; empty ones while a compressed one is measured."""
        packing = self.file.packing
        if self.compression is None or packing is None:
            return self.file.read()
        return packing.read()


_KEPT_NBYTES: Final = 32 << 20
"""Memory for files laid out lately: who reads one in ranges asks for it again and again."""
_LEAST_WEIGHT: Final = _KEPT_NBYTES >> 3
"""So that of small files, each with its view of a run, no more than a few are kept."""


def export(
    run: RunView,
    format: str,  # noqa: A002  the word that the API, the command line and the docs use
    *,
    steps: Selector | None = None,
    samples: Selector | None = None,
    fields: Collection[str] | None = None,
    layers: Collection[str] | None = None,
    compression: str | None = None,
) -> Export:
    """Return *run* as a file, of which nothing is read yet.

    Only steps that are recorded for all the samples asked for are in it.

    Parameters
    ----------
    format : str
        One of `formats_of` the run's system.
    steps, samples : Selector, optional
        By step number and by position; by default all.
    fields : collection of str, optional
        Names of fields; by default all that the format has a place for.
    layers : collection of str, optional
        Globs of layers; by default all.
    compression : str, optional
        ``gzip`` of HDF5 and ``deflate`` of NPZ; by default none.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` for another format, or for a run that it cannot hold;
        ``selection-out-of-bounds``; ``invalid-parameter`` for another compression.
    NotFoundError
        ``field-not-found``, ``layer-not-found``, ``step-not-recorded``, ``not-recorded``.
    """
    known = formats(run.manifest.system)
    if format not in known:
        message = (
            f"runs of system {run.manifest.system!r} are written as {', '.join(known)};"
            f" got {format!r}"
        )
        raise InvalidInputError(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    # As text, because before Python 3.12 a slice is no key.
    axes = [None if axis is None else selector_text(axis) for axis in (steps, samples)]
    names, globs = (None if one is None else tuple(sorted(set(one))) for one in (fields, layers))
    key = (run, format, *axes, names, globs)
    found = _EXPORTS.get(key)
    if found is None:
        found = _export(run, format, steps=axes[0], samples=axes[1], fields=names, layers=globs)
        _EXPORTS.put(key, found)
    return found.compressed(compression)


def _export(
    run: RunView,
    name: str,
    *,
    steps: str | None,
    samples: str | None,
    fields: tuple[str, ...] | None,
    layers: tuple[str, ...] | None,
) -> Export:
    chosen = formats(run.manifest.system)[name]
    cut = cut_run(
        run,
        None if steps is None else parse_selector(steps, "step"),
        None if samples is None else parse_selector(samples, "sample"),
        fields,
        layers,
    )
    file, notes = chosen.build(cut)
    file.ahead = run.archive.reader.ahead
    # Every answer needs it: better here, where the caller waits in a thread, and only once.
    _ = file.digest
    filename = f"{run.manifest.id}{chosen.ending}"
    return Export(file, chosen.media_type, filename, notes, cut.selection)


_EXPORTS: Final = Kept[Export](
    _KEPT_NBYTES, lambda export: max(_LEAST_WEIGHT, export.file.held_nbytes)
)
