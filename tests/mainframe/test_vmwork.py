"""What was learned of KVM from one guest is not believed for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from anvil.machine.verdict import BootVerdict
from anvil.mainframe import vmwork

if TYPE_CHECKING:
    from anvil.machine.spec import Accelerator
    from anvil.machine.verdict import Reason
    from anvil.mainframe.services import Services


class Known:
    """What the services know of the accelerator."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.known = accelerator

    def accelerator(self) -> Accelerator:
        return self.known

    def distrust_kvm(self) -> None:
        self.known = "tcg"


@pytest.mark.parametrize(
    ("known", "ends", "tried", "after"),
    [
        ("tcg", {"tcg": "seen"}, ["tcg"], "tcg"),
        ("tcg", {"tcg": "ended"}, ["tcg"], "tcg"),
        ("kvm", {"kvm": "seen"}, ["kvm"], "kvm"),
        ("kvm", {"kvm": "timeout", "tcg": "seen"}, ["kvm", "tcg"], "tcg"),  # it was not to be believed
        ("kvm", {"kvm": "panic", "tcg": "panic"}, ["kvm", "tcg"], "kvm"),
        ("kvm", {"kvm": "cancelled"}, ["kvm"], "kvm"),
        ("kvm", {"kvm": "disk"}, ["kvm"], "kvm"),
    ],
)
def test_a_guest_that_fails_under_kvm_is_tried_without(
    known: Accelerator, ends: dict[Accelerator, Reason], tried: list[Accelerator], after: Accelerator
) -> None:
    services, attempts = Known(known), list[str]()

    def attempt(accelerator: Accelerator) -> BootVerdict:
        attempts.append(accelerator)
        reason = ends[accelerator]
        return BootVerdict(
            ok=reason == "seen", reason=reason, line="", seconds=1, firmware="bios", attach=None,
            accelerator=accelerator,
        )  # fmt: skip

    verdict = vmwork.as_the_host_can(cast("Services", services), attempt)
    assert (attempts, services.known, verdict.accelerator) == (tried, after, tried[-1])
