"""A TCP proxy that cuts connections: what a bad network does to an answer."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Cutting:
    """A proxy's address, where it cuts next, and how much it let through."""

    url: str
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next connections end; when it is empty none is cut."""
    passed: list[int] = field(default_factory=list)
    """Bytes that each connection brought."""


@contextmanager
def cutting(target_url: str) -> Iterator[Cutting]:
    """Stand between a client and the server at *target_url*; one connection at a time."""
    target = urlsplit(target_url)
    if target.hostname is None or target.port is None:
        raise ValueError(target_url)
    where = (target.hostname, target.port)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = Cutting(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=_accept, args=(listening, where, proxy))
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listening: socket.socket, where: tuple[str, int], proxy: Cutting) -> None:
    with ExitStack() as stack:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            far = socket.create_connection(where)
            # The threads that pump end when their sockets do.
            stack.callback(_hang_up, near, far)
            cut = proxy.cuts.pop(0) if proxy.cuts else None
            proxy.passed.append(0)
            number = len(proxy.passed) - 1
            for pump, arguments in (
                (_forth, (near, far)),
                (_back, (far, near, proxy, number, cut)),
            ):
                thread = threading.Thread(target=pump, args=arguments)
                thread.start()
                stack.callback(thread.join)
            stack.callback(_hang_up, near, far)


def _forth(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        while data := near.recv(65536):
            far.sendall(data)
    _hang_up(near, far)


def _back(
    far: socket.socket, near: socket.socket, proxy: Cutting, number: int, cut: int | None
) -> None:
    with suppress(OSError):
        while data := far.recv(65536):
            left = len(data) if cut is None else cut - proxy.passed[number]
            near.sendall(data[:left])
            proxy.passed[number] += len(data[:left])
            if left < len(data):
                break
    _hang_up(near, far)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
