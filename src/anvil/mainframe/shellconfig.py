r"""The difference between two Kconfig configurations, as a fragment. Pure, and strict: both texts come out of a cell.

Format: the kernel's Documentation/kbuild/kconfig-language.rst and ``conf_write`` of scripts/kconfig/confdata.c. A line
is ``CONFIG_NAME=value``, ``# CONFIG_NAME is not set``, another comment, or empty. A value is y, m or n, a number,
a hexadecimal one, or a text in double quotes in which a backslash stands before ``"`` and ``\``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anvil.errors import OutputForbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_BYTES = 4 * 1024 * 1024
"""More than ten times the configuration of a distribution's kernel."""

_LINE_BYTES = 4096
_SET = re.compile(r'CONFIG_([A-Za-z0-9_]{1,128})=([ymn]|-?[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,16}|"(?:[^"\\]|\\["\\])*")')
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]{1,128}) is not set")
_PRINTABLE = re.compile(r"[\x20-\x7e\t]*")

_OF_THE_TOOLS = re.compile(r"(CC|GCC|CLANG|AS|LD|LLD|RUSTC|PAHOLE)_(VERSION|VERSION_TEXT)|.*_LLVM_VERSION")
"""Options whose value Kconfig reads from the compiler and its kin: nobody's choice."""


def parse_config(data: bytes) -> dict[str, str]:
    """The options of a ``.config`` in their order: name (without CONFIG_) to value; "n" for those that are not set.

    Raises OutputForbidden, with the line, for a text that is none.
    """
    if len(data) >= CONFIG_BYTES:
        raise OutputForbidden(f"the configuration has more than {CONFIG_BYTES // 1024**2} MiB", where=".config")
    options: dict[str, str] = {}
    for number, raw in enumerate(data.split(b"\n"), start=1):
        line = raw.decode("ascii", errors="replace")
        where = f".config, line {number}"
        if len(raw) > _LINE_BYTES or not _PRINTABLE.fullmatch(line):
            raise OutputForbidden("a line of the configuration is too long, or not plain ASCII", where=where)
        if found := _SET.fullmatch(line):
            options[found[1]] = found[2]
        elif found := _UNSET.fullmatch(line):
            options[found[1]] = "n"
        elif line and not line.startswith("#"):
            raise OutputForbidden(f"this is no line of a configuration: {line[:80]!r}", where=where)
    return options


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The options that must be set so that ``before`` becomes ``after``.

    One that is not there any more (what it depends on was turned off) is told as "n" if it was y or m; a number or a
    text without its option means nothing.
    """
    changed = {name: value for name, value in after.items() if before.get(name, "n") != value}
    changed |= {name: "n" for name, value in before.items() if name not in after and value in {"y", "m"}}
    return {name: value for name, value in changed.items() if not _OF_THE_TOOLS.fullmatch(name)}


def fragment(changed: Mapping[str, str], *, title: str) -> str:
    """A fragment's text. title: for its first line, a comment."""
    lines = [
        f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}" for name, value in changed.items()
    ]
    return "".join(f"{line}\n" for line in (f"# {title}", *lines))
