"""Which lines of a log are picked out, and which are not."""

from __future__ import annotations

import pytest

from anvil.mainframe.symptoms import MOST_LINES, pick, script_line


@pytest.mark.parametrize(
    "line",
    [
        "hello.c:2:25: error: 'missing' undeclared (first use in this function)",
        "main.c:1:10: fatal error: nothing.h: No such file or directory",
        "/bin/bash: line 3: frobnicate: command not found",
        "cp: cannot stat '/in/none': No such file or directory",
        "ld: main.o: in function `main': main.c:(.text+0x5): undefined reference to `nobody'",
        "/usr/bin/ld: cannot find -lz: No such file or directory",
        "configure: error: C compiler cannot create executables",
        "make: *** No rule to make target 'all'.  Stop.",
        "/bin/bash: line 1: JOBS2: unbound variable",
        "Traceback (most recent call last):",
        "ValueError: bad",
        "1 out of 2 hunks FAILED -- saving rejects to file a.c.rej",
        "Segmentation fault (core dumped)",
        "tar: This does not look like a tar archive: Error: no",
    ],
)
def test_a_line_that_tells_is_picked(line: str) -> None:
    assert [(found.line, found.text) for found in pick(["quiet", line, "quiet"])] == [(2, line)]


@pytest.mark.parametrize(
    "line",
    [
        "a.c:3:1: warning: unused variable 'error' [-Wunused]",
        "gcc -Werror -o error.o error.c",
        "checking for fatal error: handling... no",
        "  CC      lib/error.o",
        "a.c:5:3: note: in expansion of macro",
        "built with 0 errors",
    ],
)
def test_a_line_that_only_sounds_so_is_not(line: str) -> None:
    assert pick([line]) == ()


def test_make_is_quoted_only_when_nothing_else_tells() -> None:
    echo = "make[2]: *** [Makefile:10: all] Error 2"
    assert [symptom.text for symptom in pick(["x", echo])] == [echo]
    assert [symptom.text for symptom in pick(["a.c:1:1: error: no", echo])] == ["a.c:1:1: error: no"]


def test_of_many_the_first_and_the_last_are_told() -> None:
    found = pick(f"a.c:{n}:1: error: no {n}" for n in range(1000))
    assert len(found) == MOST_LINES
    assert [symptom.line for symptom in found] == [1, 2, 3, 4, 5, 6, 7, 1000]


def test_the_line_of_the_script_is_found() -> None:
    script = "\ncd nowhere\nfrobnicate\n"
    assert script_line(["/bin/bash: line 3: frobnicate: command not found"], script) == (3, "frobnicate")
    assert script_line(["/bin/bash: line 99: far away"], script) == (0, "")
    assert script_line(["nothing"], script) == (0, "")
