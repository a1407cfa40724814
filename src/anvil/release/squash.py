"""What unsquashfs passes over in a squashfs; the output gate's cell runs this file itself, as it does newc.py.

A squashfs says how long it is; what follows is only there to fill a medium's last block and must be zero. Extended
attributes hold what they like, and no reader of Anvil's needs them: there may be no table of them (the kernel's
Documentation/filesystems/squashfs.rst; fs/squashfs/squashfs_fs.h for the superblock).

Standard library only, and nothing of Anvil's: a cell has only this text.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO

_SUPERBLOCK = 96
_NONE = (1 << 64) - 1
_CHUNK = 1024 * 1024


def check(image: BinaryIO) -> None:
    """Raises ValueError for what lies behind the end, and for extended attributes."""
    block = image.read(_SUPERBLOCK)
    if len(block) != _SUPERBLOCK or struct.unpack_from("<HH", block, 28) != (4, 0):
        raise ValueError("its superblock is not sound")
    end, attributes = struct.unpack_from("<Q", block, 40)[0], struct.unpack_from("<Q", block, 56)[0]
    if attributes != _NONE:
        raise ValueError("it has extended attributes")
    image.seek(0, 2)
    if not _SUPERBLOCK <= end <= image.tell():
        raise ValueError("its superblock is not sound")
    image.seek(end)
    while chunk := image.read(_CHUNK):
        if chunk.strip(b"\0"):
            raise ValueError("something lies behind its end")


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as opened:
        try:
            check(opened)
        except (ValueError, OSError) as problem:
            sys.exit(f"squashfs: {problem}")
