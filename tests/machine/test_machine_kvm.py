"""The KVM probe: what it boots, and that its answer is remembered."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from anvil.machine import kvm
from anvil.machine.machine import Place

if TYPE_CHECKING:
    from pathlib import Path


def test_the_probes_initrd_is_a_cpio_archive_with_a_static_elf() -> None:
    data = kvm.probe_initrd()
    assert data[:6] == b"070701"
    size = int(data[54:62], 16)
    assert data[110:115] == b"init\0"
    start = 110 + 6  # the name's padding to four bytes
    elf = data[start : start + size]
    assert elf[:6] == b"\x7fELF\x02\x01"
    kind, machine, _, entry, headers = struct.unpack_from("<HHIQQ", elf, 16)
    assert (kind, machine, headers) == (2, 62, 64)
    load, flags, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", elf, headers)
    assert (load, flags, offset, in_file, in_memory) == (1, 5, 0, len(elf), len(elf))
    assert entry == address + 120
    assert elf.endswith(b"ANVIL KVM GUEST RUNS\n")
    # The lea finds the words: they begin where the code ends.
    lea = elf.index(b"\x48\x8d\x35")
    (reach,) = struct.unpack_from("<i", elf, lea + 3)
    assert elf[lea + 7 + reach :] == b"ANVIL KVM GUEST RUNS\n"
    assert b"TRAILER!!!" in data[start + size :]


@pytest.mark.parametrize(
    ("known", "runs", "answer"), [("", True, "kvm"), ("", False, "tcg"), ("nonsense", False, "tcg")]
)
def test_what_is_not_known_is_probed_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str, runs: int, answer: str
) -> None:
    monkeypatch.setattr(kvm, "kvm_runs", lambda *_args, **_more: bool(runs))
    told: list[str] = []
    place = Place(image=tmp_path)
    found = kvm.accelerator(place, kernel=tmp_path, scratch=tmp_path, recall=lambda: known, remember=told.append)
    assert (found, told) == (answer, [answer])


@pytest.mark.parametrize("known", ["kvm", "tcg"])
def test_what_is_remembered_is_not_probed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str) -> None:
    def never(*_args: object, **_more: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(kvm, "kvm_runs", never)
    place = Place(image=tmp_path)
    assert kvm.accelerator(place, kernel=tmp_path, scratch=tmp_path, recall=lambda: known, remember=print) == known


def test_no_device_node_is_no_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_args: False)
    assert not kvm.kvm_runs(Place(image=tmp_path), kernel=tmp_path, scratch=tmp_path)
