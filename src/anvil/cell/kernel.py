"""The few system calls that Python 3.11 lacks, as functions that raise OSError.

``PyDLL`` is used on purpose: these calls are made in a child between fork and exec, where the interpreter lock must
neither be released nor taken.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_PARENT = 0x00008000
CLONE_NEWTIME = 0x00000080
CLONE_NEWUTS = 0x04000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CLONE = 56
_SIGCHLD = 17

_libc = ctypes.PyDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    """Leave some of this process's namespaces; flags: CLONE_NEW*."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace of the given kind that ``fd`` names."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or bind or change a mount; the arguments are the system call's."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _checked(result, f"mount {target}")


def die_with_parent(signal: int) -> None:
    """Have the kernel send ``signal`` to this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def own_proc() -> None:
    """Mount a /proc of this process namespace in a mount namespace of its own.

    bubblewrap looks its child up by the number that it sees, which the host's /proc gives to somebody else or nobody.
    """
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def own_proc_files() -> None:
    """Make /proc/self this uid's again: after a change of uid it belongs to root until the next exec."""
    _prctl(_PR_SET_DUMPABLE, 1)


def no_new_privileges() -> None:
    """Set-id bits and file capabilities mean nothing to this process and its children from now on."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero), "prctl")


def fork_sibling() -> int:
    """fork, but the child's parent is this process's parent. Only for a single-threaded process about to end."""
    zero = ctypes.c_ulong(0)
    flags = ctypes.c_ulong(CLONE_PARENT | _SIGCHLD)
    return _checked(_libc.syscall(ctypes.c_long(_SYS_CLONE), flags, zero, zero, zero, zero), "clone")
