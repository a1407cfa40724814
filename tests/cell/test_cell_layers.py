"""Each layer of the cell by itself: with it an attempt fails, with that layer alone taken away it is seen to succeed.

A script says HIT when it got through. Where two layers stop the same thing, ``aside`` names what is taken away in both
runs, so that only the layer in question stands in the way. "root" rows need the host's root, who alone has what is
taken away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anvil.cell import bwrap, entry, kernel, output, process, program, run, running
from anvil.cell.process import Launch
from anvil.cell.spec import MOUNT_POINTS, Bind, MiB
from anvil.cell.watchdog import Watchdog
from tests.cell.cell_lab import SMALL, Without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cell.cell_lab import Lab

    Weaken = Callable[[], None]
    Marks = dict[str, str]

pytestmark = pytest.mark.cell

HIT = "HIT"


@contextmanager
def nothing(_lab: Lab) -> Iterator[Marks]:
    yield {}


@contextmanager
def secret(lab: Lab) -> Iterator[Marks]:
    """A file of the user's own that anyone could read who got there."""
    path = lab.folder() / "secret"
    path.write_text("PRIVATE")
    path.parent.chmod(0o755)
    os.environ["ANVIL_LAYERS_SECRET"] = str(path.parent)
    try:
        yield {"SECRET": str(path)}
    finally:
        del os.environ["ANVIL_LAYERS_SECRET"]


@contextmanager
def listener(lab: Lab) -> Iterator[Marks]:
    name = f"anvil-layers-{os.getpid()}-{lab.uid}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        yield {"NAME": name}


@contextmanager
def shared_memory(_lab: Lab) -> Iterator[Marks]:
    made = subprocess.run(["ipcmk", "-M", "4096", "-p", "0666"], capture_output=True, text=True, check=True)
    number = made.stdout.split()[-1]
    try:
        yield {"NUMBER": number}
    finally:
        subprocess.run(["ipcrm", "-m", number], check=True)


@contextmanager
def sleeper(lab: Lab) -> Iterator[Marks]:
    """A process of the cell's own uid."""
    with subprocess.Popen(["sleep", "300"], user=lab.cell_uid if lab.root else lab.uid) as one:
        yield {"PID": str(one.pid)}
        one.kill()


@contextmanager
def open_descriptor(_lab: Lab) -> Iterator[Marks]:
    """A folder of the host's that the engine holds open, and forgot to close at exec."""
    fd = os.open("/etc", os.O_RDONLY)
    high = 700
    os.dup2(fd, high, inheritable=True)
    try:
        yield {"FD": str(high)}
    finally:
        os.close(fd)
        os.close(high)


@contextmanager
def token(_lab: Lab) -> Iterator[Marks]:
    os.environ["ANVIL_LAYERS_TOKEN"] = "4711"
    try:
        yield {}
    finally:
        del os.environ["ANVIL_LAYERS_TOKEN"]


def without(*flags: str) -> Weaken:
    return Without.isolation(*flags)


def no_operation(*pairs: tuple[str, str]) -> Weaken:
    def weaken() -> None:
        for act, to in pairs:
            Without.operation(act, to)()

    return weaken


def hosts_folder() -> None:
    """A folder of the host's is mounted as well."""
    whole = bwrap.plan

    def plan(spec: Any, host: Any) -> Any:
        first, *rest = whole(spec, host)
        root = next(op for op in rest if op.to == "/")
        more = bwrap.Operation(act="read-only", to="/mnt", source=Path(os.environ["ANVIL_LAYERS_SECRET"]))
        return (first, root, more, *(op for op in rest if op is not root))

    bwrap.plan = plan


def one_pid_namespace() -> None:
    """Neither bubblewrap's own process namespace nor the one around it."""
    Without.isolation("--unshare-pid")()
    no_operation(("tmpfs", "/proc/1"), ("freeze", "/proc/1"))()
    real = process.start
    vars(run)["start_process"] = lambda launch: real(replace(launch, pids="shared"))
    vars(run)["user_pids_possible"] = lambda: False  # bubblewrap lays the overlay itself


def no_user_namespace() -> None:
    Without.isolation("--unshare-user", "--disable-userns", "--uid", "--gid", "1000")()


def capabilities() -> None:
    bwrap._ISOLATE = tuple("--cap-add" if word == "--cap-drop" else word for word in bwrap._ISOLATE)


