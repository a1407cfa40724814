"""Tripwires that several attacks share: each is a context manager that gives a Wire."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.hostile.attack import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.ground import Ground


@contextmanager
def canary(ground: Ground) -> Iterator[Wire]:
    """A folder, ``@CANARY@``, that anyone may write, with a secret, ``@SECRET@``: nothing of it may change."""
    folder = ground.folder()
    secret = folder / "id_ed25519"
    secret.write_text("BEGIN PRIVATE KEY\n", encoding="utf-8")
    secret.chmod(0o644)  # only where it lies keeps it from a cell
    folder.chmod(0o777)
    before = secret.stat()

    def harm() -> str:
        if sorted(path.name for path in folder.iterdir()) != ["id_ed25519"]:
            return f"the canary's folder has changed: {sorted(path.name for path in folder.iterdir())}"
        now = secret.stat()
        same = (before.st_mtime_ns, before.st_mode, before.st_nlink, before.st_uid)
        if (now.st_mtime_ns, now.st_mode, now.st_nlink, now.st_uid) != same or "PRIVATE" not in secret.read_text():
            return "the canary has changed"
        return ""

    with ground.reachable(folder):
        yield Wire(marks={"CANARY": str(folder), "SECRET": str(secret)}, harm=harm)


@contextmanager
def victim(ground: Ground) -> Iterator[Wire]:
    """A process of the cell's uid, ``@PID@``, that must live on."""
    with subprocess.Popen(["sleep", "300"], user=ground.cell_uid if ground.root else None) as process:

        def harm() -> str:
            return "" if process.poll() is None else f"the victim was killed by signal {-process.returncode}"

        yield Wire(marks={"PID": str(process.pid)}, harm=harm)
        process.kill()


@contextmanager
def listeners(ground: Ground) -> Iterator[Wire]:
    """Sockets of the host's: ``@TCP@``, ``@TCP6@``, ``@UDP@`` ports, ``@ABSTRACT@`` name, ``@SOCKET@`` path."""
    folder = ground.folder()
    folder.chmod(0o755)
    name, path = f"anvil-hostile-{os.getpid()}-{folder.name}", folder / "docker.sock"
    with contextlib.ExitStack() as stack:
        tcp, unix, abstract = (
            stack.enter_context(socket.socket(family)) for family in (socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX)
        )
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        path.chmod(0o777)
        abstract.bind("\0" + name)
        for server in (tcp, unix, abstract):
            server.listen()
        sockets = {"tcp": tcp, "udp": udp, "unix": unix, "abstract": abstract}
        marks = {"ABSTRACT": name, "SOCKET": str(path)}
        marks |= {"TCP": str(tcp.getsockname()[1]), "UDP": str(udp.getsockname()[1]), "TCP6": "0"}
        with contextlib.suppress(OSError):
            tcp6 = stack.enter_context(socket.socket(socket.AF_INET6))
            tcp6.bind(("::1", 0))
            tcp6.listen()
            sockets["tcp6"] = tcp6
            marks["TCP6"] = str(tcp6.getsockname()[1])

        def harm() -> str:
            poll = select.poll()
            for server in sockets.values():
                poll.register(server, select.POLLIN)
            numbers = {fd for fd, _ in poll.poll(0)}
            reached = [name for name, server in sockets.items() if server.fileno() in numbers]
            return f"reached: {', '.join(reached)}" if reached else ""

        with ground.reachable(folder):
            yield Wire(marks=marks, harm=harm)
