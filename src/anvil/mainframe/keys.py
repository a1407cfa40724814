"""Card keys: what a result is kept by.

The key is the sha256 of the canonical JSON of everything that can change what a card makes. Left out on purpose:

- id, recipe and deck: a renamed step makes the same bytes;
- memory, wall and expect: a card that ends within its limits makes the same bytes within larger ones;
- the number of jobs: ``make`` gives the same bytes in any order (``anvil forge --check`` is there to prove it);
- file times of the layers below: ``make`` only reads their order, and that comes from the same archive or card;
- ``after``: what must have passed first puts nothing into the card.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anvil.cell.spec import CONTRACT
from anvil.cortex.records import Noted
from anvil.microjson.codec import canonical, parse_canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anvil.mainframe.graph import Node

ARCHITECTURE = "x86_64"

_DOMAIN = b"anvil card key\n"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a card's key is the hash of, and where each part came from, which is not in the key.

    body: contract, architecture, op, image, script, keep, extra, base (digests of layers, topmost first) and inputs
    (name to digest). Of a card that is only planned, base or the digest of an input is None while it is not known;
    then key is "". origins: "base" (the node) and "inputs" (name to what ``Node.as_data`` has of it).
    """

    card: str
    key: str
    body: Mapping[str, Any]
    origins: Mapping[str, Any]

    @classmethod
    def of(cls, node: Node, *, base: Sequence[str] | None, inputs: Mapping[str, str | None]) -> Identity:
        """The identity of a node that is given these layers and digests."""
        body = {
            "contract": CONTRACT,
            "architecture": ARCHITECTURE,
            "op": node.op,
            "image": node.image,
            "script": node.script,
            "keep": node.keep,
            "extra": dict(node.extra),
            "base": None if base is None else list(base),
            "inputs": dict(inputs),
        }
        known = base is not None and None not in inputs.values()
        key = _key(canonical(body)) if known else ""
        origins = {"base": node.base, "inputs": node.as_data()["inputs"]}
        return cls(card=node.id, key=key, body=body, origins=origins)

    def noted(self) -> Noted:
        """As the cortex keeps it."""
        return Noted(
            key=self.key, card=self.card, body=canonical(self.body).decode(), origins=canonical(self.origins).decode()
        )

    @classmethod
    def from_noted(cls, noted: Noted) -> Identity | None:
        """What the cortex has noted of a key; None when that is not what the key is the hash of."""
        if _key(noted.body.encode()) != noted.key:
            return None
        return cls(
            card=noted.card, key=noted.key, body=parse_canonical(noted.body), origins=parse_canonical(noted.origins)
        )


def card_key(node: Node, *, base: Sequence[str], inputs: Mapping[str, str]) -> str:
    """The key of a card whose needs are done.

    base: the digests of the layers it starts from, topmost first. inputs: the digest of each thing it takes in.
    """
    return Identity.of(node, base=base, inputs=inputs).key


def _key(body: bytes) -> str:
    return hashlib.sha256(_DOMAIN + body).hexdigest()
