"""diffoscope, where the host has it, tells how two files differ: in a cell of the host's own programs.

What it reads is hostile, and it calls dozens of tools to read it. So it sees the host's ``/usr``, read-only, the two
files, and nothing else of the machine: no network, no home, no privileges, like any card.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from anvil.cell import run as cell
from anvil.cell.spec import MOUNT_POINTS, Bind, CellSpec, GiB, Limits

if TYPE_CHECKING:
    from anvil.mainframe.context import Context

SECONDS = 600
"""What one comparison may take; what was told until then is kept."""

_LOG_BYTES = 8 << 20
_USR = Path("/usr")
_FAULT = 2  # its exit code, and Python's for an exception: 1 says that the files differ, and so does an exception
_TRACE = b"Traceback (most recent call last)"


def find() -> Path | None:
    """The host's diffoscope, if there is one."""
    found = shutil.which("diffoscope")
    return Path(found) if found else None


def tell(context: Context, program: Path, files: tuple[Path, Path], name: str) -> bool:
    """Have it write into ``context.log`` how two files differ, which it knows as ``name``; False when it could not.

    Raises Interrupted when stopped.
    """
    services = context.services
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name)[-100:]
    seen = [f"{side}-{plain}" for side in ("first", "second")]
    with context.staging() as staging:
        spec = CellSpec(
            rootfs=_root(staging / "root"),
            command=("/in/diffoscope", "--text", "-", *(f"/in/{name}" for name in seen)),
            inputs=(
                Bind(name="usr", source=_USR),
                Bind(name="diffoscope", source=program),
                *(Bind(name=path.name, source=path) for path in _etc()),
                *(Bind(name=name, source=file) for name, file in zip(seen, files, strict=True)),
            ),
            limits=Limits(memory_bytes=4 * GiB, wall_seconds=SECONDS, log_bytes=_LOG_BYTES),
            host_uid=services.settings.cell_uid,
            bwrap=services.settings.bwrap,
            lender=services.rootfs(context.node.image),
        )
        outcome = cell.run(spec, context.log, cancel=context.tick)
        context.stop_if_asked()
    said = context.log.read_bytes()
    return bool(said) and (outcome.exit_code or 0) < _FAULT and _TRACE not in said


def _root(folder: Path) -> Path:
    """A root whose programs are the host's: links into what is bound below /in."""
    folder.mkdir(mode=0o755)
    for name in (*MOUNT_POINTS, "etc"):
        (folder / name).mkdir(mode=0o755)
    (folder / "usr").symlink_to("in/usr")
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / name).symlink_to(f"in/usr/{name}")
    for path in _etc():
        (folder / "etc" / path.name).symlink_to(f"../in/{path.name}")
    return folder


def _etc() -> list[Path]:
    """What programs in /usr look up in /etc: who stands for whom, and where libraries are."""
    return [path for path in (Path("/etc/alternatives"), Path("/etc/ld.so.cache")) if path.exists()]
