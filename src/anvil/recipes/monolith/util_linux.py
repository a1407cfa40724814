"""libuuid and libblkid of util-linux: static libraries for OpenZFS's commands."""

from anvil.recipe import Recipe

util_linux = Recipe(
    "util_linux", licence="BSD-3-Clause AND LGPL-2.1-or-later", summary="libuuid and libblkid for the ZFS commands"
)

build = util_linux.run(
    "build",
    util_linux.unpack(util_linux.source("util-linux")),
    """
    sh /in/kernel-headers
    # PKG_CONFIG=false: what pkgconf would find belongs to the build root's glibc
    ./configure --host=x86_64-linux-musl --prefix=/usr --sysconfdir=/etc --localstatedir=/var --runstatedir=/run \\
        --disable-all-programs --enable-libuuid --enable-libblkid --disable-shared --enable-static --disable-nls \\
        --disable-asciidoc --disable-poman --disable-bash-completion --without-python --without-systemd \\
        --without-udev PKG_CONFIG=false CC=musl-gcc CFLAGS="-O2 -idirafter $PWD/.kernel-headers"
    make
    make install DESTDIR=/out
    # libtool's .la files name folders that are somewhere else when the libraries are used
    rm -r /out/usr/share /out/usr/lib/*.la
    """,
    inputs={"kernel-headers": util_linux.file("musl/kernel-headers.sh")},
    wall=1200,
    expect=50,
    keep="out",
)

util_linux.export("prefix", build.out / "usr")
