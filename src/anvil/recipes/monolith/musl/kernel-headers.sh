#!/bin/sh
# Makes ./.kernel-headers: links to the kernel's own headers, for `musl-gcc -idirafter`.
# musl brings no kernel headers, and /usr/include as a whole would let glibc's headers in behind musl's.
set -eu
mkdir -p .kernel-headers
for folder in linux asm-generic mtd scsi x86_64-linux-gnu/asm; do
    ln -sfn "/usr/include/$folder" ".kernel-headers/${folder##*/}"
done
