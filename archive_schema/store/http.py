"""An archive behind a server as a store: the same protocol for a sampler without credentials.

Every call is one request, and nothing is kept between two of them: the server may be another
each time. Bodies carry their CRC32C both ways (``Content-Digest``, RFC 9530), because a checksum
of a connection does not see what a proxy between two connections does.

Nothing is asked twice here; whoever can wait (`recorder.patience`) asks again, after the time
that the server says.
"""

from __future__ import annotations

import json
import weakref
from collections import defaultdict
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import httpx
from fastcrc.crc32 import iscsi as crc32c
from pydantic import ValidationError

from archive_schema.errors import (
    ArchiveError,
    ErrorKind,
    InvalidInputError,
    NotFoundError,
    StorageError,
    from_kind,
)
from archive_schema.layout import ANNOTATIONS, RUNS
from archive_schema.store.interface import StoredObject, exists, not_found
from archive_schema.wire import (
    CONTENT_DIGEST_HEADER,
    KIND_HEADER,
    Problem,
    content_digest,
    digested_crc32c,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CONNECT_S: Final = 5.0
_SILENCE_S: Final = 30.0
"""The longest silence of the server within one request."""
_IDLE_S: Final = 3.0
"""Shorter than servers keep an idle connection: one that is closed while it is used is an error."""
_MOST_CONNECTIONS: Final = 64
_KEYS_A_SYNC: Final = 2000


class HttpStore:
    """The archive that is served at *url*, which may have a path.

    Parameters
    ----------
    token : str, optional
        Sent with every request.

    Raises
    ------
    InvalidInputError
        ``store-url-invalid``.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
            message = (
                "expected the address of a trace archive such as http://host:8000 or"
                f" https://host/traces, without login, query or fragment; got {_shown(url)!r}"
            )
            raise InvalidInputError(ErrorKind.STORE_URL_INVALID, message)
        self.url = url.rstrip("/")
        headers = {"User-Agent": "trace-archive-store", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {_printable(token)}"
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S, pool=None),
            limits=httpx.Limits(
                max_connections=_MOST_CONNECTIONS,
                max_keepalive_connections=_MOST_CONNECTIONS,
                keepalive_expiry=_IDLE_S,
            ),
        )
        # A store is closed by nobody; its connections are, when it is gone.
        weakref.finalize(self, self._http.close)

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        return self._checked(self._ask("GET", self._object(key), key), key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``[start, stop)``; fewer where the object ends before *stop*."""
        if stop <= start:
            self.size(key)
            return b""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        try:
            answer = self._ask("GET", self._object(key), key, headers=headers)
        except InvalidInputError as error:
            if error.kind is ErrorKind.RANGE_NOT_SATISFIABLE:
                return b""
            raise
        data = self._checked(answer, key)
        return data[start:stop] if answer.status_code == HTTPStatus.OK else data

    def size(self, key: str) -> int:
        """Return the length of an object in bytes."""
        return int(self._ask("HEAD", self._object(key), key).headers["content-length"])

    def write(self, key: str, data: bytes) -> None:
        """Store *data*, replacing what was there, where the format lets it be replaced."""
        self._put(key, data, {})

    def create(self, key: str, data: bytes) -> None:
        """Store *data* if there is no such object."""
        self._put(key, data, {"If-None-Match": "*"})

    def delete(self, key: str) -> None:
        """Refuse: a server removes whole runs and no single objects.

        Raises
        ------
        InvalidInputError
            ``method-not-allowed``.
        """
        message = f"{self.url} removes whole runs, and no single object such as {key!r}"
        raise InvalidInputError(ErrorKind.METHOD_NOT_ALLOWED, message)

    def remove_run(self, run_id: str, *, force: bool = False) -> int:
        """Have the server remove a run and everything in it; return how many objects there were.

        Parameters
        ----------
        force
            Also while somebody records it.

        Raises
        ------
        ConflictError
            ``writer-active`` if somebody records it.
        """
        url = self._run(run_id)
        asked = {"confirm": run_id, "force": str(force).lower()}
        answer = self._ask("DELETE", url, run_id, params=asked)
        return int(answer.json()["objects"])

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below *prefix*, sorted."""
        lines = self._lines(prefix, {"delimiter": "/"})
        return sorted(str(line["folder"]) for line in lines)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Return every object below *prefix*."""
        if prefix.strip("/") == RUNS:
            for run_id in self.folders(prefix):
                yield from self.objects(f"{RUNS}/{run_id}")
            return
        for line in self._lines(prefix, {}):
            yield StoredObject(str(line["key"]), int(line["nbytes"]), float(line["modified_s"]))

    def sync(self, keys: Iterable[str]) -> None:
        """Return once the objects survive a power cut of the server's store."""
        by_run: defaultdict[str, list[str]] = defaultdict(list)
        for key in keys:
            run_id, path = _parts(key)
            by_run[run_id].append(path)
        for run_id, paths in by_run.items():
            rest = iter(paths)
            while some := list(islice(rest, _KEYS_A_SYNC)):
                url = f"{self._run(run_id)}/sync"
                self._ask("POST", url, run_id, json={"keys": some})

    def _put(self, key: str, data: bytes, headers: dict[str, str]) -> None:
        described = {CONTENT_DIGEST_HEADER: content_digest(crc32c(data)), **headers}
        self._ask("PUT", self._object(key), key, headers=described, content=data)

    def _run(self, run_id: str) -> str:
        return f"{self.url}/runs/{quote(run_id, safe='')}"

    def _object(self, key: str) -> str:
        if key.startswith(f"{ANNOTATIONS}/"):
            return f"{self.url}/{quote(key)}"
        run_id, path = _parts(key)
        return f"{self._run(run_id)}/objects/{quote(path)}"

    def _ask(self, method: str, url: str, key: str, **request: Any) -> httpx.Response:
        """Return the answer, if it is a success; raise what it says otherwise."""
        try:
            answer = self._http.request(method, url, **request)
        except httpx.RequestError as error:
            raise _unreachable(url, error) from error
        if not answer.is_success:
            raise self._error(answer, key)
        return answer

    def _lines(self, prefix: str, parameters: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the lines of a listing, and know whether it came to its end."""
        if prefix.strip("/") in (RUNS, ANNOTATIONS):
            url = f"{self.url}/objects"
            parameters = {"prefix": prefix.strip("/"), **parameters}
        else:
            run_id, path = _parts(f"{prefix.rstrip('/')}/")
            url = f"{self._run(run_id)}/objects"
            parameters = {"prefix": path.rstrip("/"), **parameters} if path else parameters
        count = 0
        try:
            with self._http.stream("GET", url, params=parameters) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._error(answer, prefix)
                for text in answer.iter_lines():
                    line = json.loads(text)
                    if "count" in line:
                        if line["count"] == count:
                            return
                        break
                    count += 1
                    yield line
        except (httpx.RequestError, json.JSONDecodeError) as error:
            raise _unreachable(url, error) from error
        raise StorageError(ErrorKind.STORE_UNREACHABLE, f"{url}: the listing was cut short")

    def _checked(self, answer: httpx.Response, key: str) -> bytes:
        """Return the body, if it is what the server sent."""
        expected = digested_crc32c(answer.headers.get(CONTENT_DIGEST_HEADER))
        if expected is None:
            message = f"{answer.url} says no checksum of its bytes: something in between took it"
            raise StorageError(ErrorKind.STORE_UNREACHABLE, message)
        if crc32c(answer.content) != expected:
            message = f"{self.url}: object {key!r} was damaged on its way here"
            raise StorageError(ErrorKind.BODY_DAMAGED, message)
        return answer.content

    def _error(self, answer: httpx.Response, key: str) -> ArchiveError:
        """Return the error that an answer stands for, by its kind."""
        status = HTTPStatus(answer.status_code)
        kind, detail = answer.headers.get(KIND_HEADER), ""
        try:
            problem = Problem.model_validate_json(answer.content)
            kind, detail = problem.kind, problem.detail
        except ValidationError:
            if kind is None:
                return _foreign(answer, status)
        error = from_kind(kind, f"{self.url}: {detail or status.phrase} ({key})")
        if error.kind is ErrorKind.OBJECT_NOT_FOUND:
            return not_found(key, self.url)
        if error.kind is ErrorKind.OBJECT_EXISTS:
            return exists(key, self.url)
        if isinstance(error, NotFoundError) and error.kind is not ErrorKind.RUN_NOT_FOUND:
            # Whatever is not served there says nothing about what is recorded.
            return _foreign(answer, status)
        if isinstance(error, StorageError):
            error.retry_after_s = _retry_after_s(answer)
        return error


def _foreign(answer: httpx.Response, status: HTTPStatus) -> ArchiveError:
    """Return the error for an answer that no trace archive gives."""
    text = answer.text[:200].strip()
    message = (
        f"{answer.request.method} {answer.url} was answered {status.value}: {text or 'nothing'}"
    )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.REQUEST_TIMEOUT,
    ):
        error = StorageError(ErrorKind.STORE_UNREACHABLE, message)
        error.retry_after_s = _retry_after_s(answer)
        return error
    hint = "is the store's URL the address of a trace archive that takes writes?"
    return InvalidInputError(ErrorKind.STORE_URL_INVALID, f"{message}; {hint}")


def _unreachable(url: str, error: Exception) -> StorageError:
    message = f"{url}: {str(error) or type(error).__name__}"
    return StorageError(ErrorKind.STORE_UNREACHABLE, message)


def _retry_after_s(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _parts(key: str) -> tuple[str, str]:
    """Return the run of a key, and the rest of it.

    Raises
    ------
    InvalidInputError
        ``invalid-name``: a server gives and takes nothing outside of runs.
    """
    root, _, inner = key.partition("/")
    run_id, separator, path = inner.partition("/")
    if root != RUNS or not (run_id and separator):
        message = f"a served archive has objects below {RUNS}/<run>/ only; got {key!r}"
        raise InvalidInputError(ErrorKind.INVALID_NAME, message)
    return run_id, path


def _printable(token: str) -> str:
    if not (token.isascii() and token.isprintable() and token.strip() == token and token):
        message = f"expected a token of printable ASCII, got {len(token)} characters with others"
        raise InvalidInputError(ErrorKind.INVALID_PARAMETER, message)
    return token


def _shown(url: str) -> str:
    """Return a URL as it may stand in a message: without a password."""
    parts = urlsplit(url)
    return url.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1)
