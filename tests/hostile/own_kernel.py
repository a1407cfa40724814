"""Attacks of our own on the kernel: calls that no build needs, and state that outlives or crosses cells.

Calls are tried with arguments that can do nothing. What counts is whether the kernel's code is reached at all: any
answer but "there is no such call" says so.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anvil.cell.spec import Bind
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, HIT, Attack, Wire
from tests.hostile.controls import outside, without

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.hostile.ground import Ground

CALLS = r"""
python3 - <<'END'
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for name, (number, *arguments) in @CALLS@.items():
    ctypes.set_errno(0)
    result = libc.syscall(number, *map(ctypes.c_long, arguments))
    if result >= 0 or ctypes.get_errno() != errno.ENOSYS:
        print("HIT", name, result, errno.errorcode.get(ctypes.get_errno(), "0"), flush=True)
END
echo TRIED
"""

# Numbers from the kernel's asm/unistd_64.h; the arguments are wrong on purpose (-1: no descriptor, no address).
MACHINE = {
    "settimeofday": (164, 0, -1), "clock_settime": (227, 99, -1), "clock_adjtime": (305, 99, -1),
    "adjtimex": (159, -1), "swapon": (167, -1, 0), "swapoff": (168, -1), "reboot": (169, 0, 0, 0, 0),
    "sethostname": (170, -1, 1), "setdomainname": (171, -1, 1), "iopl": (172, 3), "ioperm": (173, 0, 1, 1),
    "init_module": (175, -1, 1, -1), "finit_module": (313, -1, -1, 0), "delete_module": (176, -1, 0),
    "kexec_load": (246, 0, 1, -1, -1), "kexec_file_load": (320, -1, -1, 1, -1, -1), "acct": (163, -1),
    "syslog": (103, 10, 0, 0), "quotactl": (179, -1, -1, 0, 0), "quotactl_fd": (443, -1, -1, 0, 0),
    "vhangup": (153,),
}  # fmt: skip
HANDLES = {
    "name_to_handle_at": (303, -1, -1, -1, -1, 0), "open_by_handle_at": (304, -1, -1, 0),
    "fanotify_init": (300, 0x200, 0), "fanotify_mark": (301, -1, 1, 1, -1, 0),
}  # fmt: skip
MOUNTS = {
    "mount": (165, -1, -1, -1, 0, 0), "umount2": (166, -1, 0), "pivot_root": (155, -1, -1), "chroot": (161, -1),
    "open_tree": (428, -1, -1, 0), "move_mount": (429, -1, -1, -1, -1, 0), "fsopen": (430, -1, 0),
    "fsconfig": (431, -1, 0, 0, 0, 0), "fsmount": (432, -1, 0, 0), "fspick": (433, -1, -1, 0),
    "mount_setattr": (442, -1, -1, 0, -1, 32), "statmount": (457, -1, -1, 0, 0), "listmount": (458, -1, -1, 0, 0),
}  # fmt: skip
OTHERS = {
    "pidfd_getfd": (438, -1, 0, 0), "kcmp": (312, 1, 1, 0, 0, 0), "process_madvise": (440, -1, -1, 1, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0), "migrate_pages": (256, 1, 0, 0, 0),
    "move_pages": (279, 1, 0, 0, 0, 0, 0), "ptrace": (101, 0x4206, 1, 0, 0), "setns": (308, -1, 0),
    "cachestat": (451, -1, 0, 0, 0),
}  # fmt: skip
MEMORY = {
    "vmsplice": (278, -1, 0, 0, 0), "memfd_secret": (447, -1), "mbind": (237, 0, 0, 0, 0, 0, 0),
    "set_mempolicy": (238, 9, 0, 0), "remap_file_pages": (216, -1, 0, 0, 0, 0), "userfaultfd": (323, -1),
    "map_shadow_stack": (453, 0, 0, 0),
}  # fmt: skip
QUEUES = {
    "mq_open": (240, -1, 0, 0, 0), "mq_unlink": (241, -1), "mq_timedsend": (242, -1, 0, 0, 0, 0),
    "request_key": (249, -1, -1, 0, 0), "lsm_set_self_attr": (460, 0, 0, 0, 0), "uselib": (134, -1),
    "ustat": (136, -1, -1), "sysfs": (139, 3), "modify_ldt": (154, 0, -1, 0),
}  # fmt: skip


def calls(name: str, table: Mapping[str, tuple[int, ...]]) -> Attack:
    """Calls of one kind, none of which may reach the kernel."""
    return Attack(
        name=f"kernel-calls-{name}", script=CALLS.replace("@CALLS@", repr(dict(table))), verdict=CONTAINED,
        control=without(Without.filter),
    )  # fmt: skip


PERSONALITY = r"""
python3 - <<'END'
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, value in {"BSD": 6, "READ_IMPLIES_EXEC": 0x400000, "PAGE_ZERO": 0x100000, "SHORT_INODE": 0x1000000}.items():
    if libc.personality(ctypes.c_ulong(value)) != -1:
        print("HIT", name, flush=True)
