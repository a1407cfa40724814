"""The filter, run by an interpreter of classic BPF: what it says to every number and to arguments."""

from __future__ import annotations

import errno
import json
import struct
from importlib import resources
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil.cell import seccomp
from anvil.cell.seccomp import ALLOW, AUDIT_ARCH_X86_64, KILL_PROCESS, X32_BIT

POLICY: dict[str, Any] = json.loads(resources.files("anvil.cell").joinpath("seccomp.json").read_text("utf-8"))
CODE = [struct.unpack_from("=HBBI", seccomp.program(), at) for at in range(0, len(seccomp.program()), 8)]
RULED = {rule["number"] for rule in POLICY["rules"]}
FIXED = {call["number"]: call["then"] for call in POLICY["fixed"].values()}


def judge(number: int, *arguments: int, arch: int = AUDIT_ARCH_X86_64) -> str:
    """The filter's verdict on a call: "allow", "kill", or an error's name ("0" for a pretended success)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    at = accumulator = 0
    while True:
        code, true, false, operand = CODE[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += true if accumulator == operand else false
            case 0x25:
                at += true if accumulator > operand else false
            case 0x35:
                at += true if accumulator >= operand else false
            case 0x06:
                return _named(operand)
            case _:
                raise AssertionError(f"an instruction that is not used here: {code:#x}")


def _named(verdict: int) -> str:
    if verdict == ALLOW:
        return "allow"
    if verdict == KILL_PROCESS:
        return "kill"
    assert verdict >> 16 == 5
    return errno.errorcode.get(verdict & 0xFFFF, "0")


@pytest.mark.parametrize("number", range(600))
def test_every_number_is_as_the_data_says(number: int) -> None:
    if number in RULED:
        assert judge(number) in {"allow", "EAFNOSUPPORT"}
    elif number in FIXED:
        assert judge(number) == {"pretend": "0", "EOPNOTSUPP": "ENOTSUP"}[FIXED[number]]
    else:
        assert judge(number) == ("allow" if number in POLICY["allow"].values() else "ENOSYS")


@given(st.integers(min_value=X32_BIT, max_value=0xFFFFFFFE))
def test_x32_kills(number: int) -> None:
    assert judge(number) == "kill"


@given(st.integers(min_value=0, max_value=0xFFFFFFFF).filter(lambda arch: arch != AUDIT_ARCH_X86_64))
def test_other_architectures_kill(arch: int) -> None:
    assert judge(1, arch=arch) == "kill"


def test_minus_one_is_a_mistake_and_not_an_attack() -> None:
    assert judge(-1) == "ENOSYS"


CLONE, UNSHARE, SOCKET, SOCKETPAIR, IOCTL, PERSONALITY, MKNOD, MKNODAT, SETRLIMIT, PRLIMIT = (
    56, 272, 41, 53, 16, 135, 133, 259, 160, 302,
)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        ((CLONE, 0x1200011), "allow"),  # fork
        ((CLONE, 0x3D0F00), "allow"),  # a thread
        ((CLONE, 0x4111), "allow"),  # vfork
        *[((CLONE, 1 << bit | 17), "EPERM") for bit in (17, 25, 26, 27, 28, 29, 30)],
        ((UNSHARE, 0x600), "allow"),
        ((UNSHARE, 0x80), "EPERM"),  # a time namespace
        *[((UNSHARE, 1 << bit), "EPERM") for bit in (17, 25, 26, 27, 28, 29, 30)],
        *[((SOCKET, family), "allow") for family in (1, 2, 10)],
        *[((SOCKET, family), "EAFNOSUPPORT") for family in (0, 3, 5, 16, 17, 29, 38, 40, 44)],
        ((SOCKET, 1 | 7 << 32), "allow"),  # the kernel, too, looks at the low half only
        ((SOCKETPAIR, 1), "allow"),
        ((SOCKETPAIR, 40), "EAFNOSUPPORT"),
        ((IOCTL, 0, 0x5413), "allow"),  # TIOCGWINSZ
        *[((IOCTL, 0, request), "EPERM") for request in (0x5412, 0x541C, 0x541D, 0x5423)],
        ((IOCTL, 0, 0x5412 | 1 << 32), "EPERM"),  # the classic way past a careless filter
        ((PERSONALITY, 0xFFFFFFFF), "allow"),
        ((PERSONALITY, 0x0400000), "EPERM"),
        ((MKNOD, 0, 0o100644), "allow"),
        ((MKNOD, 0, 0o010644), "allow"),
        ((MKNOD, 0, 0o140644), "allow"),
        ((MKNOD, 0, 0o020644), "EPERM"),
        ((MKNOD, 0, 0o060644), "EPERM"),
        ((MKNODAT, 0, 0, 0o020644), "EPERM"),
        ((MKNODAT, 0, 0, 0o010644), "allow"),
        ((316, 0, 0, 0, 0, 3), "allow"),
        ((316, 0, 0, 0, 0, 4), "EINVAL"),
        ((SETRLIMIT, 7), "allow"),
        ((SETRLIMIT, 4), "0"),
        ((PRLIMIT, 0, 4, 0, 1), "allow"),  # reading
        ((PRLIMIT, 0, 4, 1), "0"),
        ((PRLIMIT, 0, 4, 1 << 32), "0"),
        ((PRLIMIT, 0, 7, 1), "allow"),
    ],
)
def test_arguments(call: tuple[int, ...], verdict: str) -> None:
    assert judge(*call) == verdict


def test_the_dangerous_are_not_listed() -> None:
    listed = {*POLICY["allow"], *POLICY["fixed"], *(rule["name"] for rule in POLICY["rules"])}
    dangerous = {
        "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "keyctl", "add_key", "request_key",
        "bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register", "mount",
        "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "mount_setattr",
        "setns", "open_by_handle_at", "init_module", "finit_module", "kexec_load", "kexec_file_load", "reboot",
        "swapon", "iopl", "ioperm", "modify_ldt", "syslog", "acct", "quotactl", "settimeofday", "clock_settime",
        "adjtimex", "sethostname", "fanotify_init", "clone3", "vmsplice", "memfd_secret",
    }  # fmt: skip
    assert not dangerous & listed


def test_the_data_is_sound() -> None:
    numbers = [*POLICY["allow"].values(), *FIXED, *RULED]
    assert len(numbers) == len(set(numbers))
    assert list(POLICY["allow"].values()) == sorted(POLICY["allow"].values())
    assert len(CODE) < 4096  # BPF_MAXINSNS


@given(st.sets(st.integers(min_value=0, max_value=500)))
def test_ranges_hold_exactly_the_numbers(numbers: set[int]) -> None:
    runs = seccomp.ranges(numbers)
    assert {n for first, last in runs for n in range(first, last + 1)} == numbers
    assert all(last + 1 < following for (_, last), (following, _) in pairwise(runs))


@pytest.mark.parametrize(("key", "value"), [("allow", []), ("fixed", {"sync": []}), ("rules", {}), ("rules", [{}])])
def test_a_broken_policy_is_no_filter(key: str, value: object) -> None:
    with pytest.raises((TypeError, KeyError)):
        seccomp.assemble({**POLICY, key: value})
