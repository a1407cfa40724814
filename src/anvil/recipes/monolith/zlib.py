"""zlib: a static library for OpenZFS's commands."""

from anvil.recipe import Recipe

zlib = Recipe("zlib", licence="Zlib", summary="a static library for the ZFS commands")

build = zlib.run(
    "build",
    zlib.unpack(zlib.source("zlib")),
    """
    # zlib's configure is its own: it takes the compiler from the environment and knows no --host
    CC=musl-gcc CFLAGS=-O2 ./configure --static --prefix=/usr
    make libz.a
    make install DESTDIR=/out
    rm -r /out/usr/share
    """,
    wall=600,
    expect=3,
    keep="out",
)

zlib.export("prefix", build.out / "usr")
