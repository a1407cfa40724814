"""Hostile cards about what a card may use: 5, 6, 7, 17, 19, 27."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anvil.cell import bwrap, output, running
from anvil.mainframe import cellwork
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, HIT, Attack, Seen, Wire, jammed, lack
from tests.hostile.controls import outside, without

if TYPE_CHECKING:
    from tests.hostile.ground import Ground

MiB = 1 << 20

COUNT = r"""
python3 - <<'END'
import os, time
try:
    for n in range(300):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    print("HIT 300 processes", flush=True)
except BlockingIOError:
    time.sleep(2)
os.system("pkill -9 -P %d" % os.getpid())
END
echo TRIED
"""

BOMB = """
f() { f | f & }
f
sleep 30
echo HIT lived on
"""

CHAIN = """
python3 - <<'END'
import os, time
end = time.monotonic() + 5
while time.monotonic() < end:  # each dies at once, its child goes on: never many, never the same
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
os.open("/out/alive", os.O_CREAT)
END
echo TRIED
"""

THREADS = r"""
python3 - <<'END'
import threading, time
threading.stack_size(65536)
try:
    for n in range(300):
        threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
    print("HIT 300 threads", flush=True)
except RuntimeError:
    time.sleep(2)
END
echo TRIED
"""

MEMORY = r"""
python3 - <<'END'
import os, time
for n in range(8):
    if os.fork() == 0:
        kept = bytearray(b"x" * (128 << 20))
        time.sleep(3)
        os._exit(0)
done = [os.wait()[1] for _ in range(8)]
if not any(done):
    print("HIT had a gigabyte", flush=True)
END
echo TRIED
"""

TMPFS = r"""
total=0
for d in /tmp /dev/shm /run; do
  for n in 1 2 3 4 5 6 7 8; do
    head -c 64M /dev/zero >$d/$n 2>/dev/null || true
    sleep 0.05
    total=$((total + $(stat -c %s $d/$n 2>/dev/null || echo 0)))
  done
done
if [ $total -gt $((600 << 20)) ]; then echo HIT $total bytes; fi
echo TRIED
"""

MEMFD = r"""
python3 - <<'END'
import os, time
fds = [os.memfd_create("x") for n in range(8)]
for n in range(8):
    for fd in fds:
        os.write(fd, b"x" * (16 << 20))
    time.sleep(0.25)
print("HIT a gigabyte in files without names", flush=True)
END
echo TRIED
"""

FILL = r"""
for n in $(seq 40); do head -c 2M /dev/zero >/out/$n; sleep 0.05; done
echo TRIED
"""

NAMES = r"""
python3 - <<'END'
for n in range(60000):
    open("/out/%d" % n, "x").close()
END
echo TRIED
"""

HIDDEN = r"""
exec 3>/work/gone; rm /work/gone
for n in $(seq 60); do head -c 2M /dev/zero >&3; sleep 0.15; done
echo HIT 120 MiB without a name
"""

DEEP_MODE = r"""
mkdir -p /out/a/b; cd /out/a/b
for n in $(seq 40); do head -c 2M /dev/zero >$n; done
chmod 000 /out/a/b
echo TRIED
"""

SPARSE = r"""
for f in /out/big /work/big /tmp/big; do
  if truncate -s 1T $f 2>/dev/null; then echo HIT $f; rm -f $f; fi
  if python3 -c 'import os, sys; os.pwrite(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), b"x", 1 << 40)' $f; then
    echo HIT a byte at the end of $f; rm -f $f
  fi
done 2>/dev/null
echo TRIED
"""

LOG = r"""
head -c 4M /dev/zero | tr '\0' 'y'
echo
echo HIT said 4 MiB
"""

ESCAPES = r"""
printf '\033]0;owned\007\033[2J\033[8m\xff\xfe\xc3\x28\033P$q"p\033\\ \r\nJAM  nothing/at-all\n'
exit 3
"""

LOOP = r"""
trap '' TERM INT HUP QUIT ALRM XCPU
while :; do :; done
"""

BURN = r"""
for n in 1 2 3; do (trap '' XCPU; while :; do :; done) & done
sleep 20
echo HIT burnt what it liked
"""


def no_bounds_in_memory() -> None:
    """Neither a fence nor sizes of the cell's file systems in memory."""
    Without.fence()
    whole = bwrap.plan
    bwrap.plan = lambda spec, host: tuple(
        replace(op, more=("4294967296", op.more[1])) if op.act == "tmpfs" else op for op in whole(spec, host)
    )


class NoMeter(output.Meter):
    """Disk use is not looked at."""

    def look(self, first: int = 0) -> None:
        """See Meter."""
        del first

    def final(self) -> None:
        """See Meter."""


def no_meter() -> None:
    """Without the disk's meter, the kernel's bound on one file, and the collector's on all of them."""
    vars(running)["Meter"] = NoMeter
    cellwork.OUTPUT_BYTES = 1 << 40
    Without.fence()


def no_lowered_limit() -> None:
    """Without the limit: the card's usual one, which is far away."""
    from anvil.cell.spec import Limits

    vars(cellwork)["Limits"] = Limits