END
echo TRIED
"""

OTHER_DOORS = r"""
cat >d.c <<'END'
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void try(const char *name, int which)
{
    int status = 0;
    fflush(stdout);
    if (fork() == 0) {
        long r = -1;
        if (which == 0)  /* the i386 table: 20 is getpid */
            __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
        else             /* the x32 table: 39 is getpid */
            __asm__ volatile("syscall" : "=a"(r) : "a"(0x40000027) : "rcx", "r11", "memory");
        if (r > 0 || (which && r == -38))
            printf("HIT %s %ld\n", name, r);
        fflush(stdout);
        _exit(0);
    }
    wait(&status);
}
int main(void)
{
    try("i386", 0);
    try("x32", 1);
    return 0;
}
END
gcc -O1 -o d d.c; ./d; echo TRIED
"""

MORE_FILTERS = r"""
python3 - <<'END'
import ctypes, errno, struct
libc = ctypes.CDLL(None, use_errno=True)
allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 1, ctypes.addressof(allow)))
libc.prctl(38, 1, 0, 0, 0)
libc.syscall(317, 1, 0, program)  # a filter that allows all: the first one's verdict must stay
libc.prctl(21, 0, 0, 0, 0)  # no filter: cannot be had
ctypes.set_errno(0)
libc.syscall(428, -1, ctypes.c_long(-1), 0)  # open_tree
if ctypes.get_errno() != errno.ENOSYS:
    print("HIT the kernel was reached:", errno.errorcode.get(ctypes.get_errno()), flush=True)
END
echo TRIED
"""

CORES = r"""
for n in 0 unlimited; do ulimit -c $n 2>/dev/null || true; ulimit -S -c $n 2>/dev/null || true; done
python3 - <<'END'
import os, resource
for value in (0, 1 << 20):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (value, value))
        resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (value, value))
    except ValueError:
        pass
if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1):  # with 1 no core_pattern of the host's is ever run
    print("HIT the limit is", resource.getrlimit(resource.RLIMIT_CORE), flush=True)
