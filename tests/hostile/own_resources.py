"""Attacks of our own on what the machine has: memory that no process has mapped, names that cost no bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anvil.cell import watchdog
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, Attack, Seen, Verdict, Wire, jammed, lack
from tests.hostile.cards_limits import no_meter
from tests.hostile.controls import left, without

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.ground import Ground

MiB = 1 << 20
OVER = jammed("more than its 512 MiB of memory")

# Each holds 24 times 32 MiB, of which no process has anything mapped, and says so when it has come that far.
HOLD = r"""
ulimit -n 8192
python3 - <<'END'
import ctypes, mmap, os, socket, time
M = 1 << 20
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmdt.argtypes = [ctypes.c_void_p]
kept, total = [], 0
for n in range(24):
@HOLD@
    total += 32
    time.sleep(0.05)
time.sleep(1)
print("HIT held", total, "MiB", flush=True)
END
echo TRIED
"""

FILES = """
    fd = os.memfd_create("x")
    os.write(fd, bytes(32 * M).replace(b"\\0", b"x"))
    kept.append(fd)
"""

SHARED = """
    view = mmap.mmap(-1, 32 * M)
    view.write(b"x" * 32 * M)
    view.madvise(mmap.MADV_DONTNEED)  # it stays in memory, and no process has it
    kept.append(view)
"""

SEGMENTS = """
    segment = libc.shmget(0, ctypes.c_size_t(32 * M), 0o1600)
    if segment < 0:
        raise SystemExit("refused")
    place = libc.shmat(segment, None, 0)
    ctypes.memset(ctypes.c_void_p(place), 1, 32 * M)
    libc.shmdt(place)
"""

UNDER_WAY = """
    fd = os.memfd_create("x")
    os.write(fd, b"x" * 32 * M)
    pair = socket.socketpair()
    socket.send_fds(pair[0], [b"x"], [fd])
    os.close(fd)
    kept.append(pair)
"""

BUFFERS = """
    for _ in range(160):
        pair = socket.socketpair()
        pair[0].setblocking(False)
        pair[0].send(b"x" * 200_000)
        kept.append(pair)
"""


def holding(name: str, how: str, *, verdict: Verdict = OVER, as_user: Verdict | None = None) -> Attack:
    """Memory held in one way; without a fence it is held."""
    return Attack(
        name=f"memory-{name}", script=HOLD.replace("@HOLD@", how.strip("\n")), verdict=verdict, as_user=as_user,
        control=without(Without.fence, Without.filter),
    )  # fmt: skip


def unseen(name: str, how: str) -> Attack:
    """Memory that no sampling sees: an ordinary user's machine is kept from running out of it.

    Here it counts as having run out from the beginning: what is left of a real machine changes by itself.
    """

    def attempt(ground: Ground, attack: Attack, wire: Wire) -> Seen:
        def floor() -> None:
            watchdog.FLOOR = 1 << 62

        return ground.forge(attack, wire, weaken=(floor,))

    return Attack(
        name=f"memory-{name}", script=HOLD.replace("@HOLD@", how.strip("\n")), attempt=attempt, verdict=OVER,
        as_user=lack("memory was nearly gone"), control=without(Without.fence, Without.filter),
    )  # fmt: skip


LINKS = r"""
python3 - <<'END'
import os
open("/out/f", "w").close()
for n in range(60000):
    os.link("/out/f", "/out/%d" % n)
END
echo TRIED
"""

APPARENT = r"""
truncate -s 40M /out/f
for n in 1 2 3 4 5 6 7 8; do ln /out/f /out/$n; done
echo TRIED
"""

WIDE = r"""
python3 - <<'END'
import os
for n in range(40000):
    os.mkdir("/out/%d" % n)
print("HIT 40000 folders", flush=True)
END
echo TRIED
"""

CLOSED = r"""
mkdir -p /out/a/b/c; echo x >/out/a/b/c/f; chmod 000 /out/a/b/c/f /out/a/b/c /out/a/b /out/a
mkdir -p /work/a/b; chmod 111 /work/a; chmod 333 /work/a/b
echo TRIED
"""


def little_for_much(_ground: Ground, out: Path) -> str:
    """It takes next to nothing of the disk, and whoever copies it needs 360 MiB."""
    used = sum(path.stat().st_blocks for path in out.iterdir()) * 512
    apparent = sum(path.stat().st_size for path in out.iterdir())
    return f"{used} bytes say {apparent}" if apparent > 256 * MiB and used < MiB else ""


def cannot_be_entered(ground: Ground, out: Path) -> str:
    """Whoever walks there without being root cannot go in."""
    mode = os.stat(out / "a").st_mode & 0o777
    return f"mode {mode:o}" if ground.uid == os.geteuid() and not mode else ""


ATTACKS = (
    holding("in-nameless-files", FILES),
    holding("in-shared-mappings", SHARED),
    holding("in-detached-segments", SEGMENTS, verdict=jammed("exit code 1")),
    unseen("in-descriptors-under-way", UNDER_WAY),
    unseen("in-buffers-of-sockets", BUFFERS),
    Attack(
        name="names-that-cost-nothing", script=LINKS, limits={"output_bytes": 32 * MiB},
        verdict=jammed("more output"), control=without(no_meter),
    ),
    Attack(
        name="a-sparse-file-of-many-names", script=APPARENT, limits={"output_bytes": 256 * MiB},
        verdict=jammed("the card left more than"), control=left(little_for_much),
    ),
    Attack(
        name="folders-without-number", script=WIDE, limits={"output_bytes": 32 * MiB}, verdict=jammed("more output"),
        control=without(no_meter),
    ),
    Attack(name="folders-that-nobody-may-enter", script=CLOSED, verdict=CONTAINED, control=left(cannot_be_entered)),
)  # fmt: skip
