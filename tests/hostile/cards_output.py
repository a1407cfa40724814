"""Hostile cards about what a card leaves: 8, 9, 10, 15, 16, 18, 24, 25, 26, 28, 31."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

from anvil.cell import process, run
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, Attack, Wire, jammed, one_card, refused
from tests.hostile.controls import left, outside, without
from tests.hostile.ground import replaced
from tests.hostile.wires import canary

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.attack import Verdict
    from tests.hostile.controls import Control
    from tests.hostile.ground import Ground

LINKS = r"""
ln -s @SECRET@ /out/absolute
ln -s ../../../../../../../../../..@SECRET@ /out/relative
ln -s .. /out/parent
ln -s @CANARY@ /out/middle
ln -s loop /out/loop
echo TRIED
"""


def reads(name: str) -> Control:
    """A collector that opened what it finds by its path would read the secret."""

    def look(_ground: Ground, out: Path) -> str:
        return "it leads to the secret" if "PRIVATE" in (out / name).read_text(encoding="utf-8") else ""

    return left(look)


def takes(path: str, *, kind: str = "elf_static") -> str:
    """A recipe that releases the file at ``path`` of what LINKS left."""
    return one_card(LINKS, more=f'r.artifact("bin/x", t.out / {path!r}, kind={kind})')


def link_attack(name: str, path: str, reason: str) -> Attack:
    """Something of the host's is named through a link."""
    return Attack(
        name=name, cards=(8,), recipe=takes(path), script=LINKS, wire=canary, verdict=jammed(reason),
        control=reads(path),
    )  # fmt: skip


NEXT = """
u = r.run("next", t, {script!r}, inputs={{"out": t.out}})
"""

HARD = r"""
[ -e /in/data/f ] || { mkdir -p /in/data; echo data >/in/data/f; } 2>/dev/null || true
for to in /out/f /work/f /tmp/f /in/data/g; do
  if ln /in/data/f $to 2>/dev/null; then echo HIT linked to $to; fi
done
if ln -s /in/data/f /out/s && cp -l /out/s /out/t 2>/dev/null && [ ! -L /out/t ]; then echo HIT by a link; fi
if [ -e /work/below ] && ln /work/below /out/below 2>/dev/null; then echo HIT from the tree; fi
echo TRIED
"""

HARD_RECIPE = f"""
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
d = r.run("data", None, "echo data >/out/f; echo below >/work/below")
r.run("try", d, {HARD!r}, inputs={{"data": d.out}})
"""

CAPABILITY = r"""
cp /bin/true /out/t
python3 - <<'END'
import os, struct
value = struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0, 0)
names = ("security.capability", "user.overlay.opaque", "user.overlay.redirect", "trusted.overlay.opaque", "user.x")
for name in names:
    for path in ("/out/t", "/out", "/work"):
        try:
            os.setxattr(path, name, value if name.startswith("sec") else b"y")
            print("HIT", name, path)
        except OSError:
            pass
END
echo TRIED
"""

ESCAPING = r"""
python3 - <<'END'
import io, tarfile
with tarfile.open("/out/a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
    def add(name, kind=tarfile.REGTYPE, target="", data=b'{\n "a": 1\n}\n'):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data) if info.size else None)
    @MEMBERS@
END
echo TRIED
"""

MEMBERS = {
    "parent": 'add("../../../escaped")',
    "absolute": 'add("@CANARY@/escaped")',
    "symlink": 'add("door", tarfile.SYMTYPE, "@CANARY@"); add("door/escaped")',
    "hardlink": 'add("door", tarfile.LNKTYPE, "@SECRET@"); add("more", tarfile.LNKTYPE, "../../../escaped")',
    "device": 'add("null", tarfile.CHRTYPE)',
}