def read_write_inputs() -> None:
    whole = bwrap.plan
    bwrap.plan = lambda spec, host: tuple(
        replace(op, act="read-write") if op.to.startswith("/in/") else op
        for op in whole(spec, host)
        if (op.act, op.to) != ("freeze", "/in")
    )


def dirty_environment() -> None:
    """Neither bubblewrap's flag nor the empty environment that it is started with."""
    Without.isolation("--clearenv")()
    real = process.start
    vars(run)["start_process"] = lambda launch: real(replace(launch, env=dict(os.environ)))


def descriptors_left() -> None:
    vars(os)["closerange"] = lambda *_: None


def unlimited(*names: str) -> Weaken:
    """Without some of the kernel's limits per process."""

    def weaken() -> None:
        import resource

        spared = {getattr(resource, name) for name in names}
        real = entry._set

        def set_limit(which: int, hard: int, *, soft: int | None = None) -> None:
            if which not in spared:
                real(which, hard, soft=soft)

        vars(entry)["_set"] = set_limit
        for which in spared:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(which, (resource.getrlimit(which)[1],) * 2)

    return weaken


def little_locked() -> None:
    import resource

    real = entry._set

    def set_limit(which: int, hard: int, *, soft: int | None = None) -> None:
        real(which, MiB if which == resource.RLIMIT_MEMLOCK else hard, soft=soft)

    vars(entry)["_set"] = set_limit


def no_meter() -> None:
    class Blind(output.Meter):
        def look(self, first: int = 0) -> None:
            del first

        def final(self) -> None:
            pass

    vars(running)["Meter"] = Blind


def no_wall() -> None:
    running.Cell._look_at_limits = lambda self, now: None  # type: ignore[method-assign]


