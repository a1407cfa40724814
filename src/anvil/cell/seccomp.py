"""The cell's system call filter: the list in ``seccomp.json``, assembled into classic BPF for bubblewrap.

Wrong architecture and the x32 numbers end the process; a call that is not listed fails with ENOSYS.
"""

from __future__ import annotations

import errno
import functools
import json
import struct
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

# classic BPF (linux/bpf_common.h): load a word, jump if equal, greater, greater or equal, mask, return
_LOAD, _JEQ, _JGT, _JGE, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06

# struct seccomp_data: nr, arch, instruction pointer (8 bytes), six arguments of 8 bytes, low word first
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16


@dataclass(frozen=True)
class Instruction:
    """One classic BPF instruction: code, jumps if true and false (counted from the next), operand."""

    code: int
    true: int
    false: int
    k: int


@functools.cache
def program() -> bytes:
    """The filter as an array of ``struct sock_filter``, ready for bubblewrap's ``--seccomp``."""
    text = resources.files("anvil.cell").joinpath("seccomp.json").read_text(encoding="utf-8")
    return encode(assemble(json.loads(text)))


def encode(instructions: Iterable[Instruction]) -> bytes:
    """Instructions as bytes."""
    return b"".join(struct.pack("=HBBI", i.code, i.true, i.false, i.k) for i in instructions)


def assemble(policy: Mapping[str, object]) -> list[Instruction]:
    """The filter of a policy of the form of ``seccomp.json``."""
    allow = _mapping(policy["allow"])
    code = [
        _load(_ARCH),
        Instruction(_JEQ, 1, 0, AUDIT_ARCH_X86_64),
        _return("kill"),
        _load(_NUMBER),
        Instruction(_JEQ, 0, 1, 0xFFFFFFFF),  # syscall(-1) is a mistake, not an x32 call
        _return("ENOSYS"),
        Instruction(_JGE, 0, 1, X32_BIT),
        _return("kill"),
    ]
    for call in _mapping(policy["fixed"]).values():
        fixed = _mapping(call)
        code += [Instruction(_JEQ, 0, 1, _int(fixed["number"])), _return(str(fixed["then"]))]
    for rule in _list(policy["rules"]):
        code += _rule(_mapping(rule))
    for first, last in ranges(_int(number) for number in allow.values()):
        code += [Instruction(_JGT, 3, 0, last), Instruction(_JGE, 0, 1, first), _return("allow"), _return("ENOSYS")]
    return [*code, _return("ENOSYS")]


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted runs (first, last) of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _rule(rule: Mapping[str, object]) -> list[Instruction]:
    """One system call judged by its arguments; falls through when the number is another (which stays loaded)."""
    body: list[Instruction] = []
    for case in _list(rule["cases"]):
        body += _case(_mapping(case))
    body.append(_return(str(rule["otherwise"])))
    return [Instruction(_JEQ, 0, len(body), _int(rule["number"])), *body]


def _case(case: Mapping[str, object]) -> list[Instruction]:
    conditions = [_condition(_mapping(condition)) for condition in _list(case["if"])]
    code = [_return(str(case["then"]))]
    for test, values in reversed(conditions):
        code = [*test, *_any_of(values, len(code)), *code]
    return code


def _condition(condition: Mapping[str, object]) -> tuple[list[Instruction], list[int]]:
    offset = _ARGUMENTS + 8 * _int(condition["argument"]) + (4 if condition.get("high") else 0)
    test = [_load(offset)]
    if "mask" in condition:
        test.append(Instruction(_AND, 0, 0, _int(condition["mask"])))
    return test, [_int(value) for value in _list(condition["in"])]


def _any_of(values: list[int], skip: int) -> list[Instruction]:
    """Continue if the loaded word is one of ``values``, else jump over ``skip`` instructions."""
    last = len(values) - 1
    return [Instruction(_JEQ, last - i, skip if i == last else 0, value) for i, value in enumerate(values)]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _return(verdict: str) -> Instruction:
    fixed = {"allow": ALLOW, "kill": KILL_PROCESS, "pretend": _ERRNO}
    value = fixed[verdict] if verdict in fixed else _ERRNO | int(getattr(errno, verdict))
    return Instruction(_RETURN, 0, 0, value)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("seccomp.json: an object was expected")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("seccomp.json: a list was expected")
    return value


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("seccomp.json: a number was expected")
    return value
