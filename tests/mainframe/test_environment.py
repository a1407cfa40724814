"""What the machine lacks: each lack is told with its cause and its mend, ends with 3, and loses nothing."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shlex
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe.services import LOCKS
from tests.campaigns import environment
from tests.mainframe.test_forge import HELLO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Project

pytestmark = pytest.mark.cell

NOWHERE = "http://127.0.0.1:9/debian"
"""The discard port of this machine: nothing listens there."""


def without_images(project: Project) -> None:
    """As on the first run: no base image yet."""
    (project.home / "images").unlink()


def dead_mirrors(project: Project) -> None:
    project.environment.update(ANVIL_MIRROR_DEBIAN=NOWHERE, ANVIL_MIRROR_DEBIAN_SECURITY=NOWHERE + "-security")


def apart(project: Project, script: str, *, users: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a shell script in namespaces of its own, where it may mount; users: in a user namespace too."""
    flags = "-m" if os.geteuid() == 0 and not users else "-Urm"
    environment = {**os.environ, "ANVIL_HOME": str(project.home), **project.environment}
    command = ["unshare", flags, "sh", "-euc", script]
    return subprocess.run(
        command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def forge_words(project: Project, *more: str) -> str:
    return shlex.join(project.command("forge", "hello", "--project", str(project.folder), *more))


def test_no_network_at_the_first_run(project: Project) -> None:
    without_images(project)
    dead_mirrors(project)
    project.recipe("hello", HELLO)
    done = project.forge("hello")
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr


def test_offline_and_a_file_that_is_not_here(project: Project) -> None:
    without_images(project)
    project.recipe("hello", HELLO)
    done = project.forge("hello", "--offline")
    assert done.returncode == 3
    assert "--from" in done.stderr


@pytest.fixture
def wrong_mirror() -> Iterator[str]:
    """A mirror that answers everything with the same wrong bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"these are not the bytes that were pinned\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/debian"
    server.shutdown()
    server.server_close()


def test_a_mirror_with_other_files_is_told_before_anything_runs(project: Project, wrong_mirror: str) -> None:
    """One that does not even know how to be asked without giving the file."""
    project.environment["ANVIL_MIRROR_DEBIAN"] = wrong_mirror
    project.recipe("hello", WITH_SOURCE)
    done = project.forge("hello")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "as it was pinned" in done.stderr
    assert "run   " not in done.stdout


def test_wrong_bytes_from_a_mirror_reach_nothing(project: Project, tmp_path: Path) -> None:
    project.recipe("hello", WITH_SOURCE)
    with environment.serve("wrong", tmp_path) as mirror:  # as many as were pinned
        project.environment["ANVIL_MIRROR_DEBIAN"] = mirror
        done = project.forge("hello")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sources/zlib" in done.stdout
    size = json.loads((LOCKS / "debian.json").read_text(encoding="utf-8"))["sources"]["zlib"]["files"][0]["size"]
    wrong = hashlib.sha256(bytes(size)).hexdigest()
    assert not (project.home / "vault" / "blobs" / wrong[:2] / wrong[2:]).exists()


WITH_SOURCE = """
from anvil.recipe import Recipe
r = Recipe("hello", licence="MIT")
r.export("x", r.unpack(r.source("zlib")).work)
"""


def test_user_namespaces_are_switched_off(project: Project) -> None:
    project.recipe("hello", HELLO)
    done = apart(project, f"echo 0 > /proc/sys/user/max_user_namespaces; exec {forge_words(project)}", users=True)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "user namespaces" in done.stderr
    assert "sysctl" in done.stderr


def test_a_bubblewrap_that_is_not_there(project: Project) -> None:
    project.environment["ANVIL_BWRAP"] = "/nonexistent/bwrap"
    project.recipe("hello", HELLO)
    done = project.forge("hello")
    assert done.returncode == 3
    assert "/nonexistent/bwrap" in done.stderr
    assert "next:" in done.stderr


def small_disk(project: Project, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a small disk for the home; what the home borrows stays where it is."""
    disk = project.folder / "disk"
    disk.mkdir(exist_ok=True)
    images = os.path.realpath(project.home / "images")
    begin = f"mount -t tmpfs -o size={size},mode=700 none {disk}; ln -s {images} {disk}/images; "
    project.environment["ANVIL_HOME"] = str(disk)
    return apart(project, begin + script)


def test_a_disk_that_is_too_small_to_begin(project: Project) -> None:
    project.recipe("hello", HELLO)
    done = small_disk(project, "16m", f"exec {forge_words(project)}")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "free" in done.stderr
    assert "--home" in done.stderr


def test_a_disk_that_fills_up_loses_nothing_and_is_no_jam(project: Project, tmp_path: Path) -> None:
    project.recipe(
        "hello", HELLO.replace("musl-gcc", "head -c 300M /dev/zero | tr '\\\\0' x > big; rm big; musl-gcc", 1)
    )
    again = tmp_path / "again"
    # The second forge is the same with more room: it must not think that the card had failed.
    script = (
        f"if {forge_words(project)}; then exit 99; else code=$?; fi; "
        f"mount -o remount,size=600m {project.folder / 'disk'}; "
        f"echo code $code; {forge_words(project)} > {again} || {{ cat {again}; exit 98; }}"
    )
    done = small_disk(project, "110m", script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "code 3" in done.stdout
    assert "JAM" not in done.stdout
    assert "run   hello/source" not in again.read_text()


def test_an_unwritable_output_folder_is_told_and_no_card_runs(project: Project, tmp_path: Path) -> None:
    project.recipe("hello", HELLO)
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    done = project.forge("hello", "--output", str(blocked))
    assert done.returncode == 3
    assert "--output" in done.stderr
    assert "run   " not in done.stdout
    # with everything forged it is met when the artifacts are put there, and costs no card either
    assert project.forge("hello").returncode == 0
    again = project.forge("hello", "--output", str(blocked))
    assert again.returncode == 3
    assert "--output" in again.stderr
    assert "0 cards run" in project.forge("hello").stdout


def test_a_forge_works_in_a_process_namespace_of_its_own(project: Project) -> None:
    """As in a container: process 2, which bubblewrap sees its child as, is nobody there."""
    project.recipe("hello", HELLO)
    flags = "-mpf" if os.geteuid() == 0 else "-Urmpf"
    script = f"/bin/true; test ! -e /proc/2 || exit 97; exec {forge_words(project)}"
    environment = {**os.environ, "ANVIL_HOME": str(project.home)}
    words = ["unshare", flags, "--mount-proc", "sh", "-c", script]
    done = subprocess.run(
        words, cwd=project.folder, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_doctor_finds_what_lacks(project: Project) -> None:
    well = project.anvil("doctor")
    assert "ok    cell" in well.stdout
    project.environment["ANVIL_BWRAP"] = "/nonexistent/bwrap"
    ill = project.anvil("doctor")
    assert ill.returncode == 3
    assert "LACK  bwrap" in ill.stdout
    assert "LACK  cell" in ill.stdout
    assert "mend:     unset ANVIL_BWRAP" in ill.stdout
    assert "Traceback" not in ill.stderr
    told = json.loads(project.anvil("doctor", "--json").stdout)
    states = {finding["name"]: finding["state"] for finding in told["findings"]}
    assert states["bwrap"] == states["cell"] == "lack"
    assert states["sqlite"] == "ok"
    assert told["lacks"] == 2


def test_the_doctor_asks_the_mirrors_only_when_told_to(project: Project) -> None:
    dead_mirrors(project)
    assert "ok    mirrors" in project.anvil("doctor").stdout
    ill = project.anvil("doctor", "--network")
    assert ill.returncode == 3
    assert "LACK  mirrors   no mirror answers" in ill.stdout


def test_a_home_that_cannot_be_opened_keeps_the_doctor_from_nothing_else(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    project.environment["ANVIL_HOME"] = str(tmp_path / "file")
    ill = project.anvil("doctor")
    assert ill.returncode == 3
    assert "ok    kernel" in ill.stdout
    assert "LACK  home" in ill.stdout
