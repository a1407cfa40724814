"""Hostile cards: an attempt fails inside, a tripwire outside shows no harm, a control shows it would have worked."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cell import run
from anvil.cell.spec import Bind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cell.cell_lab import Lab, Without

pytestmark = pytest.mark.cell


@pytest.fixture
def secret(lab: Lab) -> Path:
    """A file of the user's own, outside everything a cell is given."""
    path = lab.folder() / "id_ed25519"
    path.write_text("private key")
    return path


def test_files_of_the_host_are_not_there(lab: Lab, secret: Path, without: type[Without]) -> None:
    script = f"cat {secret} || true; cat /etc/shadow || true; ls /root /home || true"
    result = lab.cell(script)
    assert "private key" not in result.text
    assert "$" not in result.text
    assert subprocess.run(["cat", secret], capture_output=True, check=True).stdout == b"private key"
    del without


def test_the_parents_environment_is_not_there(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANVIL_SECRET", "token-4711")
    result = lab.cell("env; cat /proc/*/environ /proc/1/cmdline | tr '\\0' '\\n'")
    assert "token-4711" not in result.text
    assert str(lab.home) not in result.text
    assert b"token-4711" in subprocess.run(["env"], capture_output=True, check=True).stdout


@pytest.mark.parametrize("path", ["/usr/bin/x", "/etc/x", "/x", "/in/probe", "/in/x", "/dev/x", "/proc/x", "/sys/x"])
def test_nothing_else_can_be_written(lab: Lab, path: str) -> None:
    result = lab.cell(f"! {{ : >{path}; }} 2>/dev/null; ! mkdir {path} 2>/dev/null")
    assert result.outcome.ok, result.text


def _link(source: str, target: str) -> None:
    """A hard link where that can be, since an image is large."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_with_a_writable_image_it_could_be(root_lab: Lab) -> None:
    """The negative control: the read-only root is what stopped it."""
    image = root_lab.tree({"etc/x": ""})
    for name in ("bin", "lib", "lib64", "sbin"):
        (image / name).symlink_to(f"usr/{name}")
    for name in ("in", "work", "out", "proc", "dev", "tmp", "run", "usr"):
        (image / name).mkdir()
    shutil.copytree(root_lab.rootfs / "usr", image / "usr", symlinks=True, copy_function=_link, dirs_exist_ok=True)
    for name in ("usr", "etc", ""):
        os.chown(image / name, root_lab.cell_uid, root_lab.cell_uid)
    script = ": >/etc/y; : >/y; : >/usr/y; pwd"
    assert root_lab.cell(script, rootfs=image, writable=True, work=None, out=None).text == "/\n"
    assert (image / "etc/y").exists()
    assert not root_lab.cell(script, rootfs=image).outcome.ok


def test_sockets_of_the_host_in_the_file_system_are_not_there(lab: Lab) -> None:
    path = lab.folder() / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen()
        client.connect(str(path))  # outside it works
    result = lab.cell(f"! test -e {path}; ! ls /run/docker.sock /run/dbus /run/user /var/run/docker.sock 2>/dev/null")
    assert result.outcome.ok, result.text


def test_shared_memory_of_the_host_is_not_seen(lab: Lab, without: type[Without]) -> None:
    made = subprocess.run(["ipcmk", "-M", "4096", "-p", "0666"], capture_output=True, text=True, check=True)
    number = made.stdout.split()[-1]
    try:
        script = f"grep -c ' {number} ' /proc/sysvipc/shm || true"
        assert lab.cell(script).text == "0\n"
        assert lab.cell(script, weaken=without.isolation("--unshare-ipc")).text == "1\n"
    finally:
        subprocess.run(["ipcrm", "-m", number], check=True)


def test_the_hosts_name_is_not_known(lab: Lab, without: type[Without]) -> None:
    assert lab.cell("cat /proc/sys/kernel/hostname").text == "anvil\n"

    def weaken() -> None:
        without.isolation("--unshare-uts", "--hostname", "anvil")()

    assert lab.cell("cat /proc/sys/kernel/hostname", weaken=weaken).text.strip() == socket.gethostname()


def test_what_may_be_written_can_be(lab: Lab) -> None:
    result = lab.cell("for d in /work /out /tmp /tmp/home /dev/shm /run; do echo x >$d/x; done; cd; pwd; umask")
    assert result.text.split() == ["/tmp/home", "0022"]
    assert (result.out / "x").read_text() == "x\n"
    assert (result.upper / "x").read_text() == "x\n"


def test_an_input_cannot_be_changed_or_hard_linked(lab: Lab) -> None:
    tree = lab.tree({"a": "as it was"})
    attempts = ("echo x >/in/t/a", "rm /in/t/a", "ln /in/t/a /out/a", "ln /in/t/a /in/t/b", "chmod 777 /in/t/a")
    script = "".join(f"! {{ {attempt}; }} 2>/dev/null\n" for attempt in (*attempts, "mv /in/t/a /out/b"))
    result = lab.cell(script, inputs=(Bind(name="t", source=tree),))
    assert result.outcome.ok
    assert (tree / "a").read_text() == "as it was"
    assert (tree / "a").stat().st_nlink == 1


def test_a_tree_below_is_not_changed(lab: Lab) -> None:
    below = lab.tree({"a": "1", "d/b": "2"})
    result = lab.cell("echo changed >a; rm d/b; mkdir e; cat a", lower=(below,))
    assert result.outcome.ok, result.text
    assert (below / "a").read_text() == "1"
    assert (below / "d/b").read_text() == "2"
    assert sorted(os.listdir(result.upper)) == ["a", "d", "e"]


def test_trees_are_laid_over_each_other_topmost_first(lab: Lab) -> None:
    top, bottom = lab.tree({"a": "top"}), lab.tree({"a": "bottom", "b": "bottom"})
    assert lab.cell("cat a b", lower=(top, bottom)).text == "topbottom"


def test_many_trees(lab: Lab) -> None:
    """More than fit into a page of mount options by their paths."""
    trees = tuple(lab.tree({f"f{number}": str(number), "same": str(number)}) for number in range(120))
    result = lab.cell("ls | wc -l; cat f119 same", lower=trees)
    assert result.text == "121\n1190"


def test_the_hosts_disk_is_not_flushed_when_an_overlay_goes(lab: Lab) -> None:
    """Without "volatile" the kernel would sync the whole file system below; seen to cost 150 ms and more a card."""
    options = lab.cell("grep ' /work overlay ' /proc/self/mounts", lower=(lab.tree({"a": ""}),)).text
    assert "volatile" in options
    assert ",userxattr" in options


def test_odd_paths_of_the_host_are_no_trouble(lab: Lab) -> None:
    odd = lab.folder() / "a,b:c\\d e\"f'"
    odd.mkdir()
    below = lab.tree({"x": "x"})
    moved = odd / "lo,w:er"
    below.rename(moved)
    os.chown(odd, lab.uid, lab.uid)
    assert lab.cell("cat x", lower=(moved,)).text == "x"


def test_processes_of_the_host_are_not_seen_and_not_hit(lab: Lab, without: type[Without]) -> None:
    with subprocess.Popen(["sleep", "60"], user=lab.cell_uid) as victim:
        script = f"ls /proc | grep -c '^[0-9]'; /in/probe kill {victim.pid} || true; /in/probe kill -1 || true"
        hidden = lab.cell(f"ls /proc/{victim.pid} || /in/probe kill {victim.pid} || true")
        assert "ESRCH" in hidden.text
        assert victim.poll() is None
        # the control: in the host's process namespace the same uid can signal it
        del script
        subprocess.run(["sh", "-c", f"kill -KILL {victim.pid}"], user=lab.cell_uid, check=True)
        assert victim.wait(5) == -9
    del without


def test_the_first_process_cannot_be_killed_from_inside(lab: Lab) -> None:
    result = lab.cell("/in/probe kill 1; echo still here")
    assert "still here" in result.text


def test_a_survivor_does_not_survive(lab: Lab) -> None:
    script = (
        "(setsid -f bash -c 'trap \"\" TERM HUP INT; while :; do echo x >>/out/late; sleep 0.05; done'); sleep 0.3"
    )
    result = lab.cell(script)
    assert result.outcome.ok
    size = (result.out / "late").stat().st_size
    time.sleep(0.3)
    assert (result.out / "late").stat().st_size == size > 0


def test_outside_a_cell_it_would_survive(lab: Lab) -> None:
    late = lab.folder() / "late"
    script = f"for i in 1 2 3 4 5 6 7 8 9 10; do echo x >>{late}; sleep 0.05; done"
    subprocess.run(["setsid", "-f", "bash", "-c", script], check=True)
    time.sleep(0.1)
    size = late.stat().st_size if late.exists() else 0
    time.sleep(0.5)
    assert late.stat().st_size > size


def test_set_uid_files_do_nothing_inside(lab: Lab) -> None:
    result = lab.cell("cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; /tmp/id -u")
    assert result.text == "1000\n"


def test_two_cells_cannot_speak(lab: Lab, without: type[Without]) -> None:
    """Neither by an abstract socket (over which a descriptor could be passed), shared memory, nor semaphores."""
    serve = (
        'python3 -c \'import socket,time; s=socket.socket(socket.AF_UNIX); s.bind("\\0anvil-cards"); s.listen();'
        ' print("up", flush=True); s.settimeout(8); s.accept()\''
    )

    def both(weaken: Callable[[], None] | None = None) -> str:
        folder, other = lab.folder(), lab.folder()
        first, second = lab.spec(folder, serve), lab.spec(other, "/in/probe abstract anvil-cards")

        def task() -> str:
            with run.start(first, folder / "log") as server:
                while not (said := server.read(100)):
                    assert server.tick(0.1) is None, (folder / "log").read_text()
                assert said == b"up\n"
                run.run(second, other / "log")
            return (other / "log").read_text()

        return str(lab.apart(task, weaken=weaken, specs=(first, second)))

    assert both() == "abstract: ECONNREFUSED\n"
    assert both(without.isolation("--unshare-net")) == "abstract: ok\n"


def test_a_preloaded_library_runs_inside_only(lab: Lab) -> None:
    """LD_PRELOAD of a recipe reaches the command, but never bubblewrap, which runs outside."""
    source = lab.tree(
        {"evil.c": '#include <unistd.h>\n__attribute__((constructor)) void f(void) { write(1, "up", 2); }'}
    )
    made = lab.cell("gcc -w -shared -fPIC -o /out/evil.so /in/s/evil.c", inputs=(Bind(name="s", source=source),))
    assert made.outcome.ok, made.text
    result = lab.cell(
        "true", inputs=(Bind(name="e", source=made.out),), env={"LD_PRELOAD": "/in/e/evil.so", "LD_DEBUG": ""}
    )
    assert result.text == "up"  # once, by the command


def test_the_root_behind_the_root_is_the_same(lab: Lab) -> None:
    script = "stat -Lc %d:%i / /proc/self/root /proc/$$/root /proc/self/cwd/.. | sort -u | wc -l; ls /proc/1; pwd"
    assert lab.cell(script).text.split() == ["1", "/work"]


def test_dirty_output_is_left_for_the_collector_to_refuse(lab: Lab) -> None:
    script = """
        mkfifo /out/fifo; ln -s /etc/passwd /out/absolute; ln -s ../../.. /out/relative
        printf x > $'/out/new\\nline'; printf x > $'/out/\\xff\\xfe'; touch -d '2999-01-01' /out/future
        python3 -c 'open("/out/" + "n" * 255, "w")'
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/out/socket")'
    """
    result = lab.cell(script)
    assert result.outcome.ok, result.text
    assert len(os.listdir(os.fsencode(result.out))) == 8


@pytest.mark.parametrize("folder", ["/out", "/work"])
def test_folders_that_have_no_bottom(lab: Lab, folder: str) -> None:
    script = f"""python3 -c '
import os
os.chdir("{folder}")
for i in range(300):
    os.mkdir("deep"); os.chdir("deep")
'"""
    assert lab.cell(script).outcome.reason == "output"


def test_log_bytes_are_kept_as_they_are(lab: Lab) -> None:
    result = lab.cell("printf '\\033]0;title\\007\\377\\000end'; printf err >&2")
    assert result.log == b"\x1b]0;title\x07\xff\x00enderr"
