"""Faults of the environment, each made for real where that is possible, and what a person must be told of each.

A fault is a shell script that runs in a mount namespace of its own before the forge (real mounts, real limits, real
control groups), words before the command (prlimit, setarch, a filter of system calls), variables, or a mirror that a
test serves. Made by a seam are: settings that this kernel lacks, memory and a network file system (files that are
mounted over those of /proc), the wall clock (clock_shim.c), and what is old or missing in Python (``patch``).
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = sys.executable

HELLO = '''"""A program."""
from anvil.recipe import Recipe, elf_static

hello = Recipe("hello", licence="MIT")
source = hello.write("source", None, "hello.c", """
int main(void) { return 0; }
""")
build = hello.run("build", source, "musl-gcc -static -O2 -o hello hello.c")
hello.artifact("bin/hello", build / "hello", kind=elf_static)
'''

WITH_SOURCE = '''"""A program that needs a file of the network's."""
from anvil.recipe import Recipe

hello = Recipe("hello", licence="MIT")
hello.run("first", None, "true")
hello.export("x", hello.run("x", hello.unpack(hello.source("zlib")), "true").work)
'''


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. cause, mend: patterns that the message's sentence, and its next step, must have.

    script: shell, run in a mount namespace; HOME_DIR, OUTPUT, PLACE (a folder of its own) and PROJECT name folders;
    "exec" of the forge follows it. prefix: words before the command. variables: of the forge's environment; "" takes
    one away. served: what the mirror answers (see environment.Mirror). user: who forges: "root" or "user".
    namespaces: more flags for unshare. kin: faults that a person is told of in the same way.
    """

    name: str
    cause: str
    mend: str
    script: str = ""
    prefix: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    patch: str = ""
    recipe: str = HELLO
    served: str = ""
    user: str = "root"
    namespaces: str = ""
    code: int = 3
    kin: tuple[str, ...] = ()


def _bwrap(text: str, mode: str = "755") -> str:
    """A stand-in for bubblewrap at PLACE/bwrap."""
    return f"printf '%s\\n' '#!/bin/sh' {shlex.quote(text)} > $PLACE/bwrap; chmod {mode} $PLACE/bwrap"


def _sysctl(name: str, value: str) -> str:
    """Mount a /proc/sys/kernel over the real one, in which one setting is another."""
    return (
        f"mkdir -p $PLACE/k/random; cat /proc/sys/kernel/random/boot_id > $PLACE/k/random/boot_id; "
        f"for f in overflowuid overflowgid cap_last_cap; do cat /proc/sys/kernel/$f > $PLACE/k/$f; done; "
        f"echo {value} > $PLACE/k/{name}; chmod -R a+rX $PLACE/k; mount --bind $PLACE/k /proc/sys/kernel"
    )


def _group(controller: str, name: str, value: str) -> str:
    """Go into a control group of version 1 with a limit; the runner removes it."""
    group = f"/sys/fs/cgroup/{controller}/anvil-environment-$$"
    return (
        f"mkdir {group}; echo {value} > {group}/{name}; echo $$ > {group}/cgroup.procs; echo {group} >> $PLACE/groups"
    )


def _home(options: str) -> str:
    """A file system of its own for the home, which keeps the borrowed images."""
    return (
        f"mkdir -p $PLACE/disk; mount -t tmpfs -o {options} none $PLACE/disk; "
        "ln -s $IMAGES $PLACE/disk/images; mount --bind $PLACE/disk $HOME_DIR"
    )


def _meminfo(name: str, kib: int) -> str:
    return (
        f"sed 's/^{name}:.*/{name}: {kib} kB/; s/^SwapFree:.*/SwapFree: 0 kB/' /proc/meminfo > $PLACE/meminfo; "
        "mount --bind $PLACE/meminfo /proc/meminfo"
    )


_FILTER = (PYTHON, str(HERE / "environment_filter.py"))
_STAND_IN = {"ANVIL_BWRAP": "$PLACE/bwrap"}
_ULIMIT = r"(ulimit -S -{0}|prlimit --pid)"
_CLOCK = {"LD_PRELOAD": "$PLACE/clock_shim.so"}
_SET = r"timedatectl set-ntp|date -s"
_MIRROR = r"ANVIL_MIRROR_DEBIAN|another mirror|--from DIR"


FAULTS: tuple[Fault, ...] = (
    # ---- cells
    Fault(
        name="userns-off",
        namespaces="-Ur",
        script="echo 0 > /proc/sys/user/max_user_namespaces",
        cause="user namespaces are switched off$",
        mend=r"sysctl -w user\.max_user_namespaces=\d+",
    ),
    Fault(
        name="userns-off-for-users",
        user="user",
        script=_sysctl("unprivileged_userns_clone", "0"),
        cause="switched off for ordinary users",
        mend=r"sysctl -w kernel\.unprivileged_userns_clone=1",
    ),
    Fault(
        name="apparmor",
        user="user",
        script=_sysctl("apparmor_restrict_unprivileged_userns", "1"),
        cause="AppArmor lets only named programs",
        mend="apparmor_parser -r",
    ),
    Fault(
        name="seccomp",
        prefix=_FILTER,
        cause="seccomp filter",
        mend="--security-opt seccomp=unconfined",
    ),
    Fault(
        name="userns-limit-around",
        namespaces="-Ur",
        script="echo 1 > /proc/sys/user/max_user_namespaces",
        prefix=("unshare", "-U", "--map-user=1000", "--map-group=1000"),
        cause="no more user namespaces may be made",
        mend=r"sysctl -w user\.max_user_namespaces=\d+",
    ),
    Fault(
        name="root-of-a-namespace",
        namespaces="-Ur",
        cause=r"root of a user namespace in which uid \d+, as which cells run, is not mapped",
        mend="run it as yourself",
    ),
    Fault(
        name="bwrap-missing",
        variables={"ANVIL_BWRAP": "/nonexistent/bwrap"},
        cause="bubblewrap.*No such file",
        mend="unset ANVIL_BWRAP",
    ),
    Fault(
        name="bwrap-not-executable",
        script=_bwrap("true", "644"),
        variables=_STAND_IN,
        cause="bubblewrap.*is not a program",
        mend=r"chmod \+x",
    ),
    Fault(
        name="bwrap-too-old",
        script=_bwrap("echo bubblewrap 0.8.0"),
        variables=_STAND_IN,
        cause=r"bubblewrap 0\.8\.0 is too old",
        mend="unset ANVIL_BWRAP",
    ),
    Fault(
        name="bwrap-setuid",
        script=_bwrap("echo bubblewrap 0.11.0", "4755"),
        variables=_STAND_IN,
        cause="bubblewrap.*setuid",
        mend="chmod u-s",
    ),
    Fault(
        name="bwrap-is-another-program",
        script=_bwrap("echo hello"),
        variables=_STAND_IN,
        cause="bubblewrap.*does not say its version",
        mend="unset ANVIL_BWRAP",
    ),
    Fault(
        name="bwrap-makes-no-cell",
        script=_bwrap('case $1 in --version) echo bubblewrap 0.11.0;; *) echo "bwrap: no" >&2; exit 1;; esac'),
        variables=_STAND_IN,
        cause="cell (could not be made|was made but does not work)",
        mend="ANVIL_BWRAP|anvil doctor",
    ),
    # ---- limits
    Fault(
        name="address-space",
        prefix=("prlimit", "--as=1000000000"),
        cause="1000000000 bytes of address space",
        mend=_ULIMIT.format("v"),
    ),
    Fault(name="data", prefix=("prlimit", "--data=500000000"), cause="bytes of data", mend=_ULIMIT.format("d")),
    Fault(name="open-files", prefix=("prlimit", "--nofile=100"), cause="100 open files", mend=_ULIMIT.format("n")),
    Fault(
        name="file-size", prefix=("prlimit", "--fsize=100000000"), cause="bytes in a file", mend=_ULIMIT.format("f")
    ),
    Fault(
        name="cpu-time", prefix=("prlimit", "--cpu=60"), cause="seconds of processor time", mend=_ULIMIT.format("t")
    ),
    Fault(
        name="processes",
        user="user",
        prefix=("prlimit", "--nproc=40"),
        cause="this user may have 40 processes",
        mend=_ULIMIT.format("u"),
    ),
    Fault(
        name="memory-group",
        script=_group("memory", "memory.limit_in_bytes", "400000000"),
        cause="control group.*399 MB of memory",
        mend="memory.limit_in_bytes|--memory",
    ),
    Fault(
        name="process-group",
        script=_group("pids", "pids.max", "40"),
        cause="control group allows 40 processes",
        mend="pids.max|--pids-limit",
    ),
    Fault(
        name="memory-gone",
        script=_meminfo("MemAvailable", 100_000),
        cause="of memory are free",
        mend="end other programs|add swap",
    ),
    Fault(
        name="memory-small",
        script=_meminfo("MemTotal", 500_000),
        cause="this machine has 512 MB of memory",
        mend="more memory",
    ),
    # ---- disk and file system
    Fault(
        name="home-full", script=_home("size=16m,mode=700"), cause="MB are free where Anvil's home is", mend="--home"
    ),
    Fault(
        name="home-no-inodes",
        script=_home("size=1g,nr_inodes=200,mode=700"),
        cause=r"more files \(inodes\) fit",
        mend="--home",
    ),
    Fault(
        name="home-read-only",
        script="mount --bind $HOME_DIR $HOME_DIR; mount -o remount,bind,ro $HOME_DIR",
        cause="[Rr]ead-only",
        mend="--home|remount,rw",
        kin=("output-read-only",),
    ),
    Fault(name="home-noexec", script=_home("size=1g,noexec,mode=700"), cause="noexec", mend="remount,exec"),
    Fault(
        name="home-of-another",
        script="mkdir $PLACE/other; chown 1234 $PLACE/other",
        variables={"ANVIL_HOME": "$PLACE/other"},
        cause="belongs to uid 1234",
        mend="use that account|--home",
    ),
    Fault(
        name="home-is-a-file",
        script="echo > $PLACE/file",
        variables={"ANVIL_HOME": "$PLACE/file"},
        cause="home.*(not a folder|File exists)",
        mend="--home",
    ),
    Fault(
        name="home-on-a-network",
        script='sed "s#^\\(.* $HOME_DIR .* - \\)[^ ]*#\\1nfs4#" /proc/$$/mountinfo > $PLACE/mountinfo; '
        'echo "9999 1 0:99 / $HOME_DIR rw - nfs4 server:/home rw" >> $PLACE/mountinfo; '
        "mount --bind $PLACE/mountinfo /proc/$$/mountinfo",
        cause=r"network file system \(nfs4\)",
        mend="--home DIR|ANVIL_HOME",
    ),
    Fault(
        name="home-not-writable",
        user="user",
        script="mkdir -p $PLACE/other/vault; chown -R 65534 $PLACE/other; chmod 500 $PLACE/other/vault",
        variables={"ANVIL_HOME": "$PLACE/other"},
        cause="Permission denied",
        mend="chmod u\\+rwx|--home|anvil doctor",
    ),
    Fault(
        name="cortex-damaged",
        script="head -c 100000 /dev/urandom > $HOME_DIR/cortex.db",
        cause="is not a cortex",
        mend="move the file away|--home",
    ),
    Fault(
        name="output-is-a-file",
        script="echo > $PLACE/file",
        words=("--output", "$PLACE/file"),
        cause="artifacts cannot be put into .*not a folder",
        mend="--output",
    ),
    Fault(
        name="output-read-only",
        script="mkdir $PLACE/out; mount -t tmpfs -o ro none $PLACE/out",
        words=("--output", "$PLACE/out"),
        cause="artifacts cannot be put into .*read-only",
        mend="--output",
    ),
    Fault(
        name="output-full",
        script="mkdir $PLACE/out; mount -t tmpfs -o size=1m none $PLACE/out",
        words=("--output", "$PLACE/out"),
        cause="MB are free for artifacts",
        mend="--output|free some space",
    ),
    Fault(
        name="output-not-writable",
        user="user",
        script="mkdir -m 755 $PLACE/out",
        words=("--output", "$PLACE/out"),
        cause="artifacts cannot be put into .*may not write",
        mend="--output",
    ),
    # ---- the network
    Fault(
        name="no-mirror",
        recipe=WITH_SOURCE,
        script="mount -t tmpfs none /etc/apt",
        variables={"ANVIL_MIRROR_DEBIAN": "", "ANVIL_MIRROR_DEBIAN_SECURITY": ""},
        cause="no mirror of the archive 'debian' is known",
        mend="ANVIL_MIRROR_DEBIAN=",
    ),
    Fault(
        name="mirror-refuses",
        recipe=WITH_SOURCE,
        served="refuses",
        cause="refused",
        mend=r"network|--from DIR",
        kin=("proxy-dead",),
    ),
    Fault(name="mirror-silent", recipe=WITH_SOURCE, served="silent", cause="not answer in time", mend="--from DIR"),
    Fault(
        name="mirror-empty",
        recipe=WITH_SOURCE,
        served="empty",
        cause="no mirror has|is gone",
        mend=_MIRROR,
        kin=("captive-portal",),
    ),
    Fault(name="mirror-broken", recipe=WITH_SOURCE, served="broken", cause="it answers 500", mend="--from DIR"),
    Fault(
        name="captive-portal",
        recipe=WITH_SOURCE,
        served="portal",
        cause="no mirror has .* as it was pinned",
        mend=_MIRROR,
        kin=("mirror-empty",),
    ),
    Fault(
        # only seen when the file has come: what does not need it may run meanwhile
        name="hash-mismatch",
        recipe=WITH_SOURCE.replace('hello.run("first", None, "true")\n', ""),
        served="wrong",
        code=1,
        cause="not the pinned file",
        mend=_MIRROR,
    ),
    Fault(
        name="mirror-unknown-host",
        recipe=WITH_SOURCE,
        variables={"ANVIL_MIRROR_DEBIAN": "http://mirror.invalid/debian"},
        cause="no mirror answers",
        mend="network|--from DIR",
        kin=("mirror-refuses", "proxy-dead", "mirror-silent", "mirror-broken", "certificate"),
    ),
    Fault(
        name="mirror-setting",
        recipe=WITH_SOURCE,
        variables={"ANVIL_MIRROR_DEBIAN": "ftp//mirror"},
        code=2,
        cause="is not a mirror's address",
        mend="http",
    ),
    Fault(
        name="offline",
        recipe=WITH_SOURCE,
        words=("--offline",),
        cause="is not here, and --offline was asked for",
        mend="without --offline|--from DIR",
    ),
    Fault(
        name="proxy-dead",
        recipe=WITH_SOURCE,
        served="right",
        variables={"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""},
        cause="refused",
        mend="proxy",
        kin=("mirror-refuses",),
    ),
    Fault(name="certificate", recipe=WITH_SOURCE, served="self-signed", cause="certificate", mend="--from DIR"),
    # ---- clocks
    Fault(
        name="clock-at-zero",
        variables={**_CLOCK, "ANVIL_CLOCK_OFFSET": "-1790000000"},
        cause=r"clock says 197\d-.*it is behind",
        mend=_SET,
    ),
    Fault(
        name="clock-far-ahead",
        variables={**_CLOCK, "ANVIL_CLOCK_OFFSET": "1500000000"},
        cause=r"clock says 20[78]\d-.*it is ahead",
        mend=_SET,
    ),
    Fault(
        name="time-namespace",
        prefix=("unshare", "-T", "--boottime", "-3600"),
        cause="CLOCK_BOOTTIME",
        mend="time namespace",
    ),
    # ---- the machine, Python and SQLite
    Fault(
        name="sqlite-too-old",
        patch="import apsw; apsw.sqlite_lib_version = lambda: '3.40.1'",
        cause=r"SQLite 3\.40\.1 is too old",
        mend="make setup",
    ),
    Fault(
        name="sqlite-with-the-bug",
        patch="import apsw; apsw.sqlite_lib_version = lambda: '3.51.2'",
        cause="WAL-reset bug",
        mend="make setup",
    ),
    Fault(
        name="sqlite-missing",
        patch="import sys; sys.modules['apsw'] = None",
        cause="apsw.*(missing|not installed)",
        mend="make setup",
    ),
    Fault(
        name="python-too-old",
        patch="from anvil.mainframe import doctor_machine; doctor_machine._OLDEST_PYTHON = (99, 0)",
        cause="Python .* is too old",
        mend="apt-get install python3|PYTHON=",
    ),
    Fault(
        name="names-not-utf-8",
        variables={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        cause="file names are read as ascii",
        mend=r"LC_ALL=C\.UTF-8",
    ),
    Fault(name="another-machine", prefix=("setarch", "linux32"), cause="says that it is i686", mend="setarch"),
    Fault(name="kernel-too-old", prefix=("setarch", "--uname-2.6"), cause=r"Linux 2\.6\S* is too old", mend="kernel"),
    Fault(name="no-proc", script="mount -t tmpfs none /proc", cause="/proc is not mounted", mend="mount -t proc"),
    Fault(
        name="device-is-a-file",
        script="echo > $PLACE/full; mount --bind $PLACE/full /dev/full",
        cause="/dev/full is not a device",
        mend="mount -t devtmpfs",
    ),
    Fault(
        name="device-missing",
        script="cp -a /dev/null /dev/zero /dev/full /dev/tty $PLACE; mount -t tmpfs none /dev; "
        "for d in null zero full tty; do cp -a $PLACE/$d /dev/; done",
        cause="/dev/random, which every cell gets",
        mend="mount -t devtmpfs",
    ),
    Fault(
        name="no-home",
        prefix=("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
        variables={"HOME": "", "ANVIL_HOME": "", "XDG_DATA_HOME": ""},
        code=2,
        cause="no home",
        mend="--home|ANVIL_HOME",
    ),
)
