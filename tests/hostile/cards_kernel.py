"""Hostile cards about other processes and the kernel's interfaces: 11, 12, 20, 21, 28 (survivors), 29."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, Attack, Wire
from tests.hostile.cards_output import grows
from tests.hostile.controls import outside, without
from tests.hostile.ground import replaced
from tests.hostile.wires import victim

if TYPE_CHECKING:
    from tests.hostile.ground import Ground


def probes(*names: str) -> str:
    """A script that asks the probe for each of some things."""
    lines = [f'if /in/probe {name}; then echo "HIT {name}"; fi' for name in names]
    return "\n".join([*lines, "echo TRIED"])


KILL = r"""
for p in @PID@ 1; do kill -9 $p 2>/dev/null || true; done
python3 -c 'import os, signal; os.kill(@PID@, 9)' 2>/dev/null || true
echo TRIED
"""

KILL_ALL = r"""
trap '' TERM HUP
python3 -c 'import os, signal; os.kill(-1, signal.SIGTERM)' || true
kill -TERM -1 || true
echo TRIED
"""

SURVIVE = r"""
python3 - <<'END'
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        end = time.monotonic() + 2
        fd = os.open("/out/late", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        while time.monotonic() < end:
            os.write(fd, b"x")
            time.sleep(0.02)
        os._exit(0)
    os._exit(0)
time.sleep(0.2)
END
echo TRIED
"""

TERMINAL = r"""
cat >go.py <<'END'
import fcntl, os, pty, termios
for path in ("/dev/tty", "/dev/console", "/proc/self/fd/0", "/proc/1/fd/0", "/dev/pts/0"):
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCCONS", 0x541D), ("TIOCSETD", 0x5423)):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            fcntl.ioctl(fd, request, b"\2")
            print("HIT", name, path)
        except OSError:
            pass
main, sub = pty.openpty()
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(sub, termios.TIOCSCTTY, 0)
    try:
        fcntl.ioctl(sub, termios.TIOCSTI, b"x")
        print("HIT TIOCSTI", flush=True)
    except OSError:
        pass
    os._exit(0)
os.waitpid(pid, 0)
END
python3 go.py
echo TRIED
"""


def survives_outside(ground: Ground, attack: Attack, wire: Wire) -> str:
    """On the host what was left running writes on when the script has ended."""
    folder = ground.folder()
    script = replaced(attack.script, wire.marks).replace("/out", str(folder))
    subprocess.run(["bash", "-c", script], check=True, stdout=subprocess.DEVNULL)
    return grows(folder / "late")


def all_killed_outside(ground: Ground, attack: Attack, wire: Wire) -> str:
    """In a process namespace of its own, whose processes it may all hit, it does."""
    del attack, wire
    script = "trap '' TERM; (trap - TERM; exec sleep 60) & sleep 0.2; kill -TERM -1; wait $! || echo HIT $?"
    command = ["unshare", "-pf" if ground.root else "-Urpf", "--mount-proc", "bash", "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return said.strip() if "HIT" in said else ""


ATTACKS = (
    Attack(
        name="kill-the-hosts-processes", cards=(20,), script=KILL, verdict=CONTAINED, wire=victim, control=outside()
    ),
    Attack(
        name="kill-everything",
        cards=(20,),
        script=KILL_ALL,
        verdict=CONTAINED,
        wire=victim,
        control=all_killed_outside,
    ),
    Attack(name="survive", cards=(20, 28), script=SURVIVE, verdict=CONTAINED, control=survives_outside),
    Attack(
        name="trace-and-read-processes",
        cards=(11,),
        probe=True,
        script=probes("ptrace", "process_vm_readv"),
        verdict=CONTAINED,
        control=without(Without.filter),
    ),
    Attack(
        name="terminal-injection", cards=(12,), script=TERMINAL, verdict=CONTAINED, control=without(Without.filter)
    ),
    Attack(
        name="kernel-keyrings",
        cards=(21,),
        probe=True,
        script=probes("keyctl", "add_key"),
        verdict=CONTAINED,
        control=without(Without.filter),
    ),
    Attack(
        name="nested-namespaces",
        cards=(29,),
        probe=True,
        script=probes("userns", "clone_userns", "clone3", "setns", "mount", "chroot"),
        verdict=CONTAINED,
        control=without(Without.filter, Without.isolation("--disable-userns")),
    ),
    Attack(
        name="wide-kernel-interfaces",
        cards=(29,),
        probe=True,
        script=probes("io_uring", "bpf", "userfaultfd", "perf"),
        verdict=CONTAINED,
        control=without(Without.filter),
    ),
)
