"""Anvil in its own base image: the home is the host's, cells are made inside, and it ends with who started it."""

from __future__ import annotations

import codecs
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from anvil.cell import kernel
from anvil.cell.container import Bound, ContainerSpec, Operation, open_container, plan
from anvil.cell.entry import Stage
from anvil.errors import UsageError
from anvil.image import wheel
from anvil.mainframe import container
from anvil.mainframe.container import CODE
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from tests.apart import apart
from tests.conftest import user_home
from tests.mainframe.test_concurrency import gone, left_nothing, sleeper, wait_until
from tests.mainframe.test_standing import MADE, made

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.mainframe.container import Built
    from tests.conftest import Project

ORDINARY = 12345


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The container's image, made in the user's home; the pinned wheel is brought by pip where it is not there."""
    with Services(Settings(home=user_home(), output=user_home() / "unused")) as services:
        if found := container.built(services):
            return found
    folder = tmp_path_factory.mktemp("wheels")
    for each in wheel.read_lock():
        name, version, *_ = each.name.split("-")
        words = ["download", f"{name}=={version}", "--no-deps", "--only-binary=:all:", "--python-version", "3.13"]
        words = [sys.executable, "-m", "pip", *words, "--platform", "manylinux_2_28_x86_64", "-d", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the pinned wheel {each.name} cannot be had here, so there is no container: {done.stderr}")
    with Services(Settings(home=user_home(), output=user_home() / "unused", from_dir=folder)) as services:
        return container.build(services)


@pytest.fixture
def inside(project: Project, built: Built) -> Project:
    """A project whose home borrows the container too."""
    (project.home / "wheels").symlink_to(built.wheels.parent)
    return project


def shell(project: Project, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script in ``anvil container shell``."""
    environment = {**os.environ, "ANVIL_HOME": str(project.home), "SECRET": "of the host"}
    return subprocess.run(
        project.command("container", "shell", *words), cwd=project.folder, env=environment, input=script, text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.cell
def test_what_is_forged_inside_is_kept_in_the_hosts_cortex(inside: Project) -> None:
    inside.recipe("within", MADE.format(name="within", seconds=0))
    done = inside.anvil("container", "run", "forge", "within", "--project", str(inside.folder))
    assert done.stderr == ""
    assert "4 cards run" in done.stdout
    assert made(inside, "within")
    assert "0 cards run" in inside.forge("within").stdout
    left_nothing(inside.home)


@pytest.mark.cell
def test_exit_codes_come_out_as_they_are(inside: Project) -> None:
    inside.recipe("bad", MADE.format(name="bad", seconds=0).replace("echo first", "exit 7; echo first"))
    assert inside.anvil("container", "run", "forge", "bad", "--project", str(inside.folder)).returncode == 1
    assert inside.anvil("container", "run", "forge", "--nonsense").returncode == 2
    assert shell(inside, "kill -9 $$\n").returncode in {0, 137}  # the first process takes no signal of its own
    assert shell(inside, "exit 5\n").returncode == 5


@pytest.mark.cell
def test_of_the_host_there_is_the_home_and_the_folder_it_was_started_in(inside: Project, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_text("of the host")
    script = f"""
        cat {tmp_path}/other/secret; echo "secret: ${{SECRET:-none}}"
        touch /usr/x || echo root read-only; touch {CODE}/anvil/x || echo code read-only
        touch {inside.home}/mine {inside.folder}/mine && echo written; ls /proc | grep -c '^[0-9]'
        hostname; python3 -c 'import apsw, sys; print(apsw.sqlite_lib_version() >= "3.51.3", sys.prefix)'
    """
    done = shell(inside, script)
    assert "of the host" not in done.stdout
    said = done.stdout.splitlines()
    assert said[:4] == ["secret: none", "root read-only", "code read-only", "written"]
    assert int(said[4]) < 10
    assert said[5:] == ["anvil-container", "True /usr"]
    assert (inside.home / "mine").exists()
    assert (inside.folder / "mine").exists()
    more = shell(inside, f"cat {tmp_path}/other/secret", "--bind", str(tmp_path / "other"))
    assert more.stdout == "of the host"


@pytest.mark.cell
def test_the_daemons_work_inside_for_clients_outside(inside: Project) -> None:
    inside.recipe("served", MADE.format(name="served", seconds=7401))
    environment = {**os.environ, "ANVIL_HOME": str(inside.home)}
    daemon = subprocess.Popen(
        inside.command("container", "run", "mainframe", "run"), cwd=inside.folder, env=environment,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: inside.anvil("mainframe", "status").returncode == 0, "the daemons are at work")
        client = inside.start("served", "--mainframe")
        os.kill(sleeper(7401), signal.SIGTERM)
        said, errors = client.communicate(timeout=120)
        assert (client.returncode, errors) == (0, "")
        assert "4 cards run" in said
        assert made(inside, "served")
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0
    assert inside.anvil("mainframe", "status").returncode == 1
    left_nothing(inside.home)


@pytest.mark.cell
def test_killing_who_started_it_ends_all_that_is_inside(inside: Project) -> None:
    inside.recipe("killed", MADE.format(name="killed", seconds=7402))
    environment = {**os.environ, "ANVIL_HOME": str(inside.home)}
    words = inside.command("container", "run", "forge", "killed", "--project", str(inside.folder))
    forge = subprocess.Popen(words, cwd=inside.folder, env=environment, stdout=subprocess.DEVNULL)
    asleep = sleeper(7402)
    forge.kill()
    forge.wait()
    wait_until(lambda: gone(asleep), "the cell is gone")
    again = subprocess.Popen(words, cwd=inside.folder, env=environment, stdout=subprocess.PIPE, text=True)
    os.kill(sleeper(7402), signal.SIGTERM)
    assert "3 cards run" in again.communicate(timeout=120)[0]


@pytest.mark.cell
def test_a_person_has_a_terminal_inside(inside: Project) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(inside.folder)
        os.environ["ANVIL_HOME"] = str(inside.home)
        words = inside.command("container", "shell")
        os.execv(words[0], words)
    said = b""

    def says(words: bytes) -> None:
        nonlocal said
        while words not in said:
            said += os.read(terminal, 4096)
        said = said.partition(words)[2]

    says(b"# ")
    os.write(terminal, b"tty; sleep 7403\n")
    says(b"/dev/pts/")
    asleep = sleeper(7403)
    os.write(terminal, b"\x03")
    wait_until(lambda: gone(asleep), "Ctrl-C reaches what runs in there, and that alone")
    os.write(terminal, b"exit 6\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    os.close(terminal)


@pytest.mark.cell
def test_a_container_that_is_not_built_names_the_command(project: Project) -> None:
    done = project.anvil("container", "run", "status")
    assert (done.returncode, "anvil container build" in done.stderr) == (3, True)
    lacking = project.anvil("container", "build", "--offline")
    assert lacking.returncode == 3
    assert "pip download apsw" in lacking.stderr


@pytest.mark.cell
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("uid", [0, ORDINARY])
def test_a_sandbox_with_everything_of_its_own_can_be_made_inside(built: Built, tmp_path: Path, uid: int) -> None:
    script = "id -u; bwrap --unshare-all --uid 7 --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp id -u; ls -A /home"
    folder = tmp_path / "root"
    folder.mkdir()
    os.chown(folder, uid, uid)
    with (tmp_path / "said").open("w+") as said, open(os.devnull) as null:

        def make() -> int:
            stage = Stage.of([built.image.rootfs, folder])
            stage.build(uid)
            codecs.lookup("ascii")  # imported late it could not be found where this user cannot go
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            kernel.own_proc_files()
            spec = ContainerSpec(
                rootfs=type(folder)(stage.at(built.image.rootfs)), command=("/bin/bash", "-c", script), bound=(),
                env={"PATH": "/usr/bin"}, folder=type(folder)(stage.at(folder)),
                fds=(null.fileno(), said.fileno(), said.fileno()),
            )  # fmt: skip
            child = open_container(spec)
            child.reap()
            return child.exit_code or 0

        assert apart(make) == 0
        said.seek(0)
        assert said.read().splitlines() == [str(uid), "7"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A root with a file, a link and folders."""
    root = tmp_path / "image"
    for name in ("usr/bin", "etc", "home", "proc", "dev", "tmp", "run", "var/tmp", "var/lib"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "etc" / "hosts").write_text("the image's")
    return root


def test_a_container_is_a_list_that_can_be_printed(small: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "hosts").write_text("the host's")
    bound = (
        Bound(source=tmp_path / "home", to="/home/me/data", writable=True),
        Bound(source=tmp_path / "hosts", to="/etc/hosts"),
    )
    spec = ContainerSpec(rootfs=small, command=("/bin/x",), bound=bound, env={}, folder=tmp_path)
    steps = [str(step) for step in plan(spec) if not step.to.startswith(("/dev", "/sys"))]
    assert steps == [
        "link /bin <- usr/bin", "folder /etc", "folder /home", "folder /proc", "folder /run", "folder /tmp",
        "folder /usr", f"read-only /usr <- {small}/usr", "folder /var", "folder /var/lib",
        f"read-only /var/lib <- {small}/var/lib", "folder /var/tmp", "tmpfs /tmp", "tmpfs /run", "tmpfs /var/tmp",
        "proc /proc", "folder /home", "folder /home/me", "folder /home/me/data",
        f"read-write /home/me/data <- {tmp_path}/home", "folder /etc", "file /etc/hosts",
        f"read-only /etc/hosts <- {tmp_path}/hosts",
    ]  # fmt: skip
    assert Operation(act="folder", to="/dev") in plan(spec)


@pytest.mark.parametrize("to", ["/", "/proc", "/proc/sys", "/dev/x", "/sys/fs", "relative", "/tmp", "/usr/../proc"])
def test_what_is_the_containers_own_cannot_be_bound_over(small: Path, tmp_path: Path, to: str) -> None:
    spec = ContainerSpec(
        rootfs=small, command=("/bin/x",), bound=(Bound(source=tmp_path, to=to),), env={}, folder=tmp_path
    )
    with pytest.raises(UsageError):
        plan(spec)


def test_what_is_not_there_cannot_be_bound(small: Path, tmp_path: Path) -> None:
    bound = (Bound(source=tmp_path / "nothing", to="/x"),)
    with pytest.raises(UsageError, match="not there"):
        plan(ContainerSpec(rootfs=small, command=("/bin/x",), bound=bound, env={}, folder=tmp_path))
