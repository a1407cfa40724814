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
from typing import TYPE_CHECKING

from anvil.cell.spec import CONTRACT
from anvil.microjson.codec import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anvil.mainframe.graph import Node

ARCHITECTURE = "x86_64"


def card_key(node: Node, *, base: Sequence[str], inputs: Mapping[str, str]) -> str:
    """The key of a card whose needs are done.

    base: the digests of the layers it starts from, topmost first. inputs: the digest of each thing it takes in.
    """
    identity = {
        "contract": CONTRACT,
        "architecture": ARCHITECTURE,
        "op": node.op,
        "image": node.image,
        "script": node.script,
        "keep": node.keep,
        "extra": dict(node.extra),
        "base": list(base),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(b"anvil card key\n" + canonical(identity)).hexdigest()
