"""MicroJSON over a local socket: a message a line, bounded both ways, from nobody but the same user."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from anvil.errors import AnvilError
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID, message_id

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED_BYTES = 64 * 1024
"""The longest message that a daemon takes."""

TOLD_BYTES = 8 * 1024 * 1024
"""The longest message that a client takes, and as much as may wait for one that does not read."""

_BLOCK = 64 * 1024


class Line:
    """One end of a connection; it never blocks, but in ``flush``."""

    def __init__(self, connection: socket.socket, *, most: int) -> None:
        """most: bytes that one message of the other side may have."""
        connection.setblocking(False)
        self._socket = connection
        self._most = most
        self._in = b""
        self._out = bytearray()
        self.open = True
        """False once the other side is gone, or was given up."""

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self.open = False
        self._socket.close()

    def tell(self, number: MessageID, data: object) -> None:
        """Send a message; what does not fit now is sent by the next one or ``flush``."""
        if self.open:
            self._out += MicroJSON.message(number, data) + b"\n"
            self._send()
            if len(self._out) > TOLD_BYTES:
                self.open = False

    def flush(self, seconds: float = 5.0) -> None:
        """Wait until everything is sent, the other side is gone, or so many seconds have passed without a byte."""
        self._socket.settimeout(seconds)
        try:
            if self.open and self._out:
                self._socket.sendall(self._out)
                self._out.clear()
        except OSError:
            self.open = False

    def heard(self) -> Iterator[tuple[MessageID, Any]]:
        """The messages that have come whole. Raises AnvilError for what is none, or is too long."""
        with contextlib.suppress(BlockingIOError):
            try:
                while self.open and len(self._in) <= self._most:
                    block = self._socket.recv(_BLOCK)
                    self._in += block
                    self.open = bool(block)
            except ConnectionError:
                self.open = False
        *lines, self._in = self._in.split(b"\n")
        if max(map(len, [*lines, self._in])) > self._most:
            raise AnvilError(f"a message of more than {self._most} bytes")
        for line in lines:
            message = MicroJSON.decode(line)
            yield message_id(message["@ID"]), message["data"]

    def _send(self) -> None:
        try:
            while self._out:
                sent = self._socket.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.open = False


def peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel saw them when it connected (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def is_same_user(connection: socket.socket) -> bool:
    """Whether the other end is a process of this one's user; root is none, where this is not root's."""
    return peer(connection)[1] == os.geteuid()


def error_data(error: AnvilError) -> dict[str, Any]:
    """An error as plain data, its kind as the number of its message."""
    return {"id": int(error.message_id), **error.as_data()}


def error_of(data: dict[str, Any]) -> AnvilError:
    """The error that plain data says."""
    kind = next((each for each in _kinds(AnvilError) if each.message_id == data.get("id")), AnvilError)
    words = {name: str(data[name]) for name in ("where", "hint", "detail") if data.get(name)}
    return kind(str(data.get("message", "")), **words)


def _kinds(kind: type[AnvilError]) -> Iterator[type[AnvilError]]:
    """A kind of error and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
