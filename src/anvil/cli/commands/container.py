"""Anvil inside its own base image, with this home bound in: daemons, a forge, a shell; or the image for others.

build   make the container's base image from its lock
run     an Anvil command inside: anvil container run mainframe run, anvil container run forge iso
shell   a shell inside, to look around
export  the image as an OCI archive, which Podman and Docker load

The container has Debian's Python and bubblewrap, no Anvil and no database: Anvil's package is bound in read-only, the
home and the current folder as they are, each at its own path. Cells are made inside of it. The archive is an export
for other engines, no artifact: it does not pass the output gate and belongs in no build_artifacts.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.cli import options, terminal
from anvil.cli.progress import Progress
from anvil.errors import UsageError
from anvil.mainframe import container
from anvil.mainframe.services import Services

if TYPE_CHECKING:
    from anvil.cell.process import Child

EXAMPLE = "anvil container build && anvil container run forge iso"

_PASSED = ("TERM", "ACCESSIBLE", "NO_COLOR", "http_proxy", "https_proxy", "no_proxy", "NOTIFY_SOCKET", "WATCHDOG_USEC")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|run|shell|export")
    one = _action(actions, "build", "Make the container's base image.", "anvil container build --from wheels")
    one.add_argument("--offline", action="store_true", help="fetch nothing")
    one.add_argument("--from", dest="from_dir", type=Path, metavar="DIR", help="look for files here first")
    one = _action(actions, "run", "Run an Anvil command inside.", "anvil container run mainframe run")
    _add_inside(one)
    one.add_argument("command", help="the command, and then its words")
    one.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    one = _action(actions, "shell", "A shell inside.", "anvil container shell")
    _add_inside(one)
    one = _action(actions, "export", "Write the image as an OCI archive.", "anvil container export anvil.oci.tar")
    one.add_argument("file", type=Path, help="the archive to write")


def run(args: argparse.Namespace) -> int:
    """Run an action; run and shell end as the command inside does."""
    with Services(options.settings(args)) as services:
        if args.action == "build":
            return _build(services)
        made = container.required(services)
        if args.action == "export":
            return _export(made, args.file)
        words = ["/bin/bash"] if args.action == "shell" else container.words([args.command, *args.words])
        shared = [path.absolute() for path in args.bind]
        cwd = Path.cwd()
        environment = {name: value for name, value in os.environ.items() if _is_passed(name)}
        if (address := environment.get("NOTIFY_SOCKET", "")).startswith("/"):
            shared.append(Path(address))
        interactive = args.action == "shell" and sys.stdin.isatty()
        wanted = container.Wanted(command=words, shared=shared, cwd=cwd, env=environment)
        return _interactive(services, made, wanted) if interactive else _plain(services, made, wanted)


def _action(actions: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """The parser of one action."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, description=text, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_home(parser)
    return parser


def _add_inside(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bind", action="append", type=Path, default=[], metavar="PATH", help="be seen inside, too (a project, say)"
    )


def _is_passed(name: str) -> bool:
    return name in _PASSED or name.startswith("ANVIL_") or name.lower() in _PASSED


def _build(services: Services) -> int:
    with Progress(stopped="making the container's image was stopped") as progress:
        made = container.build(services, report=lambda data: progress.tell(str(data.get("note", "working"))))
    print(f"  {container.NAME}: {made.image.digest[:16]}, {made.image.rootfs}")
    return 0


def _plain(services: Services, made: container.Built, wanted: container.Wanted) -> int:
    """The command inside has this one's streams; signals are passed on to it."""
    from anvil.cell.container import open_container

    child = open_container(container.specification(services, made, wanted))
    services.close()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda told, _frame: _pass_on(child, told))
    child.reap()
    return _code(child)


def _interactive(services: Services, made: container.Built, wanted: container.Wanted) -> int:
    """The command inside has a terminal of its own, of which this one's shows what it shows."""
    from dataclasses import replace

    from anvil.cell.container import open_container
    from anvil.cell.terminal import Size, raw

    master, slave = os.openpty()
    Size.of(0).put(slave)
    spec = container.specification(services, made, replace(wanted, fds=(slave, slave, slave), terminal=True))
    child = open_container(spec)
    services.close()
    os.close(slave)
    signal.signal(signal.SIGWINCH, lambda _number, _frame: Size.of(0).put(master))
    with raw(0, 1):
        _relay(child, master)
    os.close(master)
    child.reap()
    return _code(child)


def _relay(child: Child, master: int) -> None:
    import select

    keyboard = [0]
    while True:
        ready, _, _ = select.select([master, *keyboard], (), (), 0.2)
        if master in ready:
            try:
                said = os.read(master, 16384)
            except OSError:  # EIO: nobody has the other end open any more
                return
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
        if 0 in ready:
            typed = os.read(0, 1024)
            if typed:
                os.write(master, typed)
            else:
                keyboard.clear()
                _pass_on(child, signal.SIGHUP)


def _pass_on(child: Child, number: int) -> None:
    if child.status is None:
        signal.pidfd_send_signal(child.pidfd, number)


def _code(child: Child) -> int:
    code = child.exit_code or 0
    return 128 - code if code < 0 else code


def _export(made: container.Built, path: Path) -> int:
    from anvil.image import oci

    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file to be written over")
    written = oci.export(
        oci.Contents(rootfs=made.image.rootfs, trees={container.WHEELS: made.wheels}),
        oci.Config(
            name=container.NAME,
            entrypoint=tuple(container.words(())),
            env=container.environment(),
            folders=(container.CODE,),
        ),
        path,
    )
    print(f"  {path}: {terminal.size(path.stat().st_size)}, manifest sha256:{written}")
    print(f"  load it:  podman load -i {path}")
    print(f"  it holds no Anvil: bind the package at {container.CODE}/anvil and the home, and set ANVIL_HOME")
    return 0
