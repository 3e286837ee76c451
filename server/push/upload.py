"""The body of a request, taken piece by piece as it comes, into memory that was made for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from archive_schema.errors import ErrorKind, StorageError, TooLargeError, invalid

if TYPE_CHECKING:
    from io import BytesIO

    from starlette.types import Receive


class ClientGoneError(Exception):
    """Whoever sent the request is not there any more: there is nobody to answer."""


class Upload:
    """The body of one request.

    Parameters
    ----------
    length : int, bytes
        What ``Content-Length`` says; None if the body comes in chunks.
    max_bytes : int, bytes
        What a body may have.
    timeout_s : float, seconds
        How long the whole body may take, from now on.

    Raises
    ------
    TooLargeError
        ``request-too-large``, before anything of it is read, if it is announced so; from every
        method, as soon as more has come.
    StorageError
        ``deadline-passed``, from every method.
    """

    def __init__(
        self, receive: Receive, length: int | None, *, max_bytes: int, timeout_s: float
    ) -> None:
        self.length = length
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._piece = memoryview(b"")
        """What came and was not taken yet."""
        self._came = 0
        self._more = True
        if length is not None and length > max_bytes:
            raise too_large(length, max_bytes)

    async def peek(self, count: int) -> bytes:
        """Return the next *count* bytes, or as many as there are, and leave them there."""
        while len(self._piece) < count and await self._receive_more():
            pass
        return bytes(self._piece[:count])

    async def read(self, count: int) -> bytes:
        """Return the next *count* bytes, or as many as there are."""
        data = await self.peek(count)
        self._piece = self._piece[len(data) :]
        return data

    async def fill(self, target: memoryview) -> None:
        """Fill *target*, a view of bytes, with the rest of the body.

        Raises
        ------
        InvalidInputError
            ``shape-mismatch`` if the rest has another length.
        """
        at = 0
        while self._piece or await self._receive_more():
            if at + len(self._piece) > len(target):
                message = f"expected {len(target):,} bytes of values, got more"
                raise invalid(ErrorKind.SHAPE_MISMATCH, message)
            target[at : at + len(self._piece)] = self._piece
            at += len(self._piece)
            self._piece = memoryview(b"")
        if at < len(target):
            message = f"expected {len(target):,} bytes of values, got {at:,}"
            raise invalid(ErrorKind.SHAPE_MISMATCH, message)

    async def whole(self) -> bytearray:
        """Return the rest of the body, whatever its length."""
        data = bytearray()
        while self._piece or await self._receive_more():
            data += self._piece
            self._piece = memoryview(b"")
        return data

    async def copy(self, stream: BytesIO) -> None:
        """Write the rest of the body to *stream*."""
        while self._piece or await self._receive_more():
            stream.write(self._piece)
            self._piece = memoryview(b"")

    async def _receive_more(self) -> bool:
        """Wait for more of the body; return whether there was any."""
        while self._more:
            try:
                async with asyncio.timeout_at(self._deadline):
                    message = await self._receive()
            except TimeoutError:
                what = f"expected the body within {self._timeout_s:g} s, got {self._came:,} bytes"
                raise StorageError(ErrorKind.DEADLINE_PASSED, what) from None
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            new = message.get("body", b"")
            self._more = message.get("more_body", False)
            self._came += len(new)
            if self._came > self._max_bytes:
                raise too_large(self._came, self._max_bytes)
            if new:
                self._piece = memoryview(bytes(self._piece) + new if self._piece else new)
                return True
        return False


def too_large(nbytes: int, most: int) -> TooLargeError:
    """Return the error for more bytes than one request may bring."""
    message = f"expected at most {most:,} bytes in one request, got {nbytes:,}; send smaller parts"
    return TooLargeError(ErrorKind.REQUEST_TOO_LARGE, message)
