"""Print which parts of an image hold anything but zeros: lines of "first count", in MiB.

The initramfs copies only these when the system is to run in memory.
"""

import sys

MIB = 1 << 20
ZEROS = bytes(MIB)

first = count = 0
with open(sys.argv[1], "rb") as image:
    number = 0
    while block := image.read(MIB):
        if block != ZEROS[: len(block)]:
            if count and first + count == number:
                count += 1
            else:
                if count:
                    print(first, count)
                first, count = number, 1
        number += 1
if count:
    print(first, count)
