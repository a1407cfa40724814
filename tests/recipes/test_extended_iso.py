"""The ISO, extended by a recipe of one's own and booted: its program speaks, its user logs in with a key.

No kernel option is added, so no kernel is built: everything but the root, the medium and the ssh server is kept.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from anvil.cell.spec import MiB
from anvil.machine.machine import Machine, Place, running
from anvil.machine.spec import MachineSpec
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anvil.image.build import Image

pytestmark = [pytest.mark.iso, pytest.mark.timeout(3600)]
READY = "ANVILOS READY root=anvil_pool/ROOT"
PATIENCE = 180.0  # seconds to the banner; 8 on a quiet machine

RECIPE = '''from anvil.recipe import GiB, Recipe, elf_static
os = Recipe("my-os", extends="iso", licence="MIT")
source = os.write("source", None, "hello.c", """
#include <stdio.h>
#include <unistd.h>
int main(void) {{ printf("HELLO FROM UID %d\\\\n", (int)getuid()); return 0; }}
""")
hello = os.run("build", source, "musl-gcc -static -O2 -o hello hello.c") / "hello"
os.artifact("bin/hello", hello, kind=elf_static)
os.root_file("bin/hello", hello, mode=0o755)
os.root_file("etc/my-os.conf", os.file("my-os/conf"), mode=0o640)
os.root_text("etc/motd", "It's my os.\\n")
os.root_text("home/ada/notes", "Ada's\\n")
os.root_link("usr/bin/hi", "/bin/hello")
os.user("ada", uid=1000, summary="Ada", groups=["tty"])
os.ssh_key("ada", "{key}")
os.service("hello", "/bin/hello", once=True, user="ada", console=True)
os.service("wrong", "/bin/false")
os.hostname("my-os")
os.kernel_line("quiet")
os.boot("speaks", medium=os.use("iso", "anvilos-phase2.iso"), firmware="bios", attach="cdrom", memory=GiB // 2,
        expect="HELLO FROM UID 1000")
'''


@dataclass(frozen=True, kw_only=True)
class Forged:
    """What was forged: the folder of its artifacts, what the forge said, and the private half of the user's key."""

    output: Path
    said: str
    touched: frozenset[str]
    key: Path


