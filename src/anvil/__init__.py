"""Anvil: bootable operating systems from short Python recipes."""

__version__ = "0.1.0"