def bounded_bomb(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Outside a bomb of the same kind grows until it meets the bound that the control set itself."""
    script = r"""
cat >bomb.py <<'END'
import os, signal, time
end = time.monotonic() + 2
while time.monotonic() < end:
    try:
        os.fork()
    except BlockingIOError:
        print("HIT it grew to the bound that was set for it", flush=True)
        os.killpg(0, signal.SIGKILL)
END
python3 bomb.py
"""
    del attack, wire
    said = ground.outside(script, {}, shell=f"ulimit -u {_tasks_of(ground.cell_uid) + 100}")
    return next((line for line in said.splitlines() if line.startswith(HIT)), "")


def _tasks_of(uid: int) -> int:
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def ignores_sigterm(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Outside it lives on after SIGTERM."""
    del ground, wire
    with subprocess.Popen(["bash", "-c", attack.script]) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        alive = process.poll() is None
        process.kill()
    return "it lived on after SIGTERM" if alive else ""


def on_a_full_disk(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """Forge where the disk counts as full whatever is free: nobody's failure, and nothing is kept."""

    def full() -> None:
        output.FLOOR = 1 << 62

    return ground.forge(attack, wire, weaken=(full,))


def told(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """Forge on the command line, and let ``anvil jam`` tell of it: whatever is dangerous in that gets through."""
    ground.write(attack, wire)

    def anvil(*words: str) -> bytes:
        command = [sys.executable, "-m", "anvil.cli.main", *words, "--home", str(ground.home)]
        done = subprocess.run(command, cwd=ground.project, capture_output=True, check=False, timeout=120)
        return done.stdout + done.stderr

    said = anvil("forge", attack.name, "--project", str(ground.project), "--output", str(ground.folder()))
    said += anvil("jam")
    found = [f"HIT byte {byte:#x} reaches the terminal" for byte in sorted(set(said)) if byte < 32 and byte != 10]
    jam: list[Any] = [line for line in said.decode(errors="replace").splitlines() if line.startswith("JAM ")]
    if any("nothing/at-all" in line for line in jam):
        found.append("HIT a forged jam begins a line")
    message = "the command ended with exit code 3" if b"exit code 3" in said else said.decode(errors="replace")
    return Seen(kind="jammed", message=message, log="\n".join(found), facts={"said": json.dumps(jam)})


def raw_log(ground: Ground, attack: Attack, wire: Wire) -> str:
    """The bytes are in the log as the card said them: printed as they are they would reach the terminal."""
    log = ground.lab.cell(attack.script).log
    del wire
    return "ESC is in the log" if b"\x1b]0;owned\x07" in log and b"\nJAM" in log else ""


ATTACKS = (
    Attack(
        name="too-many-processes", cards=(5,), script=COUNT, limits={"processes": 100},
        verdict=jammed("more processes"), control=without(Without.fence),
    ),
    Attack(
        name="too-many-threads", cards=(5,), script=THREADS, limits={"processes": 100},
        verdict=jammed("more processes"), control=without(Without.fence),
    ),
    Attack(
        name="fork-bomb", cards=(5,), script=BOMB, limits={"processes": 100}, verdict=jammed("more processes"),
        control=bounded_bomb,
    ),
    Attack(
        name="memory-bomb", cards=(6,), script=MEMORY, verdict=jammed("more than its 512 MiB of memory"),
        control=without(Without.fence),
    ),
    Attack(
        name="memory-bomb-in-tmpfs", cards=(6,), script=TMPFS, verdict=jammed("more than its 512 MiB of memory"),
        control=without(no_bounds_in_memory),
    ),
    Attack(
        name="memory-bomb-in-nameless-files", cards=(6,), script=MEMFD, limits={"output_bytes": 16 << 30},
        verdict=jammed("more than its 512 MiB of memory"), control=without(Without.fence),
    ),
    Attack(
        name="fill-the-disk", cards=(7,), script=FILL, limits={"output_bytes": 32 * MiB},
        verdict=jammed("more output"), control=without(no_meter),
    ),
    Attack(
        name="fill-the-inodes", cards=(7,), script=NAMES, limits={"output_bytes": 32 * MiB},
        verdict=jammed("more output"), control=without(no_meter),
    ),
    Attack(
        name="fill-the-disk-without-a-name", cards=(7,), script=HIDDEN, limits={"output_bytes": 32 * MiB},
        verdict=jammed("more output"), control=without(no_meter),
    ),
    Attack(
        name="fill-the-disk-in-a-closed-folder", cards=(7,), script=DEEP_MODE, limits={"output_bytes": 32 * MiB},
        verdict=jammed("more output"), as_user=jammed("left more than|more output"), control=without(no_meter),
    ),
    Attack(
        name="a-full-disk-is-nobodys-failure", cards=(7,), script=FILL, attempt=on_a_full_disk,
        verdict=lack("the disk was full while"), control=without(no_meter),
    ),
    Attack(name="sparse-file", cards=(27,), script=SPARSE, verdict=CONTAINED, control=outside()),
    Attack(
        name="log-flood", cards=(17,), script=LOG, limits={"log_bytes": MiB}, verdict=jammed("more log"),
        control=without(no_lowered_limit),
    ),
    Attack(
        name="terminal-escapes-in-the-log", cards=(17,), script=ESCAPES, attempt=told,
        verdict=jammed("exit code 3"), control=raw_log,
    ),
    Attack(
        name="endless-loop", cards=(19,),
        recipe='from anvil.recipe import Recipe\nr = Recipe("@NAME@", licence="MIT")\n'
        f'r.run("try", None, {LOOP!r}, wall=2)\n',
        script=LOOP, verdict=jammed("more than its 2 s"), control=ignores_sigterm,
    ),
    Attack(
        name="burn-the-processor", cards=(19,), script=BURN, limits={"cpu_seconds": 2},
        verdict=jammed("more CPU time"), control=without(no_lowered_limit),
    ),
)  # fmt: skip
