"""Virtual machines: QEMU in a cell, driven over its serial console."""
