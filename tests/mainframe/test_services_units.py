"""The systemd units: their commands run as a service manager would run them, and systemd itself finds no fault."""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anvil.mainframe.home import Home
from anvil.mainframe.standing import client, seat
from anvil.microjson.codec import MicroJSON
from anvil.microjson.registry import MessageID

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = Path(__file__).parents[2] / "system" / "services"
SERVICES = ("anvil-architect.service", "anvil-processor.service")
ANVIL = "/usr/local/bin/anvil"
WORST_EXPOSURE = 4.5

# What each would do to the cells that a service makes; the units say why they are left out.
FORBIDDEN = {
    "ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset", "ProtectHostname", "RestrictSUIDSGID",
    "MemoryDenyWriteExecute", "PrivateNetwork", "PrivateUsers", "ProtectControlGroups",
}  # fmt: skip


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name, encoding="utf-8")
    return parser


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""The socket on descriptor 3, and the number of the process, which exec keeps, in the environment."""


class Manager:
    """What systemd is to a service of Type=notify."""

    def __init__(self, folder: Path, name: str) -> None:
        self.address = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(30)
        self.words = shlex.split(unit(name)["Service"]["ExecStart"])
        assert self.words[0] == ANVIL
        self.home = Home.open(folder / "home")

    def start(self, *, watchdog: int = 600_000, listening: socket.socket | None = None) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ANVIL_HOME": str(self.home.path),
            "NOTIFY_SOCKET": self.address,
            "WATCHDOG_USEC": str(watchdog),
        }
        words = [sys.executable, "-m", "anvil.cli.main", *self.words[1:]]
        passed = []
        if listening is not None:
            passed = [listening.fileno()]
            words = [sys.executable, "-c", HAND_OVER, str(listening.fileno()), *words]
        return subprocess.Popen(words, env=environment, pass_fds=passed, stdout=subprocess.DEVNULL)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture
def managed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Manager]:
    manager = Manager(tmp_path, request.param)
    yield manager
    manager.socket.close()


@pytest.mark.parametrize("managed", SERVICES, indirect=True)
def test_a_service_says_that_it_is_ready_alive_and_stopping(managed: Manager) -> None:
    daemon = managed.start()
    assert managed.heard() == "READY=1"
    assert {managed.heard() for _ in range(3)} == {"WATCHDOG=1"}
    daemon.send_signal(signal.SIGHUP)
    assert managed.heard() == "WATCHDOG=1"
    daemon.terminate()
    said = managed.heard()
    while said == "WATCHDOG=1":
        said = managed.heard()
    assert said == "STOPPING=1"
    assert daemon.wait(30) == 0


@pytest.mark.parametrize("managed", SERVICES, indirect=True)
def test_a_service_that_hangs_gives_no_sign_any_more(managed: Manager) -> None:
    daemon = managed.start()
    assert managed.heard() == "READY=1"
    assert managed.heard() == "WATCHDOG=1"
    daemon.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
    managed.socket.settimeout(1.5)
    with contextlib.suppress(TimeoutError):
        managed.heard()  # what may have been under way
    with pytest.raises(TimeoutError):
        managed.heard()
    daemon.kill()
    assert daemon.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("managed", SERVICES[:1], indirect=True)
def test_the_architect_takes_the_socket_that_the_manager_opened(managed: Manager) -> None:
    place = seat.folder(managed.home.path)
    place.mkdir(mode=0o700)
    assert unit("anvil-architect.socket")["Socket"]["ListenStream"].endswith(f"/{place.name}/{seat.SOCKET}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, contextlib.chdir(place):
        listener.bind(seat.SOCKET)
        listener.listen()
        early = client.connect(managed.home.path)  # before the daemon is there
        early.sendall(b"garbage\n")
        daemon = managed.start(listening=listener)
        early.settimeout(30)
        assert MicroJSON.decode(early.recv(65536).rstrip(b"\n"))["@ID"] == MessageID.WISH_ENDED
        early.close()
        daemon.terminate()
        assert daemon.wait(30) == 0
        assert (place / seat.SOCKET).exists()  # it is the manager's to take away


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_fenced_and_can_still_make_cells(name: str) -> None:
    service = unit(name)["Service"]
    assert not FORBIDDEN & set(service)
    assert service["User"] == "anvil"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == service["Environment"].removeprefix("ANVIL_HOME=")
    assert {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} == set(service["RestrictNamespaces"].split())
    assert {"AF_UNIX", "AF_NETLINK"} <= set(service["RestrictAddressFamilies"].split())
    assert (service["Type"], int(service["WatchdogSec"])) == ("notify", 60)
    text = (UNITS / name).read_text(encoding="utf-8")
    for word in FORBIDDEN - {"PrivateUsers"}:
        assert word in text, f"{name} does not say why {word} is left out"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_and_little_exposure(tmp_path: Path) -> None:
    for path in UNITS.glob("anvil-*"):
        text = path.read_text(encoding="utf-8").replace(ANVIL, shutil.which("true") or "")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    paths = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in SERVICES:
        words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(tmp_path / name)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        exposure = float(said.split("Overall exposure level")[1].split(":")[1].split()[0])
        assert exposure <= WORST_EXPOSURE, name