def naive_unpacking(ground: Ground, attack: Attack, wire: Wire) -> str:
    """A program that unpacks as the archive says puts a file, or a door, outside of the folder."""
    result = ground.lab.cell(replaced(attack.script, wire.marks))
    deep = ground.folder() / "a" / "b" / "c"
    deep.mkdir(parents=True)
    with tarfile.open(result.out / "a.tar") as tar:
        found = [member.name for member in tar if member.ischr()]
        with contextlib.suppress(OSError, KeyError):
            tar.extractall(deep, filter="fully_trusted")
    if (escaped := deep.parents[2] / "escaped").exists():
        found.append(str(escaped))
    canary_folder = wire.marks["CANARY"]
    for name in os.listdir(canary_folder):
        if name == "escaped":
            os.unlink(os.path.join(canary_folder, name))
            found.append("a file beside the secret")
    if (deep / "door").exists() and (deep / "door").stat().st_nlink > 1 and not (deep / "door").is_symlink():
        os.unlink(deep / "door")
        found.append("a hard link to the secret")
    return ", ".join(found)


def archive_attack(which: str, reason: str) -> Attack:
    """A released archive whose members would land elsewhere."""
    script = ESCAPING.replace("@MEMBERS@", MEMBERS[which])
    return Attack(
        name=f"archive-with-{which}",
        cards=(15,),
        recipe=one_card(script, more='r.artifact("a.tar", t.out / "a.tar", kind=archive)'),
        script=script,
        wire=canary,
        verdict=jammed(reason),
        control=naive_unpacking,
    )


BOMB = r"""
head -c 8M /dev/zero | gzip -9 >one
for n in $(seq 64); do cat one; done >some
for n in $(seq 64); do cat some; done >/out/bomb.gz
echo TRIED
"""


def inflates(ground: Ground, attack: Attack, wire: Wire) -> str:
    """A reader that unpacks it gets more than a thousand times as much (it is stopped at 256 MiB)."""
    del wire
    result = ground.lab.cell(attack.script)
    size = (result.out / "bomb.gz").stat().st_size
    script = f"zcat {result.out / 'bomb.gz'} 2>/dev/null | head -c 256M | wc -c"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    return f"{size} bytes gave {done.stdout.strip()} and more" if int(done.stdout) == 256 << 20 else ""


CLOCK = r"""
echo x >/out/old; echo x >/out/new; echo x >/work/f; mkdir /out/d
touch -d '1901-12-14' /out/old; touch -d '2446-05-10' /out/new; touch -d '2446-05-10 01:02:03.999999999' /work/f
touch -d '@9223372036854775807' /out/d 2>/dev/null || touch -d '2400-01-01' /out/d
touch -d '@-9223372036854775808' /out 2>/dev/null || true
echo TRIED
"""

CLOCK_RECIPE = one_card(CLOCK, more=NEXT.format(script="stat -c '%n %y' /work/f /in/out/*; echo new >>/work/f; cat f"))


def strange_time(_ground: Ground, out: Path) -> str:
    """An archiver that writes times as it finds them would give other bytes."""
    year = time.gmtime((out / "new").stat().st_mtime).tm_year
    return f"a file of the year {year}" if year > 2400 else ""


LONG = r"""
python3 - <<'END'
for where in ("/out/", "/work/"):
    open(where + "n" * 255, "w").write("x")
END
echo TRIED
"""

LONGER = r"""
python3 - <<'END'
import os
os.chdir("/out")
for n in range(20):
    os.mkdir("n" * 250); os.chdir("n" * 250)
open("file", "w").write("x")
END
echo TRIED
"""

DEEP = r"""
python3 - <<'END'
import os
os.chdir("/out")
for n in range(@DEPTH@):
    os.mkdir("d"); os.chdir("d")
open("file", "w").write("x")
print("HIT" if @DEPTH@ > 256 and os.environ["PATH"] and not os.path.isdir("/in") else "made")
END
echo TRIED
"""


def too_long_for_a_path(_ground: Ground, out: Path) -> str:
    """Who handles it by its path cannot: the kernel takes 4096 bytes."""
    name = "n" * 250
    try:
        (out / "/".join([name] * 20) / "file").stat()
    except OSError as error:
        return error.strerror or ""
    return ""


def no_longer(_ground: Ground, out: Path) -> str:
    """Who puts a suffix to it (".tmp", ".json") cannot."""
    try:
        (out / f"{'n' * 255}.tmp").touch()
    except OSError as error:
        return error.strerror or ""
    return ""


