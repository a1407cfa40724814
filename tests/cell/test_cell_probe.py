"""What is said when no cell can be made, and which bubblewrap is taken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from anvil.cell import kernel, probe, program, run
from anvil.errors import CellUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from anvil.cell.spec import CellSpec, Outcome
    from tests.cell.cell_lab import Lab


@pytest.fixture
def sysctl(tmp_path: Path) -> Path:
    """A /proc/sys of one's own."""
    for name in ("user", "kernel"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_parser"),
    ],
)
def test_a_kernel_that_forbids_user_namespaces(
    sysctl: Path, name: str, value: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    probe.refuse_if_forbidden("/usr/bin/bwrap", sysctl)
    (sysctl / name).write_text(f"{value}\n")
    with pytest.raises(CellUnavailable) as caught:
        probe.refuse_if_forbidden("/usr/bin/bwrap", sysctl)
    assert mend in caught.value.hint
    if "apparmor" in name:
        assert "profile anvil-cell /usr/bin/bwrap" in caught.value.detail


@pytest.mark.cell
def test_here_cells_can_be_made(lab: Lab) -> None:
    folder = lab.folder()
    spec = lab.spec(folder, "")  # only for the image's place, which the ordinary user is shown
    ability = lab.apart(lambda: probe.available(spec.rootfs, folder), specs=(spec,))
    assert ability.overlay
    assert ability.fence in ({"watchdog"} if not lab.root else {"cgroup1", "cgroup2", "watchdog"})
    assert os.listdir(folder) == []


@pytest.mark.cell
def test_an_overlay_that_the_kernel_refuses_is_named(root_lab: Lab) -> None:
    def weaken() -> None:
        vars(kernel)["mount"] = refuse

    real = kernel.mount

    def refuse(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
        if kind == "overlay":
            raise PermissionError(1, "Operation not permitted", target)
        real(source, target, kind, flags, data)

    folder = root_lab.folder()
    ability = root_lab.apart(lambda: probe.available(root_lab.rootfs, folder), weaken=weaken)
    assert not ability.overlay
    with pytest.raises(CellUnavailable, match="overlay of 1 trees"):
        root_lab.cell("true", lower=(root_lab.tree({}),), weaken=weaken)


@pytest.mark.cell
def test_a_machine_without_overlays_in_user_namespaces_is_told(root_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run.run

    def no_overlay(spec: CellSpec, log: Path) -> Outcome:
        if spec.work and spec.work.lower:
            raise CellUnavailable("the cell could not be made", detail="bwrap: Can't make overlay mount on /work")
        return real(spec, log)

    monkeypatch.setattr(run, "run", no_overlay)
    assert not probe.available(root_lab.rootfs, root_lab.folder()).overlay


def _fake(folder: Path, version: str) -> Path:
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\necho bubblewrap {version}\n")
    path.chmod(0o755)
    return path


def test_an_old_one_that_was_asked_for_is_refused(tmp_path: Path) -> None:
    program.version.cache_clear()
    with pytest.raises(CellUnavailable, match="too old"):
        program.find(tmp_path, _fake(tmp_path, "0.10.9"))


def test_a_recent_one_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    program.version.cache_clear()
    fake = _fake(tmp_path, "0.11.0")
    assert program.find(tmp_path, fake).words == (fake,)


def test_the_hosts_is_taken_only_if_recent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    image = tmp_path / "image"
    for name in ("lib64/ld-linux-x86-64.so.2", "usr/bin/bwrap"):
        path = image / name
        path.parent.mkdir(parents=True)
        path.touch()
    for version, words in (("0.11.2", 1), ("0.9.0", 4)):
        program.version.cache_clear()
        program.of_host.cache_clear()
        _fake(tmp_path, version)
        assert len(program.find(image).words) == words
    program.of_host.cache_clear()
    program.version.cache_clear()


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    program.of_host.cache_clear()
    with pytest.raises(CellUnavailable, match="no bubblewrap") as caught:
        program.find(tmp_path)
    assert "install bubblewrap" in caught.value.hint
    program.of_host.cache_clear()
