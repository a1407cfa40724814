"""One request: an address in, a stream of bytes out, the network's errors as two of our own.

The seam between Anvil and the network: nothing above it knows urllib. Only http, https and file are spoken;
a redirect to anything else is refused. Proxies of the environment are used.
"""

from __future__ import annotations

import functools
import http.client
import os
import socket
import ssl
import stat
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from anvil import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 128 * 1024


class NotThere(Exception):
    """The mirror answered, and says that it has no such file."""


class Unavailable(Exception):
    """No usable answer. again: whether asking once more may help."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


class NoHead(Unavailable):
    """The server knows no way to ask without being given the file; a request whose answer is not read is one."""


class BadRange(Unavailable):
    """The server cannot go on from that byte; from the start it may."""


class _Stream(Protocol):
    def read1(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An open body.

    start: which byte of the file the body begins with (0 when the server ignored the range). length: of this body in
    bytes, None when the server did not say.
    """

    start: int
    length: int | None
    stream: _Stream

    def chunks(self) -> Iterator[bytes]:
        """The body's pieces as they come, to its stated length or its end.

        Raises Unavailable when the connection breaks, falls silent, or ends before the stated length.
        """
        left = self.length
        while left is None or left > 0:
            try:
                chunk = self.stream.read1(CHUNK if left is None else min(CHUNK, left))
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Unavailable(_reason(error)) from error
            if not chunk:
                if left:
                    raise Unavailable(f"the body ended {left} bytes early")
                return
            if left is not None:
                left -= len(chunk)
            yield chunk


class Line:
    """A line to the network for one worker thread; another thread may cut it."""

    def __init__(self, *, silence_seconds: float) -> None:
        self._silence = silence_seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False
        self.hops: list[str] = []
        """The addresses that the last request went by, redirections and all; a person may be told of them."""
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _Http(self),
            _Https(self),
            urllib.request.HTTPDefaultErrorHandler(),
            _Redirect(self.hops),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):
            self._opener.add_handler(handler)

    def cut(self) -> None:
        """Wake the thread that waits on this line; every later use of it fails."""
        with self._lock:
            self._cut = True
            current = self._socket
        if current is not None:
            with suppress(OSError):
                current.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def open(self, address: str, *, start: int = 0, head: bool = False) -> Iterator[Answer]:
        """Ask for a file from a byte on.

        Raises NotThere, or Unavailable. A server that cannot give that range gives the whole (``Answer.start`` 0).
        """
        self.hops[:] = [address]
        if address.startswith("file:"):
            with _open_file(address, start) as answer:
                yield answer
            return
        request = urllib.request.Request(  # noqa: S310 - the opener has no handler for any other scheme
            address,
            method="HEAD" if head else "GET",
            headers={"User-Agent": f"anvil/{__version__}", "Accept-Encoding": "identity"},
        )
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            response = self._opener.open(request, timeout=self._silence)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(_reason(error)) from error
        if response is None:
            raise Unavailable("its address is of a kind that is not spoken here", again=False)
        with response:
            yield _answer(response, start)

    def hold(self, current: socket.socket) -> None:
        """Remember the connection in use, so that it can be cut."""
        with self._lock:
            self._socket = current
            if self._cut:
                raise OSError("stopped")


class _Connection(http.client.HTTPConnection):
    """Tells its line which socket it uses."""

    def __init__(self, *args: Any, line: Line, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._line = line

    def connect(self) -> None:
        super().connect()
        self._line.hold(self.sock)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS: HTTPSConnection's connect is the next one that ``_Connection.connect`` calls."""


class _Http(urllib.request.HTTPHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, line=self._line), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection = functools.partial(_SecureConnection, line=self._line)
        return self.do_open(connection, req, context=_trust())


class _Redirect(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def __init__(self, hops: list[str]) -> None:
        self._hops = hops

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Note where it goes on to."""
        self._hops.append(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _answer(response: http.client.HTTPResponse, start: int) -> Answer:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise Unavailable(f"it packs the file ({encoding}) although it was asked not to", again=False)
    if response.status not in (200, 206):
        raise Unavailable(f"it answers {response.status}")
    length = response.headers.get("Content-Length", "")
    begins = 0
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        if not given.startswith(f"bytes {start}-"):
            raise BadRange(f"it was asked for bytes from {start} and gives {given or 'others'!r}")
        begins = start
    return Answer(start=begins, length=int(length) if length.isdecimal() else None, stream=response)


@contextmanager
def _open_file(address: str, start: int) -> Iterator[Answer]:
    path = Path(unquote(urlsplit(address).path))
    try:
        # Nothing else than a file: a pipe would be waited for, and a device never ends.
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotThere from error
    except OSError as error:
        raise Unavailable(_reason(error), again=False) from error
    with stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Unavailable("it is not a file", again=False)
        size = stream.seek(0, 2)
        start = min(start, size)
        stream.seek(start)
        yield Answer(start=start, length=size - start, stream=stream)


def _refusal(code: int) -> Exception:
    if code in (404, 410):
        return NotThere()
    if code == 416:
        return BadRange("it answers 416")
    if code in (405, 501):
        return NoHead(f"it answers {code}", again=code == 501)
    # 408 and 429 ask for patience; any other 4xx is about us, and asking again will not change it.
    return Unavailable(f"it answers {code}", again=code >= 500 or code in (408, 429))


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
