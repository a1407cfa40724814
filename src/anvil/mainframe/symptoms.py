"""The lines of a log that are likely to say why it ended badly. Pure.

A guess, for a person in a hurry: the whole log is always one command away.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_LINES = 8
LINE_CHARACTERS = 500

_TELLING = re.compile(
    r"""
    (?:^|[\s:])(?:fatal\ )?error(?:\[\w+\])?:     # gcc, clang, ld, rustc, configure, tar
    | \bundefined\ reference\b | \bcannot\ find\ -l | \bmultiple\ definition\ of\b | \bundefined\ symbol\b
    | \bNo\ such\ file\ or\ directory\b | \bcommand\ not\ found\b | \bPermission\ denied\b | \bNo\ space\ left\b
    | \bIs\ a\ directory\b | \bNot\ a\ directory\b | \bFile\ exists\b | \bRead-only\ file\ system\b
    | \bNo\ rule\ to\ make\ target\b | \bunbound\ variable\b | \bsyntax\ error\b | \bSyntaxError\b
    | \bSegmentation\ fault\b | \bOut\ of\ memory\b | \bcannot\ allocate\ memory\b | \bKilled\b | \bpanic\b
    | ^Traceback\ \(most | ^\w*(?:Error|Exception):\ | \bHunk\ \#\d+\ FAILED\b | \bFAILED\b | \bassertion\b.*\bfailed\b
    | \bfailed\ to\b | \bcannot\ (?:open|stat|create|access|execute)\b | \bchecksum\b.*\b(?:mismatch|failed)\b
    | \bis\ not\ set\ as\ asked\b | \bwanted\b.*\bbut\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ECHO = re.compile(r"^g?make(?:\[\d+\])?: |ninja: build stopped|collect2: error: ld returned")
"""What only says that something below it failed: told when nothing else is."""

_HARMLESS = re.compile(r"\bwarning\b|\bnote:|-Werror|\b0 errors?\b|checking (?:for|whether)", re.IGNORECASE)
_BASH_LINE = re.compile(r"^(?:/bin/)?(?:bash|/tmp/card\.sh): line (\d+):")


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """A telling line of a log. line: its number, from 1."""

    line: int
    text: str


def pick(lines: Iterable[str]) -> tuple[Symptom, ...]:
    """The first telling lines of a log and its last one, at most MOST_LINES, in their order, each text once."""
    first: dict[str, Symptom] = {}
    last: deque[Symptom] = deque(maxlen=1)
    echoes: deque[Symptom] = deque(maxlen=2)
    for number, line in enumerate(lines, start=1):
        text = line.strip("\r\n")[:LINE_CHARACTERS]
        if _ECHO.search(text):
            if "***" in text or "stopped" in text or "ld returned" in text:
                echoes.append(Symptom(line=number, text=text))
        elif _TELLING.search(text) and not _HARMLESS.search(text) and text not in first:
            symptom = Symptom(line=number, text=text)
            if len(first) < MOST_LINES - 1:
                first[text] = symptom
            else:
                last.append(symptom)
    return (*first.values(), *last) or tuple(echoes)


def script_line(lines: Iterable[str], script: str) -> tuple[int, str]:
    """The line of a card's script that bash complained about last: number and text; (0, "") when it named none."""
    number = 0
    for line in lines:
        if found := _BASH_LINE.match(line):
            number = int(found[1][:9])
    own = script.splitlines()
    return (number, own[number - 1].strip()) if 0 < number <= len(own) else (0, "")
