"""Cells with pipes: for a serial console, and for the evaluation of recipes."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from anvil.cell import run
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from anvil.cell.spec import Outcome
    from tests.cell.cell_lab import Lab, Without

pytestmark = pytest.mark.cell


def test_a_dialogue(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, 'echo oops >&2; while read -r line; do echo "got $line"; [ $line != end ] || exit 4; done')

    def task() -> tuple[list[bytes], Outcome | None, str]:
        heard = []
        with run.start(spec, folder / "log") as cell:
            for word in (b"one\n", b"end\n"):
                os.write(cell.stdin, word)
                select.select([cell.stdout], [], [], 20)
                heard.append(cell.read(100))
                assert cell.pid > 0
            outcome = cell.wait(20)
            return heard, outcome, cell.complaint()

    heard, outcome, complaint = lab.apart(task, specs=(spec,))
    assert heard == [b"got one\n", b"got end\n"]
    assert outcome.exit_code == 4
    assert complaint == "oops"


def test_leaving_the_block_ends_the_cell(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, "sleep 60")

    def task() -> bool:
        with run.start(spec, folder / "log") as cell:
            assert cell.wait(0.3) is None
            pid = cell.pid
        return os.path.exists(f"/proc/{pid}")

    assert lab.apart(task, specs=(spec,)) is False


def test_bytes_in_bytes_out(lab: Lab) -> None:
    data = os.urandom(300_000)
    folder = lab.folder()
    spec = lab.spec(folder, "cat; echo bad >&2", stdin=data)
    outcome, said = lab.apart(lambda: run.exchange(spec, folder / "log", cap=1 << 20), specs=(spec,))
    assert outcome.ok
    assert said == data
    assert (folder / "log").read_text() == "bad\n"


def test_too_many_bytes_out(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, "yes", stdin=b"")
    outcome, said = lab.apart(lambda: run.exchange(spec, folder / "log", cap=100_000), specs=(spec,))
    assert outcome.reason == "output"
    assert len(said) == 100_000
    spec = lab.spec(lab.folder(), "echo more", stdin=b"")
    outcome, said = lab.apart(lambda: run.exchange(spec, folder / "log", cap=3), specs=(spec,))
    assert (outcome.reason, said) == ("output", b"mor")


def test_waiting_for_one_that_has_closed_its_output_costs_nothing(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, "echo out; exec >&-; sleep 1", stdin=b"")

    def task() -> tuple[Outcome, bytes, float]:
        outcome, said = run.exchange(spec, folder / "log", cap=1000)
        return outcome, said, time.process_time()

    outcome, said, busy = lab.apart(task, specs=(spec,))
    assert (outcome.reason, said) == ("exit", b"out\n")
    assert busy < 0.5


def test_an_exchange_can_be_cancelled(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, "sleep 60", stdin=b"")
    outcome, _ = lab.apart(lambda: run.exchange(spec, folder / "log", cap=10, cancel=lambda: True), specs=(spec,))
    assert outcome.reason == "cancelled"


def test_standard_input_is_empty_or_given_and_read_only(lab: Lab) -> None:
    assert lab.cell("cat; readlink /proc/self/fd/0").text == "/dev/null\n"
    result = lab.cell("cat; ! { echo x >/proc/self/fd/0; } 2>/dev/null", stdin=b"given")
    assert result.outcome.ok
    assert result.text == "given"


def test_only_three_descriptors_and_no_way_back_through_them(lab: Lab, without: type[Without]) -> None:
    """Every descriptor of the command and of the cell's first process, and none of a file of the host's."""
    script = "ls -l /proc/self/fd /proc/1/fd | grep -o -- '-> .*' | sort -u"

    def kinds(text: str) -> set[str]:
        found = {line.removeprefix("-> ").split("[")[0].split(":")[0] for line in text.splitlines()}
        return {kind for kind in found if not (kind.startswith("/proc/") and kind.endswith("/fd"))}  # ls itself

    def uncovered() -> None:
        for act in ("tmpfs", "freeze"):
            without.operation(act, "/proc/1")()

    assert kinds(lab.cell(script.replace("/proc/1/fd", "")).text) == {"/dev/null", "pipe"}
    assert "cannot access" in lab.cell("ls /proc/1/fd 2>&1 || true").text
    assert kinds(lab.cell(script, weaken=uncovered).text) == {"/dev/null", "pipe", "anon_inode"}


def test_the_log_may_not_be_a_link(lab: Lab) -> None:
    folder = lab.folder()
    os.symlink("/etc/passwd", folder / "log")
    with pytest.raises((OSError, CellUnavailable)):
        lab.apart(lambda: run.run(lab.spec(folder, "true"), folder / "log"))
