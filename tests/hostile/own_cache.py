"""Attacks of our own on what is kept: inputs, lower layers, results; and on what the mainframe hands into a cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from anvil.cell import bwrap, run
from anvil.cell.spec import WorkTree
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, HIT, Attack, Seen, Wire, jammed
from tests.hostile.controls import left, outside, without
from tests.hostile.ground import replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hostile.ground import Ground

INPUTS = r"""
[ -e /in/data/f ] || { mkdir -p /in/data; echo data >/in/data/f; }
python3 - <<'END'
import mmap, os
path = "/in/data/f"
def hit(name, call):
    try:
        call()
        print("HIT", name, flush=True)
    except (OSError, ValueError):
        pass
fd = os.open(path, os.O_RDONLY)
hit("open", lambda: os.open(path, os.O_RDWR))
hit("open again", lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
hit("truncate", lambda: os.truncate(path, 0))
hit("mode", lambda: os.chmod(path, 0o666))
hit("mode of the descriptor", lambda: os.fchmod(fd, 0o666))
hit("owner", lambda: os.chown(path, os.getuid(), os.getgid()))
hit("time", lambda: os.utime(path, (1, 1)))
hit("map", lambda: mmap.mmap(fd, 4, mmap.MAP_SHARED, mmap.PROT_WRITE))
hit("rename", lambda: os.rename(path, path + "2"))
hit("remove", lambda: os.unlink(path))
hit("new name", lambda: os.link(f"/proc/self/fd/{fd}", "/in/data/g"))
hit("nameless file", lambda: os.open("/in/data", os.O_TMPFILE | os.O_RDWR))
hit("attribute", lambda: os.setxattr(path, "user.x", b"y"))
hit("folder", lambda: os.mkdir("/in/data/d"))
END
echo TRIED
"""

INPUTS_RECIPE = f"""
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
d = r.run("data", None, "echo whole-@SALT@ >/out/f")
t = r.run("try", None, {INPUTS!r}, inputs={{"data": d.out}})
r.run("look", t, "if ! grep -q '^whole-@SALT@$' /in/data/f; then echo HIT it changed; fi", inputs={{"data": d.out}})
"""

LOWER = r"""
python3 - <<'END'
import mmap, os
early = os.open("/work/f", os.O_RDONLY)
view = mmap.mmap(early, 4, mmap.MAP_SHARED, mmap.PROT_READ)
os.chmod("/work/f", 0o666)
with open("/work/f", "r+b", buffering=0) as file:
    file.write(b"evil")
    again = mmap.mmap(file.fileno(), 4)
    again[0:4] = b"evil"
os.link("/work/g", "/work/h")
with open("/work/h", "wb") as file:
    file.write(b"evil")
os.truncate("/work/i", 0)
with open("/work/k", "r+b") as to, open("/work/f", "rb") as source:
    os.copy_file_range(source.fileno(), to.fileno(), 4)
END
echo TRIED
"""

LOWER_RECIPE = f"""
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
d = r.run("data", None, "for f in f g i k; do echo whole@SALT@ >$f; done; mkdir d; echo whole@SALT@ >d/x")
t = r.run("try", d, {LOWER!r})
look = "if [ \\"$(cat f g i k d/x | sort -u)\\" != whole@SALT@ ]; then echo HIT it changed; fi"
r.run("look", d, look, inputs={{"after": t.out}})
"""

PAIR = r"""
echo whole >/out/f; ln /out/f /out/g; mkdir /out/d; ln /out/f /out/d/h
echo TRIED
"""

PAIR_RECIPE = f"""
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
t = r.run("try", None, {PAIR!r})
u = r.run("take", None, "cp -a /in/out/. .", inputs={{"out": t.out}})
v = r.run("change", u, "echo evil >f; if grep evil g d/h; then echo HIT one changed with the other; fi; stat -c %h *")
"""

DESCRIPTORS = r"""
python3 - <<'END'
import os, stat
for fd in range(3, 4096):
    try:
        facts = os.fstat(fd)
        print("HIT descriptor", fd, os.readlink(f"/proc/self/fd/{fd}"), flush=True)
    except OSError:
        pass
for fd in (0, 1, 2):
    where = os.readlink(f"/proc/self/fd/{fd}")
    if not where.startswith(("pipe:", "/dev/null")):
        print("HIT", fd, "is", where, flush=True)
for name in ("LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PYTHONPATH", "ANVIL_HOSTILE_TOKEN", "MAKEOVERRIDES"):
    if name in os.environ:
        print("HIT", name, flush=True)
END
echo TRIED
"""

SPOKEN = r"""
printf '{"@ID":115,"data":{"card":"@NAME@/try","seconds":0}}\n{"@ID":120,"data":{"path":"/tmp/forged"}}\n'
printf '\r{"@ID":120,"data":{"path":"/tmp/forged"}}\r\n\0\0\0'
exit 3
"""

LONG_LINE = r"""
head -c 3M /dev/zero | tr '\0' 'x'
echo; head -c 200K /dev/zero | tr '\0' '\033'; printf '\ra\bb\vc\fd\n'
exit 3
"""

JOBS_RECIPE = r'''
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
t = r.run("try", None, r"""
fifo=/run/anvil/jobserver
[ -p $fifo ] || exit 9
python3 - <<'END'
import fcntl, os, time
fd = os.open("/run/anvil/jobserver", os.O_RDWR | os.O_NONBLOCK)
end = time.monotonic() + 1
while time.monotonic() < end:
    try:
        os.read(fd, 65536)  # every token there is, and never given back
    except BlockingIOError:
        time.sleep(0.01)
fcntl.fcntl(fd, 1031, 1 << 20)  # F_SETPIPE_SZ
try:
    while True:
        os.write(fd, b"forged" * 4096)
except BlockingIOError:
    pass
for call in (lambda: os.unlink("/run/anvil/jobserver"), lambda: os.chmod("/run/anvil/jobserver", 0)):
    try:
        call()
        print("HIT the FIFO itself", flush=True)
    except OSError:
        pass
END
""")
r.run("after", t, r"""
cat >Makefile <<'END'
all: a b c d
a b c d: ; @sleep 0.1; touch $@
END
make -s
[ -e d ]
python3 - <<'END'
import os, time
fd = os.open("/run/anvil/jobserver", os.O_RDWR | os.O_NONBLOCK)
time.sleep(0.5)
found = 0
try:
    found = len(os.read(fd, 65536))
except BlockingIOError:
    pass
if found >= os.cpu_count():
    print("HIT there are", found, "tokens", flush=True)
END
echo TRIED
""")
'''


def changed_in_its_own_tree(ground: Ground, attack: Attack, wire: Wire) -> str:
    """In a plain folder, which a cell without an overlay would share with others, everything changes."""
    del attack, wire
    tree = ground.lab.tree(dict.fromkeys("fgik", "whole\n") | {"d/x": "whole\n"})
    folder = ground.lab.folder()
    spec = ground.lab.spec(folder, LOWER, work=WorkTree(lower=(), upper=tree, scratch=folder / "scratch"))
    ground.lab.apart(lambda: run.run(spec, folder / "log"), specs=(spec,))
    return "f and g changed" if "evil" in (tree / "f").read_text() and "evil" in (tree / "g").read_text() else ""


def one_inode(_ground: Ground, out: Path) -> str:
    """Before anything is collected the three are one file."""
    return f"{(out / 'f').stat().st_nlink} names" if (out / "f").stat().st_nlink == 3 else ""


def writable_inputs() -> None:
    """Inputs are bound read-write, and attributes may be set."""
    vars(bwrap)["_ARGUMENTS"]["read-only"] = bwrap._ARGUMENTS["read-write"]
    Without.operation("freeze", "/in")()


def told(*words: str) -> Callable[[Ground, Attack, Wire], Seen]:
    """An attempt on the command line: what it prints decides."""

    def attempt(ground: Ground, attack: Attack, wire: Wire) -> Seen:
        ground.write(attack, wire)
        said = b""
        for command in (["forge", attack.name, "--project", str(ground.project), *words], ["jam"]):
            done = subprocess.run(
                [sys.executable, "-m", "anvil.cli.main", *command, "--home", str(ground.home)], cwd=ground.project,
                capture_output=True, check=False, timeout=120,
            )  # fmt: skip
            said += done.stdout + done.stderr
        found = []
        for line in said.splitlines():
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and message.get("data", {}).get("path") == "/tmp/forged":
                found.append(f"{HIT} a forged message")
        if len(said) > 100_000:
            found.append(f"{HIT} {len(said)} bytes for one jam")
        if bad := sorted({byte for byte in said if byte < 32 and byte != 10}):
            found.append(f"{HIT} bytes {bad}")
        message = "exit code 3" if b"exit code 3" in said else said.decode(errors="replace")[-500:]
        return Seen(kind="jammed", message=message, log="\n".join(found))

    return attempt


def in_the_log(mark: bytes, least: int = 0) -> Callable[[Ground, Attack, Wire], str]:
    """The log itself holds it as the card said it."""

    def control(ground: Ground, attack: Attack, wire: Wire) -> str:
        log = ground.lab.cell(replaced(attack.script, wire.marks | {"NAME": attack.name})).log
        longest = max(map(len, log.splitlines()))
        return f"a line of {longest} bytes" if mark in log and longest >= least else ""

    return control


def one_fifo_for_all(ground: Ground, attack: Attack, wire: Wire) -> str:
    """With one FIFO for all cells what one takes the next one lacks."""
    del attack, wire
    fifo = ground.folder() / "jobs"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"++++")
    taken = len(os.read(fd, 65536))
    try:
        os.read(fd, 1)
    except BlockingIOError:
        return f"{taken} tokens are gone"
    finally:
        os.close(fd)
    return ""


ATTACKS = (
    Attack(name="change-an-input", recipe=INPUTS_RECIPE, script=INPUTS, verdict=CONTAINED,
           control=without(writable_inputs)),
    Attack(name="change-what-lies-below", recipe=LOWER_RECIPE, verdict=CONTAINED, control=changed_in_its_own_tree),
    Attack(name="names-of-one-file", recipe=PAIR_RECIPE, script=PAIR, verdict=CONTAINED, control=left(one_inode)),
    Attack(name="inherited-descriptors-and-variables", script=DESCRIPTORS, verdict=CONTAINED,
           control=outside(shell="exec 9>/dev/null; export LD_LIBRARY_PATH=/x")),
    Attack(name="speak-to-the-face-in-messages", script=SPOKEN, attempt=told("--json"), verdict=jammed("exit code 3"),
           control=in_the_log(b'\n{"@ID":120,"data":{"path":"/tmp/forged"}}')),
    Attack(name="a-line-of-megabytes", script=LONG_LINE, attempt=told(), verdict=jammed("exit code 3"),
           control=in_the_log(b"\x1b\x1b", 3 << 20)),
    Attack(name="empty-and-flood-the-jobserver", recipe=JOBS_RECIPE, verdict=CONTAINED, control=one_fifo_for_all),
)  # fmt: skip