END
(kill -SEGV $BASHPID) || true
python3 -c 'import os; os.abort()' || true
for f in core* /out/core* /tmp/core* /var/crash/*; do if [ -e "$f" ]; then echo HIT "$f"; fi; done
echo TRIED
"""

FLAGS = r"""
python3 - <<'END'
import fcntl, os, struct
open("/out/f", "w").close()
os.mkdir("/out/d")
for path in ("/out/f", "/out/d", "/work/t"):
    if not os.path.exists(path):
        open(path, "w").close()
    fd = os.open(path, os.O_RDONLY)
    for name, value in {"sync": 0x8, "immutable": 0x10, "append": 0x20, "no dump": 0x40, "no times": 0x80}.items():
        try:
            fcntl.ioctl(fd, 0x40086602, struct.pack("l", value))  # FS_IOC_SETFLAGS
            print("HIT", path, name, flush=True)
        except OSError:
            pass
    for name, request, size in (("FSSETXATTR", 0x401C5820, 28), ("ENABLE_VERITY", 0x40806685, 128),
                                ("SET_ENCRYPTION_POLICY", 0x800C6613, 12), ("SETVERSION", 0x40087602, 8)):
        try:
            fcntl.ioctl(fd, request, bytes(size))
            print("HIT", path, name, flush=True)
        except OSError:
            pass
END
echo TRIED
"""

LEASE_RECIPE = """
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
d = r.run("data", None, "echo @SALT@ >/out/f")
r.run("try", None, {script!r}, inputs={{"data": d.out, "file": d.out / "f"}}, wall=60)
"""

LEASE = r"""
python3 - <<'END'
import fcntl, os, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = []
for path in ("/in/data/f", "/in/file", "/usr/share/common-licenses/GPL-2"):
    fd = os.open(path, os.O_RDONLY)
    held.append(fd)
    for kind in (fcntl.F_WRLCK, fcntl.F_RDLCK):
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
            print("HIT a lease on", path, flush=True)
            break
        except OSError:
            pass
    try:
        fcntl.fcntl(os.open(os.path.dirname(path), os.O_RDONLY), fcntl.F_NOTIFY, 1)
        print("HIT told of what happens to", os.path.dirname(path), flush=True)
    except OSError:
        pass
END
echo TRIED
"""

NEIGHBOURS = r"""
python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for who in (0, os.getuid()):
    libc.setpriority(2, who, 19)  # PRIO_USER
    libc.syscall(251, 3, who, 3 << 13)  # ioprio_set(IOPRIO_WHO_USER, idle)
for pid in (@PID@, 1):
    for call in (lambda: os.setpriority(os.PRIO_PROCESS, pid, 19), lambda: os.sched_setaffinity(pid, {0})):
        try:
            call()
        except OSError:
            pass
    libc.prlimit(pid, 7, ctypes.byref((ctypes.c_ulong * 2)(3, 3)), None)
END
echo TRIED
"""


@contextmanager
def neighbour(ground: Ground) -> Iterator[Wire]:
    """A process of the cell's uid, ``@PID@``: its priority, its processors and its limits must stay."""
    with subprocess.Popen(["sleep", "300"], user=ground.cell_uid if ground.root else None) as process:

        def facts() -> tuple[object, ...]:
            with open(f"/proc/{process.pid}/limits", encoding="utf-8") as file:
                limits = file.read()
            return os.getpriority(os.PRIO_PROCESS, process.pid), os.sched_getaffinity(process.pid), limits

        before = facts()
        yield Wire(
            marks={"PID": str(process.pid)},
            harm=lambda: "" if facts() == before else f"the neighbour's priority or limits: {facts()[:2]}",
        )
        process.kill()


def host_must_wait(ground: Ground, attack: Attack, wire: Wire) -> str:
    """Without the filter a cell's lease on an input makes the host wait that opens it."""
    del wire
    tree = ground.lab.tree({"f": "x"})
    script = attack.script.replace('"/in/data/f", "/in/file", ', '"/in/data/f", ') + "\nsleep 3"
    waited: list[float] = []

    def opens() -> None:
        time.sleep(1.5)
        began = time.monotonic()
        (tree / "f").read_bytes()
        waited.append(time.monotonic() - began)

    thread = threading.Thread(target=opens)
    thread.start()
    held = script.replace("END\necho", "    time.sleep(3)\nEND\necho")
    text = ground.lab.cell(held, weaken=Without.filter, inputs=(Bind(name="data", source=tree),)).text
    thread.join()
    return text[:60] if HIT in text and waited[0] > 0.3 else ""


ATTACKS = (
    calls("on-the-whole-machine", MACHINE),
    calls("on-files-by-handle", HANDLES),
    calls("on-mounts", MOUNTS),
    calls("on-other-processes", OTHERS),
    calls("on-memory", MEMORY),
    calls("of-old-and-rare-kinds", QUEUES),
    Attack(name="kernel-personalities", script=PERSONALITY, verdict=CONTAINED, control=without(Without.filter)),
    Attack(name="kernel-by-its-other-doors", script=OTHER_DOORS, verdict=CONTAINED, control=without(Without.filter)),
    Attack(name="kernel-filter-over-the-filter", script=MORE_FILTERS, verdict=CONTAINED,
           control=without(Without.filter)),
    Attack(name="core-dumps", script=CORES, verdict=CONTAINED, control=without(Without.filter)),
    Attack(name="file-flags-that-no-layer-tells", script=FLAGS, verdict=CONTAINED, control=without(Without.filter)),
    Attack(name="leases-on-inputs", recipe=LEASE_RECIPE.format(script=LEASE), script=LEASE, verdict=CONTAINED,
           control=host_must_wait),
    Attack(name="slow-down-the-neighbours", script=NEIGHBOURS, verdict=CONTAINED, wire=neighbour,
           control=outside()),
)  # fmt: skip