def anvil(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the user's own home, which keeps what was forged."""
    environment = {**os.environ, "ANVIL_HOME": str(user_home())}
    command = [sys.executable, "-m", "anvil.cli.main", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ISO as it is."""
    folder = tmp_path_factory.mktemp("plain")
    anvil("forge", "iso", "--output", str(folder), cwd=folder)
    return folder / "anvilos-phase2.iso"


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Forged:
    """A project's own system, made after the plain one."""
    assert plain.is_file()
    folder = tmp_path_factory.mktemp("project")
    output = folder / "out"
    anvil("forge", "dropbear", "--output", str(output), cwd=folder)
    key = folder / "key"
    maker = folder / "dropbearkey"
    maker.symlink_to(output / "bin" / "dropbear")  # one file that is what it is called
    command = [str(maker), "-t", "ed25519", "-f", str(key)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    public = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519 "))
    recipes = folder / "recipes"
    (recipes / "my-os").mkdir(parents=True)
    (recipes / "my-os" / "conf").write_text("a setting\n", encoding="utf-8")
    (recipes / "my-os.py").write_text(RECIPE.format(key=public), encoding="utf-8")
    words = ("my-os", "--project", str(folder))
    plan = json.loads(anvil("plan", *words, "--json", cwd=folder).stdout)
    touched = frozenset(card["card"] for card in plan["cards"] if card["fate"] != "kept")
    said = anvil("forge", *words, "--output", str(output), cwd=folder).stdout
    return Forged(output=output, said=said, touched=touched, key=key)


@pytest.fixture
def guest(forged: Forged, machine_image: Image, tmp_path: Path) -> Iterator[Machine]:
    """The extended medium, up."""
    spec = MachineSpec(medium=forged.output / "anvilos-phase2.iso", memory_bytes=512 * MiB)
    place = Place(image=machine_image.rootfs)
    with running(spec, place, transcript=tmp_path / "console", wall_seconds=2 * PATIENCE) as machine:
        assert machine.wait_for(READY, timeout=PATIENCE).ok
        yield machine


def test_its_program_is_heard_and_nothing_else_was_made_anew(forged: Forged) -> None:
    assert "HELLO FROM UID 1000" in forged.said
    recipes = {card.partition("/")[0] for card in forged.touched}
    assert recipes <= {"my-os", "rootfs", "iso"}
    assert (forged.output / "bin" / "hello").is_file()
    sidecar = json.loads((forged.output / "anvilos-phase2.iso.json").read_text(encoding="utf-8"))
    assert {"my-os/build", "dropbear/build", "rootfs/root"} <= {card["card"] for card in sidecar["cards"]}


def test_everything_that_was_added_is_there(guest: Machine, tmp_path: Path) -> None:
    shell = guest.login()
    assert shell.run("hostname; cat /etc/motd; cat /etc/my-os.conf; hi").output.split("\n") == [
        "my-os", "It's my os.", "a setting", "HELLO FROM UID 0",
    ]  # fmt: skip
    assert shell.run("stat -c '%U %G %a' /home/ada /home/ada/notes /etc/my-os.conf").output.split("\n") == [
        "ada ada 750", "ada ada 644", "root root 640",
    ]  # fmt: skip
    assert shell.run("id ada").output == "uid=1000(ada) gid=1000(ada) groups=1000(ada),5(tty)"
    assert "HELLO FROM UID 1000" in shell.run("cat /run/log/hello/current").output
    assert " quiet " in shell.run("cat /proc/cmdline").output
    # a service that fails is started again, and says nothing more after a while
    assert int(shell.run("sleep 4; cut -d' ' -f1 /run/anvil/services/wrong").output.split()[-1]) > 1
    assert b"ANVIL SERVICE wrong: ended with exit code 1, started again" in (tmp_path / "console").read_bytes()


def test_whoever_has_the_key_logs_in_and_nobody_else(guest: Machine, forged: Forged) -> None:
    shell = guest.login()
    key = base64.b64encode(forged.key.read_bytes()).decode()
    assert shell.run(f"cd; echo {key} | base64 -d > key; chmod 600 key; dropbearkey -t ed25519 -f other").status == 0
    came_in = shell.run("dbclient -y -i key ada@127.0.0.1 'id -un; cat notes' 2>/dev/null", timeout=60)
    assert (came_in.output, came_in.status) == ("ada\nAda's", 0)
    for words in ("-i other ada@127.0.0.1", "-i key root@127.0.0.1", "ada@127.0.0.1", "root@127.0.0.1"):
        refused = shell.run(f"dbclient -y {words} id </dev/null", timeout=60)
        assert refused.status != 0, words
        assert "uid=" not in refused.output
    assert "/etc/dropbear" not in shell.run("find / -xdev -name '*host_key*' 2>/dev/null").output
    assert shell.run("ls -l /run/dropbear/ed25519").output.startswith("-rw-------")


def test_without_a_key_nothing_of_the_server_is_there_and_nothing_listens(
    plain: Path, machine_image: Image, tmp_path: Path
) -> None:
    place = Place(image=machine_image.rootfs)
    spec = MachineSpec(medium=plain)
    with running(spec, place, transcript=tmp_path / "console", wall_seconds=2 * PATIENCE) as machine:
        assert machine.wait_for(READY, timeout=PATIENCE).ok
        shell = machine.login()
        assert shell.run("netstat -tln | grep -c LISTEN").output == "0"
        assert shell.run("find / -xdev -name '*dropbear*' -o -xdev -name 'anvil-service'").output == ""
        assert machine.power_off()
