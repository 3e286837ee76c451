"""Whole files of a run, which arrive under another name and are resumed where they broke off.

1. Bytes go into ``<target>.part``; ``<target>.part.etag`` holds the tag of the file that they
   belong to, and is there before the first of them.
2. Whoever continues asks for the rest with ``Range``, and with ``If-Range`` for the whole in
   case that the file has become another one.
3. When as many bytes are there as were announced, the part takes the target's name.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

from archive_schema.errors import (
    ArchiveError,
    ConflictError,
    ErrorKind,
    StorageError,
    invalid,
)
from archive_schema.selection import selector_text
from clients.axis import selector_of
from clients.choosing import choice_text
from clients.documents import run_path
from clients.exchange import Reply, Request, Transfer, error_of, unreachable
from clients.retry import Patience, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from clients.axis import Pick
    from clients.choosing import Choice
    from clients.exchange import Operation
    from clients.options import Options

Report: TypeAlias = "Callable[[int, int], None]"
"""Told how many bytes there are, and how many there will be."""

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]+)-[0-9]+/([0-9]+)")


def file_request(
    run_id: str,
    target: Path,
    *,
    format: str | None,  # noqa: A002  the word of the API
    steps: Pick | None,
    samples: Pick | None,
    fields: Sequence[str] | None,
    layers: Sequence[str] | None = None,
    where: Mapping[str, Choice] | None = None,
    compression: str | None = None,
) -> Request:
    """Return the request for a run as one file; its format is by default *target*'s ending.

    Raises
    ------
    InvalidInputError
        ``format-not-acceptable`` for a name without an ending.
    """
    ending = target.suffix.lower().removeprefix(".")
    name = format or {"hdf5": "h5"}.get(ending, ending)
    if not name:
        message = f"expected a name with an ending such as .h5 or .npz, got {target.name!r}"
        raise invalid(ErrorKind.FORMAT_NOT_ACCEPTABLE, message)
    params = [("format", name)]
    for axis, pick in (("steps", steps), ("samples", samples)):
        if pick is not None:
            params.append((axis, selector_text(selector_of(pick, axis))))
    if fields is not None:
        params.append(("fields", ",".join(fields)))
    if layers is not None:
        params.append(("layers", ",".join(layers)))
    params += [(name, choice_text(choice)) for name, choice in (where or {}).items()]
    if compression is not None:
        params.append(("compression", compression))
    return Request(f"{run_path(run_id)}/export", params=tuple(params))


def downloaded(
    request: Request,
    target: Path,
    options: Options,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Operation[Path]:
    """Fetch a file to *target*, going on where an earlier call broke off.

    Raises
    ------
    ConflictError
        ``output-exists`` if *target* exists and is not to be overwritten.
    StorageError
        When the retries are used up without one more byte; what arrived stays for the next call.
    """
    if target.exists() and not overwrite:
        raise _exists(target)
    patience = Patience(options.retry)
    part = PartFile(target, report)
    try:
        while not part.complete:
            before, asked_s = part.nbytes, None
            try:
                reply = yield Transfer(part.continuing(request), part)
                if reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                    part.settle(reply)
                    continue
                asked_s = retry_after_s(reply)
                part.check(reply)
            except StorageError as error:
                if part.nbytes > before:
                    patience.renew()
                yield patience.pause(error, asked_s)
    finally:
        part.close()
    part.publish(overwrite=overwrite)
    return target


class PartFile:
    """The file that a download grows in; a `Sink`."""

    def __init__(self, target: Path, report: Report | None) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._tag_path = target.with_name(f"{target.name}.part.etag")
        self._report = report
        self._file: BinaryIO | None = None
        self._total: int | None = None
        self._chunked = False
        self._tag = _text(self._tag_path)
        self.nbytes = self._path.stat().st_size if self._tag and self._path.exists() else 0
        """Bytes that are there."""

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self._total is not None and self.nbytes == self._total

    def continuing(self, request: Request) -> Request:
        """Return *request* for what is not there yet."""
        if not self.nbytes or not self._tag:
            return request
        headers = {"Range": f"bytes={self.nbytes}-", "If-Range": self._tag}
        return Request(request.path, params=request.params, headers=headers)

    def begin(self, head: Reply) -> bool:
        """Make ready for the whole file, or for the rest of it."""
        if "content-encoding" in head.headers:
            message = f"{head.url}: expected the file as it is, got it coded on its way"
            raise ArchiveError(ErrorKind.UNKNOWN, message)
        if head.status == HTTPStatus.PARTIAL_CONTENT:
            found = _CONTENT_RANGE.fullmatch(head.headers.get("content-range", ""))
            if found is None or int(found[1]) != self.nbytes:
                message = f"{head.url}: expected the bytes from {self.nbytes} on, got {found}"
                raise ArchiveError(ErrorKind.UNKNOWN, message)
            if head.headers.get("etag", self._tag) != self._tag:
                self._discard()
                raise unreachable(f"{head.url}: it became another file")
            self._total = int(found[2])
        elif head.status == HTTPStatus.OK:
            self._restart(head)
        else:
            return False
        self._open()
        return True

    def write(self, piece: bytes) -> None:
        """Append *piece*."""
        if self._file is None:
            raise ValueError("a part is written to after it began")
        self._file.write(piece)
        self.nbytes += len(piece)
        if self._report is not None:
            self._report(self.nbytes, self._total or 0)

    def check(self, reply: Reply) -> None:
        """Raise what *reply* says went wrong, or that the file broke off."""
        if reply.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise error_of(reply)
        if self._chunked:  # and the transfer came to its end, or there were no reply
            self._total = self.nbytes
        if not self.complete:
            raise unreachable(f"{reply.url}: expected {self._total} bytes, got {self.nbytes}")

    def settle(self, reply: Reply) -> None:
        """Take "there is nothing after these bytes" for the end, if they are as many as that."""
        if reply.headers.get("content-range") == f"bytes */{self.nbytes}":
            self._total = self.nbytes
        else:
            self._discard()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def publish(self, *, overwrite: bool) -> None:
        """Give the complete file its name.

        Raises
        ------
        ConflictError
            ``output-exists`` if that name was given to something else meanwhile.
        """
        if overwrite:
            self._path.replace(self._target)
        else:
            try:
                self._target.hardlink_to(self._path)
            except FileExistsError as error:
                raise _exists(self._target) from error
            except OSError as error:  # a file system without hard links
                if self._target.exists():
                    raise _exists(self._target) from error
                self._path.rename(self._target)
            else:
                self._path.unlink()
        self._tag_path.unlink(missing_ok=True)

    def _restart(self, head: Reply) -> None:
        length, tag = head.headers.get("content-length"), head.headers.get("etag", "")
        self._chunked = head.headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked and (length is None or not length.isdigit()):
            message = f"{head.url}: expected a Content-Length, without which a cut is not seen"
            raise ArchiveError(ErrorKind.UNKNOWN, message)
        self._discard()
        # A weak tag does not promise the same bytes, so nothing can be continued by it.
        self._tag = "" if tag.startswith("W/") else tag
        self._tag_path.write_text(self._tag)
        self._total = None if length is None else int(length)

    def _discard(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)
        self.nbytes = 0

    def _open(self) -> None:
        self.close()
        # Not in append mode: two downloads of one file then write equal bytes at equal places.
        self._path.touch()
        self._file = self._path.open("r+b")
        self._file.seek(self.nbytes)


def _exists(target: Path) -> ConflictError:
    message = f"{target} exists; say overwrite=True to replace it"
    return ConflictError(ErrorKind.OUTPUT_EXISTS, message)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
