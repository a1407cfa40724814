"""The ISO with all that Anvil has to put into it, while ``iso`` stays as small as it can be.

A payload is a recipe with an export ``root``, a folder that is laid into the root. Adding one adds its name here.
"""

from anvil.recipe import Recipe

PAYLOADS = ("dropbear",)

full = Recipe(
    "iso-full",
    extends="iso",
    licence="GPL-2.0-only AND GPL-3.0-or-later AND CDDL-1.0",
    summary="the ISO with every payload: " + ", ".join(PAYLOADS),
)
for payload in PAYLOADS:
    full.payload(payload)
