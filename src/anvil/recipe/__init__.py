"""What a ``recipe.py`` imports: a small language for saying how a thing is made.

A recipe is data written in Python. Nothing here runs a command: every call adds a step to a deck, and the mainframe
runs the deck later. A recipe sees no clock, no environment, no network and no file; evaluated twice it gives the
same deck, byte for byte. Standard library only: this package is what the evaluation cell holds.
"""

from anvil.recipe import values
from anvil.recipe.kinds import archive, bytecode, disk_image, elf_static, human_json, iso_image, kernel_image
from anvil.recipe.language import GiB, KiB, MiB, Recipe, Source, Step
from anvil.recipe.reference import Addition, Ref

__all__ = [
    "Addition",
    "GiB",
    "KiB",
    "MiB",
    "Recipe",
    "Ref",
    "Source",
    "Step",
    "archive",
    "bytecode",
    "disk_image",
    "elf_static",
    "human_json",
    "iso_image",
    "kernel_image",
    "values",
]