def no_preference() -> None:
    """The score stays as it is: what the entry would write goes nowhere."""
    real = open

    def elsewhere(path: str, *words: Any, **more: Any) -> Any:
        return real(os.devnull if path.endswith("oom_score_adj") else path, *words, **more)

    vars(entry)["open"] = elsewhere


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer. changes: of the specification, in both runs; weak: in the weakened one alone.

    hold: called in the other one, to lower a limit under what the host has itself.
    """

    name: str
    script: str
    weaken: Weaken
    aside: tuple[Weaken, ...] = ()
    prepare: Callable[[Lab], contextlib.AbstractContextManager[Marks]] = nothing
    changes: dict[str, Any] = field(default_factory=dict)
    weak: dict[str, Any] = field(default_factory=dict)
    hold: Weaken = lambda: None
    root: bool = False


PYTHON = "python3 - <<'END'\n{}\nEND\n"
LIMITED = replace(SMALL, memory_bytes=128 * MiB, processes=40, output_bytes=8 * MiB, log_bytes=MiB)

OPEN_FILES = PYTHON.format(
    "import os, resource\nwhich = resource.RLIMIT_NOFILE\n"
    "resource.setrlimit(which, (resource.getrlimit(which)[1],) * 2)\n"
    "try:\n    for n in range(9000): os.dup(0)\n    print('HIT')\nexcept OSError: pass"
)
LOCKED = PYTHON.format(
    "import ctypes, mmap\nm = mmap.mmap(-1, 4 << 20)\nlibc = ctypes.CDLL(None)\n"
    "if libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(m))), ctypes.c_size_t(4 << 20)) == 0:\n"
    "    print('HIT')"
)
PROCESSES = "for n in $(seq 80); do sleep 1 & done; wait; echo HIT"
MEMORY = PYTHON.format("import time\nb = bytearray(b'x' * (300 << 20)); time.sleep(0.6); print('HIT')")
CPU = PYTHON.format("import time\nwhile time.process_time() < 2.5: pass\nprint('HIT')")

LAYERS = (
    Layer(
        name="mount namespace: only what was named is there",
        script="grep -qs PRIVATE @SECRET@ /mnt/* && echo HIT || true",
        weaken=hosts_folder, prepare=secret,
    ),
    Layer(
        name="process namespace", script="kill -0 @PID@ 2>/dev/null && echo HIT || true", weaken=one_pid_namespace,
        prepare=sleeper,
    ),
    Layer(
        name="ipc namespace", script="grep -q ' @NUMBER@ ' /proc/sysvipc/shm && echo HIT || true",
        weaken=without("--unshare-ipc"), prepare=shared_memory,
    ),
    Layer(
        name="uts namespace", script="[ $(cat /proc/sys/kernel/hostname) = anvil ] || echo HIT",
        weaken=without("--unshare-uts", "--hostname", "anvil"),
    ),
    Layer(
        name="user namespace", script="grep -q 4294967295 /proc/self/uid_map && echo HIT || true",
        weaken=no_user_namespace, changes={"host_uid": 0}, root=True,
    ),
    Layer(
        name="no further user namespaces", script="/in/probe userns && echo HIT || true",
        weaken=without("--disable-userns"), aside=(Without.filter,),
    ),
    Layer(
        name="cgroup namespace", script="grep -q anvil-cell- /proc/self/cgroup && echo HIT || true",
        weaken=without("--unshare-cgroup"), root=True,
    ),
    Layer(
        name="network namespace", script="/in/probe abstract @NAME@ && echo HIT || true",
        weaken=without("--unshare-net"), prepare=listener,
    ),
    Layer(
        name="capabilities",
        script="echo PRIVATE >own; chmod 000 own; cat own 2>/dev/null && echo HIT || true", weaken=capabilities,
    ),
    Layer(
        name="new session", script="[ $(cut -d' ' -f6 /proc/self/stat) != 0 ] || echo HIT",
        weaken=without("--new-session"),
    ),
    Layer(
        name="process 1 is covered", script="head -c 1 /proc/1/auxv >/dev/null 2>&1 && echo HIT || true",
        weaken=no_operation(("tmpfs", "/proc/1"), ("freeze", "/proc/1")),
    ),
    Layer(
        name="the kernel's command line is covered", script="[ -s /proc/cmdline ] && echo HIT || true",
        weaken=no_operation(("read-only", "/proc/cmdline")),
    ),
    Layer(
        name="/proc/sys is read-only",
        script=PYTHON.format(
            "import os\ntry: os.chmod('/proc/sys/kernel/hostname', 0o644)\n"
            "except OSError as e: print(e.errno == 30 or 'HIT')"
        ),
        weaken=no_operation(("read-only", "/proc/sys")),
    ),
    Layer(
        name="/dev is frozen", script="mkdir /dev/x 2>/dev/null && echo HIT || true",
        weaken=no_operation(("freeze", "/dev")),
    ),
    Layer(
        name="inputs are read-only", script="{ echo x >>/in/t/a; } 2>/dev/null && echo HIT || true",
        weaken=read_write_inputs,
    ),
    Layer(
        name="fixed environment", script="env | grep -q ANVIL_LAYERS_TOKEN && echo HIT || true",
        weaken=dirty_environment, prepare=token,
    ),
    Layer(
        name="closed descriptors", script="[ -e /proc/self/fd/@FD@/passwd ] && echo HIT || true",
        weaken=descriptors_left, prepare=open_descriptor,
    ),
    Layer(
        name="system call filter", script="/in/probe keyctl && echo HIT || true", weaken=Without.filter,
    ),
    Layer(
        name="no extended attributes", script="/in/probe xattr /out && echo HIT || true", weaken=Without.filter,
    ),
    Layer(name="limit: memory", script=MEMORY, weaken=Without.fence, changes={"limits": LIMITED}),
    Layer(name="limit: processes", script=PROCESSES, weaken=Without.fence, changes={"limits": LIMITED}),
    Layer(
        name="limit: processor time", script=CPU, weaken=Without.fence,
        changes={"limits": replace(LIMITED, cpu_seconds=1)},
    ),
    Layer(
        name="limit: wall time", script="sleep 1.5; echo HIT", weaken=no_wall,
        changes={"limits": replace(LIMITED, wall_seconds=0.5)},
    ),
    Layer(
        name="limit: output",
        script="for n in 1 2 3 4; do head -c 4M /dev/zero >/out/$n; done; echo HIT",
        weaken=no_meter, changes={"limits": LIMITED},
    ),
    Layer(
        name="limit: one file", script="/in/probe sparse /tmp/f && echo HIT || true",
        weaken=unlimited("RLIMIT_FSIZE"),
    ),
    Layer(
        name="limit: log", script="head -c 2M /dev/zero | tr '\\0' x; echo; echo HIT",
        weaken=lambda: None, changes={"limits": LIMITED}, weak={"limits": SMALL},
    ),
    Layer(name="limit: open files", script=OPEN_FILES, weaken=unlimited("RLIMIT_NOFILE"), root=True),
    Layer(name="limit: locked memory", script=LOCKED, weaken=unlimited("RLIMIT_MEMLOCK"), hold=little_locked),
    Layer(
        name="limit: core files", script="[ $(ulimit -Hc) != unlimited ] || echo HIT", weaken=unlimited("RLIMIT_CORE"),
    ),
    Layer(
        name="a cell goes first when memory ends", script="[ $(cat /proc/self/oom_score_adj) -ge 500 ] || echo HIT",
        weaken=no_preference,
    ),
)  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_each_layer_is_what_stops_it(lab: Lab, layer: Layer) -> None:
    if layer.root and not lab.root:
        pytest.skip("only the host's root has this to lose")

    def aside() -> None:
        for function in layer.aside:
            function()

    def held_down() -> None:
        aside()
        layer.hold()

    def weakened() -> None:
        aside()
        layer.weaken()

    changes = dict(layer.changes)
    if "/in/t" in layer.script:
        changes["inputs"] = (Bind(name="t", source=lab.tree({"a": "as it was"})),)
    with layer.prepare(lab) as marks:
        script = layer.script
        for key, value in marks.items():
            script = script.replace(f"@{key}@", value)
        held = lab.cell(script, weaken=held_down, **changes)
        open_to_it = lab.cell(script, weaken=weakened, **{**changes, **layer.weak})
    assert not (HIT in held.text.split() and held.outcome.ok), held.text
    assert HIT in open_to_it.text.split(), (open_to_it.outcome, open_to_it.text)
    assert open_to_it.outcome.ok, open_to_it


def test_the_hosts_root_is_nobody_inside(root_lab: Lab) -> None:
    """The uid that is taken before the user namespace: what a cell leaves is never the host's root's."""
    script = "cp /bin/true /out/t; chmod 4755 /out/t"
    owners = [(root_lab.cell(script, host_uid=uid).out / "t").stat().st_uid for uid in (None, 0)]
    assert owners == [root_lab.cell_uid, 0]  # the second is the layer taken away: set-uid of the host's root


def test_set_id_bits_mean_nothing_to_what_makes_a_cell(root_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """No new privileges: a bubblewrap that some host installs set-uid root stays the unprivileged uid's."""
    program = root_lab.folder() / "id"
    shutil.copyfile("/usr/bin/id", program)
    program.chmod(0o4755)
    for folder in (program.parent, root_lab.home):
        folder.chmod(0o755)

    def effective() -> str:
        reader, writer = os.pipe()
        fence = Watchdog(SMALL)
        fence.kind = "cgroup1"  # without a user namespace around it, in which no file is root's
        enter = entry.Entry(fence=fence, limits=SMALL, uid=root_lab.cell_uid, stage=None)
        child = process.start(Launch(argv=[str(program), "-u"], env={}, fds=(reader, writer, writer), enter=enter))
        os.close(writer)
        with os.fdopen(reader) as stream:
            said = stream.read().strip()
        child.reap()
        return said

    assert effective() == str(root_lab.cell_uid)
    monkeypatch.setattr(kernel, "no_new_privileges", lambda: None)
    assert effective() == "0"


