"""Run a command under a seccomp filter like a container's: no process below it can make a user namespace.

The filter is classic BPF (seccomp(2), ``linux/filter.h``) over x86-64's numbers: unshare and clone with CLONE_NEWUSER
fail with EPERM, clone3, whose flags a filter cannot see, with ENOSYS.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_LOAD, _EQUAL, _ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_CLONE, _UNSHARE, _CLONE3 = 56, 272, 435
_NEWUSER = 0x10000000
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38

_PROGRAM = (
    (_LOAD, 0, 0, 0),  # the call's number
    (_EQUAL, 0, 1, _CLONE3),
    (_RETURN, 0, 0, _ENOSYS),
    (_EQUAL, 2, 0, _CLONE),
    (_EQUAL, 1, 0, _UNSHARE),
    (_RETURN, 0, 0, _ALLOW),
    (_LOAD, 0, 0, 16),  # the low half of its first argument
    (_ANY, 0, 1, _NEWUSER),
    (_RETURN, 0, 0, _EPERM),
    (_RETURN, 0, 0, _ALLOW),
)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def main() -> None:
    """Become the command of the arguments, filtered."""
    code = b"".join(struct.pack("HBBI", *each) for each in _PROGRAM)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(_Filter(length=len(_PROGRAM), program=code)), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
