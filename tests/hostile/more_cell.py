"""Attacks of our own on the cell: its first process, and the way of work without an overlay (trees are copied)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anvil.mainframe import cellwork, images
from anvil.vault import plant
from tests.cell.cell_lab import Without
from tests.hostile import cards_host, cards_output
from tests.hostile.attack import CONTAINED, Attack
from tests.hostile.controls import without

if TYPE_CHECKING:
    from anvil.mainframe.services import Services
    from anvil.model.layer import Entry
    from tests.hostile.attack import Seen, Wire
    from tests.hostile.ground import Ground

FIRST_PROCESS = r"""
python3 - <<'END'
import os
for path, flags in (("/proc/1/mem", os.O_RDWR), ("/proc/1/task/1/mem", os.O_RDWR), ("/proc/1/auxv", os.O_RDONLY),
                    ("/proc/1/environ", os.O_RDONLY), ("/proc/1/maps", os.O_RDONLY), ("/proc/1/root/etc", os.O_RDONLY),
                    ("/proc/1/fd/1", os.O_WRONLY), ("/proc/1/comm", os.O_WRONLY)):
    try:
        os.close(os.open(path, flags))
        print("HIT", path)
    except OSError:
        pass
END
if grep -qs rootfs /proc/1/cmdline; then echo HIT paths of the host; fi
echo TRIED
"""

WRITE_THROUGH = """
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
a = r.run("a", None, "echo good >f; mkdir d; echo good >d/g")
b = r.run("b", a, "echo evil >f; echo evil >>d/g; rm d/g; ln f d/g; chmod 777 f || true; echo done >/out/done")
c = r.run("c", a, "if grep -r evil .; then echo HIT another tree has changed; fi; echo TRIED", inputs={"b": b.out})
"""


def uncovered() -> None:
    """Process 1 is seen."""
    for act in ("tmpfs", "freeze"):
        Without.operation(act, "/proc/1")()


def no_overlay() -> None:
    """As on a machine where trees cannot be laid over each other."""
    real = images.ability

    def ability(services: Services) -> Any:
        return replace(real(services), overlay=False)

    vars(cellwork)["ability"] = ability


def copying(ground: Ground, attack: Attack, wire: Wire) -> Seen:
    """The attack where trees are copied."""
    return ground.forge(attack, wire, weaken=(no_overlay,))


def linked_trees() -> None:
    """Trees are made of hard links to the vault's own files, as a quick copy would be."""
    no_overlay()

    def file(self: plant._Planter, parent: int, name: str, entry: Entry) -> None:
        blob = self.vault.path(entry.sha256)
        os.chmod(blob, 0o666)
        os.link(blob, name, dst_dir_fd=parent)

    plant._Planter._file = file  # type: ignore[method-assign]


def copied(name: str, attacks: tuple[Attack, ...]) -> Attack:
    """One of the attacks, where trees are copied."""
    attack = next(attack for attack in attacks if attack.name == name)
    recipe = attack.recipe.replace("@NAME@", f"copied-{name}")
    return replace(attack, name=f"copied-{name}", recipe=recipe, attempt=copying)


ATTACKS = (
    Attack(
        name="reach-into-process-one", script=FIRST_PROCESS, verdict=CONTAINED, control=without(uncovered),
    ),
    Attack(
        name="copied-write-through-to-another-tree", recipe=WRITE_THROUGH, verdict=CONTAINED, attempt=copying,
        control=without(linked_trees, fresh=True),
    ),
    *(
        copied(name, cards_output.ATTACKS)
        for name in (
            "release-an-absolute-link", "read-through-links-in-the-next-card", "hard-link-to-an-input",
            "leave-a-fifo-in-the-work-tree", "a-wildly-wrong-clock", "change-it-afterwards", "a-name-with-a-newline",
        )
    ),
    copied("leave-set-uid-files", cards_host.ATTACKS),
)  # fmt: skip
