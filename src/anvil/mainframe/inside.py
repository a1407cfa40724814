"""What is different in the artifacts of two sides: file by file, into archives and images, opened in cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anvil.errors import UsageError
from anvil.mainframe.check_compare import Comparison, Difference, Making
from anvil.mainframe.context import Context
from anvil.mainframe.graph import Graph, Node, NodeRef, StepRef
from anvil.mainframe.images import ensure_image
from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anvil.mainframe.results import StepResult
    from anvil.mainframe.services import Services
    from anvil.mainframe.sides import Product, Side, Sides


@dataclass(frozen=True, kw_only=True)
class Inside:
    """Opens and compares. pause: called often; raises to stop."""

    services: Services
    found: Sides
    pause: Callable[[], None]

    def run(self) -> Iterator[tuple[str, Difference]]:
        """Every difference, by artifact; what is met again in another artifact is only named there."""
        comparison = self._comparison()
        for name, (one, two) in self.found.products.items():
            if one and two and one.sha256 != two.sha256:
                for product in (one, two):
                    self._put(product)
                node = self._node(two.card or one.card)
                whole = Difference(
                    card=node.id,
                    tree="artifact",
                    path=(name,),
                    what="bytes",
                    first=one.sha256,
                    second=two.sha256,
                    sizes=(one.size, two.size),
                )
                for each in comparison.told(node, whole):
                    yield name, each

    def _put(self, product: Product) -> None:
        """Have an artifact's bytes in the vault. Raises UsageError when there are none."""
        vault, digest = self.services.vault, Digest(product.sha256)
        if vault.has(digest):
            return
        if product.file is None:
            raise UsageError(
                f"the bytes of {product.card} are not kept any more",
                hint="leave out what is in the artifacts: anvil diff --quick; or forge that state again",
            )
        vault.put_file(product.file, expect=digest)

    def _node(self, card: str) -> Node:
        """A release card, with what can open an image that only a kernel can read."""
        ensure_image(self.services, "machine", lambda _data: self.pause())
        image = self.services.image_locks["machine"][0]
        return Node(id=card, recipe=card.partition("/")[0], op="release", image=image, inputs=self._opener())

    def _opener(self) -> dict[str, NodeRef]:
        """The kernel and the initrd of either side that a recipe names for this, else those that made an image."""
        for op in ("release", "forge"):
            for side in (self.found.two, self.found.one):
                for card in side.cards.values():
                    if card.identity is None or card.identity.body["op"] != op:
                        continue
                    origins = card.identity.origins["inputs"]
                    steps = {name: origins.get(name, {}).get("step") for name in ("kernel", "initrd")}
                    if all(step and _is_there(side, step[0]) for step in steps.values()):
                        return {
                            name: StepRef(node=step[0], tree=step[1], path=step[2]) for name, step in steps.items()
                        }
        return {}

    def _comparison(self) -> Comparison:
        making = Making(services=self.services, graph=Graph(wanted="", nodes={}, recipes=()), results={})
        return Comparison(first=making, second=making, context=self._context, stop_if_asked=self.pause)

    def _context(self, node: Node) -> Context:
        return Context(
            services=self.services,
            node=node,
            results={**_results(self.found.one), **_results(self.found.two)},
            report=lambda _data: None,
            tick=self._tick,
            log=self.services.home.logs / "diff.log",
        )

    def _tick(self) -> bool:
        self.pause()
        return False


def _is_there(side: Side, card: str) -> bool:
    return card in side.cards and side.cards[card].result is not None


def _results(side: Side) -> dict[str, StepResult]:
    return {name: card.result for name, card in side.cards.items() if card.result is not None}
