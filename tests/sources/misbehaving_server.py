"""A mirror on the loopback that does what real mirrors do on bad days."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from anvil.model.lock import PinnedFile

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Mirror:
    """Files to serve, and the faults that the next requests of a path meet, one each (the last one stays if kept).

    Faults: "404", "500", "403" (any status), "hang" (no answer), "stall" (half a body, then silence), "drop" (half a
    body, then the end), "short" (a body that says it is half as long), "wrong" (other bytes), "long" (more bytes and
    no length), "no-range" (ranges ignored), "bad-range" (another range than asked), "416", "gzip", "slow" (bytes
    trickle), "redirect:URL", "" (none).
    """

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, path: str, body: bytes, *, size: int | None = None) -> PinnedFile:
        """Serve a body, and the pin that names it."""
        self.files[path] = body
        return pin(path, body, size=size)

    def fault(self, path: str) -> str:
        if self.faults[path]:
            return self.faults[path].pop(0)
        return self.always.get(path, "")


def pin(path: str, body: bytes, *, size: int | None = None, archive: str = "debian") -> PinnedFile:
    return PinnedFile(
        name=path.rpartition("/")[2],
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body) if size is None else size,
        archive=archive,
        path=path,
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    mirror: Mirror

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is what many tests are about


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 20

    def do_HEAD(self) -> None:
        self._serve(head=True)

    def do_GET(self) -> None:
        self._serve(head=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _serve(self, *, head: bool) -> None:
        mirror = self.server.mirror
        path = self.path.removeprefix("/debian/")
        asked = self.headers.get("Range", "")
        mirror.asked.append((self.command, path, asked))
        self.close_connection = True
        fault = mirror.fault(path)
        if fault.isdecimal():
            self.send_error(int(fault))
        elif fault == "hang":
            mirror.closing.wait(20)
        elif fault.startswith("redirect:"):
            self.send_response(302)
            self.send_header("Location", fault.removeprefix("redirect:"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path not in mirror.files:
            self.send_error(404)
        else:
            self._body(mirror, mirror.files[path], fault, asked, head=head)

    def _body(self, mirror: Mirror, body: bytes, fault: str, asked: str, *, head: bool) -> None:
        if fault == "wrong":
            body = bytes(byte ^ 0xFF for byte in body)
        start = 0
        if asked.startswith("bytes=") and fault not in ("no-range", "long"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start > len(body) or (start == len(body) and start):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            shown = start + 1 if fault == "bad-range" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        if fault == "gzip":
            self.send_header("Content-Encoding", "gzip")
        piece = body[start:]
        length = len(piece) // 2 if fault == "short" else len(piece)
        if fault != "long":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if head:
            return
        with suppress(OSError):
            self._send(mirror, piece, fault)

    def _send(self, mirror: Mirror, piece: bytes, fault: str) -> None:
        if fault in ("drop", "stall", "short"):
            self.wfile.write(piece[: len(piece) // 2])
            self.wfile.flush()
            if fault == "stall":
                mirror.closing.wait(20)
        elif fault == "long":
            self.wfile.write(piece + b"and more" * 100)
        elif fault == "slow":
            for index in range(len(piece)):
                self.wfile.write(piece[index : index + 1])
                if mirror.closing.wait(0.02):
                    return
        else:
            self.wfile.write(piece)


@contextmanager
def serving() -> Iterator[Mirror]:
    """A mirror for the time of a test; ``Mirror.base`` is its address."""
    server = _Server(("127.0.0.1", 0), _Handler)
    mirror = Mirror(base=f"http://127.0.0.1:{server.server_address[1]}/debian")
    server.mirror = mirror
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