def is_deep(_ground: Ground, out: Path) -> str:
    """It is as deep as it says."""
    fd, depth = os.open(out, os.O_RDONLY), 0
    with contextlib.suppress(FileNotFoundError):
        while True:
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd, depth = below, depth + 1
    os.close(fd)
    return f"{depth} deep" if depth > 200 else ""


def named(script: str, seen: bytes) -> tuple[str, Control]:
    """A script that leaves a name, and the control: the name is there before anything is collected."""

    def look(_ground: Ground, out: Path) -> str:
        return next((repr(name) for name in os.listdir(os.fsencode(out)) if seen in name), "")

    return script + "\necho TRIED", left(look)


def name_attack(name: str, script: str, seen: bytes, verdict: Verdict) -> Attack:
    """A name that no list of files should have."""
    text, control = named(script, seen)
    return Attack(name=name, cards=(25,), script=text, verdict=verdict, control=control)


def fifo_in_the_tree(ground: Ground, attack: Attack, wire: Wire) -> str:
    """It is there before anything is collected: who opens it to read waits for ever."""
    del wire
    return "a FIFO" if stat.S_ISFIFO(os.lstat(ground.lab.cell(attack.script).upper / "f").st_mode) else ""


def special_attack(name: str, script: str, test: int, reason: str) -> Attack:
    """A special file in an output."""

    def look(_ground: Ground, out: Path) -> str:
        modes = [os.lstat(path).st_mode for path in out.iterdir()]
        return next((f"mode {mode:o}" for mode in modes if stat.S_IFMT(mode) == test), "")

    return Attack(name=name, cards=(26,), script=script + "\necho TRIED", verdict=jammed(reason), control=left(look))


LATE = r"""
echo good >/out/f
python3 - <<'END'
import mmap, os, time
fd = os.open("/out/f", os.O_RDWR)
view = mmap.mmap(fd, 4)
if os.fork() == 0:
    os.setsid()
    for n in range(100):
        time.sleep(0.01)
        view[0:4] = b"evil"
        with open("/out/g", "a") as file:
            file.write("evil")
    os._exit(0)
END
echo TRIED
"""

# What it wrote while it still lived is the card's own; what counts is that nothing changes once it is an input.
LATE_RECIPE = one_card(
    LATE,
    more=NEXT.format(
        script="a=$(cat /in/out/* | sha256sum); sleep 0.5; b=$(cat /in/out/* | sha256sum)\n"
        '[ "$a" = "$b" ] || echo HIT it changed\necho TRIED'
    ),
)


def grows(path: Path) -> str:
    """That a file grows, seen within a few seconds; a busy machine takes its time."""

    def size() -> int:
        return path.stat().st_size if path.exists() else 0

    before, end = size(), time.monotonic() + 3
    while size() == before and time.monotonic() < end:
        time.sleep(0.05)
    return f"it grew from {before} to {size()} bytes" if size() > before else ""


