"""What a punched card left: layers in the vault, and the facts a face shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

Data = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LayerRef:
    """A layer in the vault: its manifest's digest, and that of its file times (which is no part of any key)."""

    digest: Digest
    times: Digest


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of one card.

    stack: the layers that make its work tree, its own first. out: what it left in /out. log: the log's digest.
    milliseconds: how long it took when it ran. facts: what only its operation says (a boot verdict, a judgement).
    """

    stack: tuple[LayerRef, ...] = ()
    out: LayerRef | None = None
    log: str = ""
    milliseconds: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_data(self) -> Data:
        """As the data of MicroJSON message 202."""
        return {
            "stack": [[layer.digest, layer.times] for layer in self.stack],
            "out": [self.out.digest, self.out.times] if self.out else [],
            "log": self.log,
            "ms": self.milliseconds,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_data(cls, data: Data) -> StepResult:
        """The inverse of ``as_data``."""
        layers = [LayerRef(digest=Digest(digest), times=Digest(times)) for digest, times in data["stack"]]
        out = LayerRef(digest=Digest(data["out"][0]), times=Digest(data["out"][1])) if data["out"] else None
        return cls(stack=tuple(layers), out=out, log=data["log"], milliseconds=data["ms"], facts=data["facts"])
