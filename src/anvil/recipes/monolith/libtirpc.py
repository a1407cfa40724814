"""libtirpc: XDR, in which OpenZFS's commands read and write a pool's labels (musl has none)."""

from anvil.recipe import Recipe

libtirpc = Recipe("libtirpc", licence="BSD-3-Clause", summary="XDR for the ZFS commands")

build = libtirpc.run(
    "build",
    libtirpc.unpack(libtirpc.source("libtirpc")),
    r"""
    sh /in/kernel-headers
    # Two headers of glibc that musl leaves out on purpose: list macros, taken as they are, and __BEGIN_DECLS,
    # which in C is nothing.
    mkdir -p .kernel-headers/sys
    cp /usr/include/x86_64-linux-gnu/sys/queue.h .kernel-headers/sys/
    printf '#define __BEGIN_DECLS\n#define __END_DECLS\n' > .kernel-headers/sys/cdefs.h
    ./configure --host=x86_64-linux-musl --prefix=/usr --sysconfdir=/etc --disable-gssapi --disable-shared \
        --enable-static PKG_CONFIG=false CC=musl-gcc CFLAGS="-O2 -idirafter $PWD/.kernel-headers"
    make
    make install DESTDIR=/out
    rm -r /out/usr/share /out/usr/lib/*.la
    """,
    inputs={"kernel-headers": libtirpc.file("musl/kernel-headers.sh")},
    wall=600,
    expect=18,
    keep="out",
)

libtirpc.export("prefix", build.out / "usr")