def changes_later(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Without a process namespace the survivor lives on, and what was left changes after the cell is gone."""

    def weaken() -> None:
        Without.isolation("--unshare-pid", "--die-with-parent")()
        real = process.start

        def start(launch: process.Launch) -> process.Child:
            vars_of = {**vars(launch), "pids": "shared"}
            return real(process.Launch(**vars_of))

        vars(run)["start_process"] = start
        vars(run)["user_pids_possible"] = lambda: False

    del wire
    result = ground.lab.cell(attack.script, weaken=weaken)
    return grows(result.out / "g")


FORGED = r"""
printf '#!/bin/sh\necho I am a program\n' >/out/hello; chmod 755 /out/hello
printf '\177ELF\2\1\1\0' >/out/hello2; head -c 4096 /dev/urandom >>/out/hello2; chmod 755 /out/hello2
echo TRIED
"""


def right_name(_ground: Ground, out: Path) -> str:
    """By its name and mode it is the program that was asked for."""
    return "an executable of that name" if os.access(out / "hello", os.X_OK) else ""


ATTACKS = (
    link_attack("release-an-absolute-link", "absolute", "link"),
    link_attack("release-a-relative-link", "relative", "link"),
    link_attack("release-through-a-link-in-the-middle", "middle/id_ed25519", "left no|link"),
    Attack(
        name="release-through-the-parent", cards=(8,), recipe=takes("parent/../middle/id_ed25519"), script=LINKS,
        wire=canary, verdict=refused("not a plain relative path"), control=reads("middle/id_ed25519"),
    ),
    Attack(
        name="read-through-links-in-the-next-card", cards=(8,), wire=canary, verdict=CONTAINED,
        recipe=one_card(
            LINKS, more=NEXT.format(script="if cat /in/out/* /in/out/middle/* 2>&1 | grep PRIVATE; then echo HIT; fi")
        ),
        script=LINKS, control=reads("absolute"),
    ),
    Attack(
        name="hard-link-to-an-input", cards=(9,), recipe=HARD_RECIPE, script=HARD, verdict=CONTAINED,
        control=outside(),
    ),
    Attack(
        name="file-capabilities-and-attributes", cards=(10,), script=CAPABILITY, verdict=CONTAINED,
        control=without(Without.filter),
    ),
    *(archive_attack(which, "a.tar cannot be opened") for which in MEMBERS),
    Attack(
        name="decompression-bomb", cards=(16,), script=BOMB,
        recipe=one_card(BOMB, more='r.artifact("bomb.gz", t.out / "bomb.gz", kind=archive)'),
        limits={"output_bytes": 64 << 20}, verdict=jammed("more output"), control=inflates,
    ),
    Attack(
        name="a-wildly-wrong-clock", cards=(18,), recipe=CLOCK_RECIPE, script=CLOCK, verdict=CONTAINED,
        control=left(strange_time),
    ),
    Attack(name="names-of-255-bytes", cards=(24,), script=LONG, verdict=CONTAINED, control=left(no_longer)),
    Attack(
        name="paths-longer-than-the-kernel-takes", cards=(24,), script=LONGER, verdict=jammed("path of more than"),
        control=left(too_long_for_a_path),
    ),
    Attack(
        name="folders-230-deep", cards=(24,), script=DEEP.replace("@DEPTH@", "230"), verdict=jammed("folders deep"),
        control=left(is_deep),
    ),
    Attack(
        name="folders-1000-deep", cards=(24,), script=DEEP.replace("@DEPTH@", "1000"), verdict=jammed("more output"),
        control=left(is_deep),
    ),
    name_attack("a-name-with-a-newline", r"printf x >$'/out/new\nline'", b"\n", jammed("has a name that")),
    name_attack(
        "a-name-with-control-characters", r"printf x >$'/out/\033[2J\001'", b"\033", jammed("has a name that")
    ),
    name_attack("a-name-that-is-no-utf-8", r"printf x >$'/out/\377\376'", b"\377", jammed("has a name that")),
    name_attack("a-link-to-a-strange-name", r"ln -s $'\377\n' /out/link", b"link", jammed("is a link whose target")),
    special_attack("leave-a-fifo", "mkfifo /out/f", stat.S_IFIFO, "a FIFO, which is never kept"),
    special_attack(
        "leave-a-socket", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/out/s\")'", stat.S_IFSOCK,
        "a socket, which is never kept",
    ),
    Attack(
        name="leave-a-fifo-in-the-work-tree", cards=(26,), script="mkfifo /work/f /work/g\necho TRIED",
        verdict=jammed("a FIFO, which is never kept"), control=fifo_in_the_tree,
    ),
    Attack(name="change-it-afterwards", cards=(28,), recipe=LATE_RECIPE, script=LATE, verdict=CONTAINED,
           control=changes_later),
    Attack(
        name="the-right-name-with-the-wrong-bytes", cards=(31,), script=FORGED,
        recipe=one_card(FORGED, more='r.artifact("bin/hello", t.out / "hello", kind=elf_static)'),
        verdict=jammed("neither a binary"), control=left(right_name),
    ),
    Attack(
        name="the-right-magic-with-the-wrong-bytes", cards=(31,), script=FORGED,
        recipe=one_card(FORGED, more='r.artifact("bin/hello", t.out / "hello2", kind=elf_static)'),
        verdict=jammed("object file|program headers|damaged|section"), control=left(right_name),
    ),
)  # fmt: skip