def test_the_root_is_read_only(lab: Lab, probe: Path) -> None:
    """In an image that belongs to the cell's uid, and that may be harmed."""
    image = lab.tree({f"{name}/x": "" for name in ("etc", *MOUNT_POINTS)})
    shutil.copyfile(probe, image / "probe")
    (image / "probe").chmod(0o755)

    def found(rootfs: Path, wanted: Path | None = None) -> program.Bubblewrap:
        del rootfs, wanted
        return program._of_image(lab.rootfs if lab.root else Path(entry.Stage.of([lab.rootfs, probe]).at(lab.rootfs)))

    def anothers_bubblewrap() -> None:
        vars(program)["find"] = found

    def read_write() -> None:
        anothers_bubblewrap()
        real = bwrap._ARGUMENTS["read-only"]
        bwrap._ARGUMENTS["read-only"] = lambda op, at: (bwrap._ARGUMENTS["read-write"] if op.to == "/" else real)(
            op, at
        )

    def attempt(weaken: Weaken) -> str:
        return lab.cell("", rootfs=image, command=("/probe", "open_write", "/etc/x"), weaken=weaken).text

    assert attempt(anothers_bubblewrap) == "open_write: EROFS\n"
    assert attempt(read_write) == "open_write: ok\n"


def test_the_rows_have_names_of_their_own() -> None:
    assert len({layer.name for layer in LAYERS}) == len(LAYERS)
