"""The jobservers: tokens are shared fairly, taken back, and never multiplied."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from anvil.cell import run
from anvil.cell.jobserver import JobServer, make_fifo
from tests.cell.cell_lab import SMALL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cell.cell_lab import Lab


class Make:
    """Stands for a make: takes tokens from a FIFO and gives them back."""

    def __init__(self, fifo: Path) -> None:
        self.fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self.held = 0

    def take(self, most: int = 1000) -> int:
        try:
            got = len(os.read(self.fd, most))
        except BlockingIOError:
            got = 0
        self.held += got
        return got

    def give(self, count: int) -> None:
        os.write(self.fd, b"+" * count)
        self.held -= count


def _add(server: JobServer, folder: Path, name: str, *, background: bool = False) -> Make:
    path = folder / name
    make_fifo(path, owner=None)
    server.add(name, path, background=background)
    return Make(path)


def test_cells_in_the_background_cost_the_others_nothing_and_inherit_all(tmp_path: Path) -> None:
    server = JobServer(4)
    behind = _add(server, tmp_path, "behind", background=True)
    assert behind.take() == 3  # there is nobody else
    behind.give(3)
    front = _add(server, tmp_path, "front")
    assert behind.take() == 0
    assert front.take() == 3
    server.tick()
    front.give(3)
    server.remove("front")
    assert behind.take() == 3


def test_one_cell_gets_all_but_its_first(tmp_path: Path) -> None:
    server = JobServer(4)
    make = _add(server, tmp_path, "a")
    assert make.take() == 3
    server.tick()
    assert make.take() == 0
    assert server.held("a") == 3
    make.give(3)
    server.tick()
    assert server.held("a") == 0
    assert make.take() == 3
    server.close()


def test_a_second_cell_gets_its_share_as_tokens_come_back(tmp_path: Path) -> None:
    server = JobServer(6)
    first = _add(server, tmp_path, "a")
    assert first.take() == 5
    second = _add(server, tmp_path, "b")
    assert second.take() == 0
    for _ in range(8):
        if first.held > 2:
            first.give(1)
        server.tick()
        second.take()
        first.take()
    assert (first.held, second.held) == (2, 2)
    server.remove("a")
    server.tick()
    second.take()
    assert second.held == 5
    server.close()


def test_an_idle_cell_can_always_begin(tmp_path: Path) -> None:
    server = JobServer(6)
    busy, idle = _add(server, tmp_path, "a"), _add(server, tmp_path, "b")
    for _ in range(5):
        busy.take()
        server.tick()
    assert busy.held == 3
    assert idle.take() == 1
    server.close()


def test_forged_tokens_never_reach_another_cell(tmp_path: Path) -> None:
    server = JobServer(4)
    forger, honest = _add(server, tmp_path, "a"), _add(server, tmp_path, "b")
    for _ in range(5):
        os.write(forger.fd, b"x" * 3000)
        server.tick()
        honest.take()
    assert honest.held <= 2
    forger.take()
    assert forger.held <= 2
    server.close()


def test_a_full_fifo_does_not_block(tmp_path: Path) -> None:
    server = JobServer(4)
    forger = _add(server, tmp_path, "a")
    with contextlib.suppress(BlockingIOError):
        while os.write(forger.fd, b"x" * 4096):
            pass
    server.tick()
    server.close()


def test_more_cells_than_jobs(tmp_path: Path) -> None:
    server = JobServer(1)
    makes = [_add(server, tmp_path, name) for name in "abc"]
    server.tick()
    assert sum(make.take() for make in makes) == 0
    server.remove("no such cell")
    server.close()


@pytest.mark.cell
def test_two_real_makes_share_the_machine(lab: Lab) -> None:
    """Each job notes when it begins and ends; never more than the total run, and each cell gets its part."""
    jobs = "".join(f"j{i}:\n\t@date +'begin %s%N'; sleep 0.15; date +'end %s%N'\n" for i in range(24))
    makefile = "all: " + " ".join(f"j{i}" for i in range(24)) + "\n" + jobs
    tree = lab.tree({"Makefile": makefile})
    folders = [lab.folder() for _ in range(2)]
    specs = [
        replace(lab.spec(folder, "make --version | head -1 >&2; make 2>&1", lower=(tree,)), limits=SMALL)
        for folder in folders
    ]

    def task() -> int:
        server = JobServer(4)
        cells = []
        for number, (spec, folder) in enumerate(zip(specs, folders, strict=True)):
            fifo = folder / "jobs"
            make_fifo(fifo, owner=lab.cell_uid if lab.root else None)
            server.add(str(number), fifo)
            object.__setattr__(spec, "jobserver", fifo)
            cells.append(run._started(spec, log=folder / "log", streams=False))
        running = dict(enumerate(cells))
        while running:
            for number, cell in list(running.items()):
                if outcome := cell.tick(0.02):
                    assert outcome.ok, (folders[number] / "log").read_text()
                    server.remove(str(number))
                    del running[number]
            server.tick(patience=0.01)
        for cell in cells:
            cell.close()
        server.close()
        return 0

    began = time.monotonic()
    lab.apart(task, specs=tuple(specs))
    took = time.monotonic() - began
    logs = [(folder / "log").read_text() for folder in folders]
    assert all("jobserver" not in log for log in logs), logs
    assert took < 24 * 0.15 * 2  # not one after the other
    assert _most_at_once(logs) <= 4
    assert min(_most_at_once([log]) for log in logs) >= 2


def _most_at_once(logs: list[str]) -> int:
    """The largest number of jobs that ran at one moment; each prints "begin" or "end", and the time."""
    events = []
    for log in logs:
        for line in log.splitlines():
            match line.split():
                case ["begin", stamp]:
                    events.append((int(stamp), 1))
                case ["end", stamp]:
                    events.append((int(stamp), -1))
    assert len(events) == 48 * len(logs)
    most = now = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return most
