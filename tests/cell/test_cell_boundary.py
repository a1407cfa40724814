"""System calls at the boundary: each is refused in a cell, and seen to work with the layer that refuses it removed."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cell.cell_lab import Lab, Without

pytestmark = pytest.mark.cell

FILTERED = {
    "ptrace": "ENOSYS",
    "process_vm_readv": "ENOSYS",
    "keyctl": "ENOSYS",
    "add_key": "ENOSYS",
    "bpf": "ENOSYS",
    "userfaultfd": "ENOSYS",
    "perf": "ENOSYS",
    "clone3": "ENOSYS",
    "setns": "ENOSYS",
    "mount": "ENOSYS",
    "chroot": "ENOSYS",
    "io_uring": "ENOSYS",
    "userns": "EPERM",
    "clone_userns": "EPERM",
    "mknod": "EPERM",
    "tioclinux": "EPERM",
    "tiocsti": "EPERM",
    "socket 16": "EAFNOSUPPORT",  # netlink
    "socket 17": "EAFNOSUPPORT",  # packet
    "socket 40": "EAFNOSUPPORT",  # vsock
    "socket 38": "EAFNOSUPPORT",  # the kernel's crypto
    "personality 0x0400000": "EPERM",  # READ_IMPLIES_EXEC
    "xattr /out": "EOPNOTSUPP",
    "minus_one": "ENOSYS",
}

NOT_THE_FILTER = {"mount", "chroot", "userns", "clone_userns", "minus_one", "setns", "clone3", "tioclinux"}
"""Refused by another layer as well (capabilities, --disable-userns), or by any kernel."""

MACHINE_MAY_LACK = {"ENOSYS", "EPERM", "EACCES", "EAFNOSUPPORT", "ENOENT", "EINVAL", "EFAULT", "EIO"}


def _ask(lab: Lab, names: list[str], **how: Any) -> dict[str, str]:
    script = "".join(f"/in/probe {name} || [ $? = 1 ]\n" for name in names)
    result = lab.cell(script, **how)
    assert result.outcome.ok, result.text
    return dict(zip(names, [line.partition(": ")[2] for line in result.text.splitlines()], strict=True))


def test_every_refused_call_is_refused(lab: Lab) -> None:
    assert _ask(lab, list(FILTERED)) == FILTERED


def test_without_the_filter_the_calls_are_made(lab: Lab, without: type[Without]) -> None:
    """The negative control: the kernel answers otherwise than the filter did."""
    names = [name for name in FILTERED if name not in NOT_THE_FILTER]
    answers = _ask(lab, names, weaken=without.filter)
    changed = {name for name in names if answers[name] != FILTERED[name]}
    assert {"ptrace", "process_vm_readv", "keyctl", "add_key", "mknod", "socket 16", "xattr /out"} <= changed, answers


def test_without_both_filter_and_userns_limit_a_namespace_is_made(lab: Lab, without: type[Without]) -> None:
    def weaken() -> None:
        without.filter()
        without.isolation("--disable-userns")()

    assert _ask(lab, ["userns"], weaken=weaken) == {"userns": "ok"}
    assert _ask(lab, ["userns"], weaken=without.filter) == {"userns": "ENOSPC"}


def test_what_builds_need_works(lab: Lab) -> None:
    wanted = ["socket 1", "socket 2", "mkfifo", "personality 0", "core", "open_read /etc/passwd"]
    assert _ask(lab, wanted) == dict.fromkeys(wanted, "ok")


def test_terminals_clocks_and_tools_that_builds_use_work(lab: Lab) -> None:
    script = """
        python3 -c 'import os; os.openpty()'
        python3 -c 'import os, threading; t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()'
        [ $(nproc) -ge 1 ]; date >/dev/null; mkfifo f; cp -a f g; install -m 755 /usr/bin/true t; ./t; sync
        ln -s x l; touch -d @0 t; mv t /tmp/t; tar -cf a.tar l f; bash -c 'ulimit -c 0; ulimit -n 4096'
        printf 'int main(void){return 0;}' >c.c; gcc -O2 -o c c.c; ./c
    """
    result = lab.cell(script)
    assert result.outcome.ok, result.text
    assert result.text == "thread\n"


def test_x32_numbers_and_other_architectures_kill(lab: Lab) -> None:
    result = lab.cell("/in/probe x32")
    assert result.outcome.signal == 31  # SIGSYS
    assert result.outcome.reason == "signal"


@pytest.fixture
def listener() -> Iterator[tuple[int, str]]:
    """A TCP and an abstract unix socket of the host: (port, name)."""
    name = f"anvil-test-{os.getpid()}"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        unix.bind("\0" + name)
        unix.listen()
        yield tcp.getsockname()[1], name


def test_the_hosts_loopback_and_abstract_sockets_are_elsewhere(
    lab: Lab, without: type[Without], listener: tuple[int, str]
) -> None:
    port, name = listener
    attempts = [f"tcp {port}", f"abstract {name}", "udp"]
    refused = {f"tcp {port}": "ECONNREFUSED", f"abstract {name}": "ECONNREFUSED", "udp": "ENETUNREACH"}
    assert _ask(lab, attempts) == refused
    opened = _ask(lab, attempts[:2], weaken=without.isolation("--unshare-net"))
    assert opened == {f"tcp {port}": "ok", f"abstract {name}": "ok"}


SYSCTLS = [f"/proc/sys/{name}" for name in ("kernel/core_pattern", "kernel/hostname", "vm/swappiness")]


def test_the_kernels_settings_cannot_be_opened_for_writing(lab: Lab) -> None:
    answers = _ask(lab, [f"open_write {path}" for path in SYSCTLS])
    assert set(answers.values()) <= {"EROFS", "EACCES", "EPERM"}, answers


def test_as_the_hosts_root_they_could_be(root_lab: Lab, without: type[Without]) -> None:
    """The negative control, and why a uid is taken before the user namespace: an id mapped to the host's 0 owns
    ``core_pattern``."""
    name = "open_write /proc/sys/kernel/core_pattern"
    read_write = without.operation("read-only", "/proc/sys")
    # bubblewrap itself covers what it sees is writable, so the bare permission is asked of a fresh proc
    assert _ask(root_lab, [name], weaken=read_write)[name] in {"EACCES", "EPERM", "EROFS"}
    script = "[ -w /proc/1/mem ]; stat -c %u /out/f; id -u"
    result = root_lab.cell("touch /out/f && chmod 4755 /out/f", host_uid=0)
    assert result.outcome.ok, (script, result.text)
    assert (result.out / "f").stat().st_uid == 0  # set-uid root on the host: this is what the uid prevents
    safe = root_lab.cell("touch /out/f && chmod 4755 /out/f")
    assert (safe.out / "f").stat().st_uid == root_lab.cell_uid


def test_devices_of_the_host_are_not_there(lab: Lab) -> None:
    result = lab.cell("ls /dev; ls /sys; test ! -e /dev/kmsg; test ! -e /dev/vda; : </dev/null; : >/dev/full || true")
    assert result.outcome.ok
    assert result.text.split() == [
        "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ]  # fmt: skip


def test_no_capabilities_no_new_privileges(lab: Lab) -> None:
    result = lab.cell("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    facts = [line.split() for line in result.text.splitlines()]
    assert [fact[1] for fact in facts] == ["0" * 16] * 5 + ["1", "2"]


def test_capabilities_come_back_without_the_drop(lab: Lab, without: type[Without]) -> None:
    def weaken() -> None:
        from anvil.cell import bwrap

        bwrap._ISOLATE = tuple(
            {"--cap-drop": "--cap-add", "--disable-userns": "--unshare-user"}.get(word, word)
            for word in bwrap._ISOLATE
        )

    result = lab.cell("grep CapEff /proc/self/status", weaken=weaken)
    assert int(result.text.split()[1], 16) != 0, without


@pytest.mark.skipif(not os.path.exists("/dev/kvm"), reason="no /dev/kvm here")
def test_kvm_is_there_for_who_asks(root_lab: Lab) -> None:
    """As root it is a node of the cell's uid; opening it and asking its version is all that is shown here."""
    script = "test -c /dev/kvm && exec 5<>/dev/kvm"
    assert root_lab.cell(script, kvm=True).outcome.ok
    assert not root_lab.cell(script).outcome.ok
    assert not root_lab.cell("exec 5<>/dev/vda", kvm=True).outcome.ok
