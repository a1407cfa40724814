"""OpenZFS's commands (zpool, zfs, mount.zfs, zgenhostid), static, with a real libcrypto."""

from anvil.recipe import Recipe, elf_static

# What is linked in: libcrypto, libtirpc and libuuid, libblkid, zlib, musl.
LICENCE = "CDDL-1.0 AND Apache-2.0 AND BSD-3-Clause AND LGPL-2.1-or-later AND Zlib AND MIT"
LIBRARIES = ("zlib", "util_linux", "libtirpc", "openssl")

zfs = Recipe("zfs", licence=LICENCE, summary="zpool, zfs and their like in static files")

tree = zfs.unpack(zfs.source("zfs"))

config = zfs.run(
    "configure",
    tree,
    """
    sh /in/kernel-headers
    mkdir .libraries
    for library in zlib util_linux libtirpc openssl; do cp -r "/in/$library/." .libraries/; done
    # PKG_CONFIG=false: what pkgconf would find belongs to the build root's glibc
    ./configure --host=x86_64-linux-musl --with-config=user --prefix=/usr --sbindir=/sbin --sysconfdir=/etc \\
        --localstatedir=/var --runstatedir=/run --with-mounthelperdir=/sbin --enable-static --disable-shared \\
        --disable-systemd --disable-sysvinit --disable-pyzfs --disable-pam --disable-nls --with-tirpc \\
        LIBTIRPC_CFLAGS="-I$PWD/.libraries/include/tirpc" LIBTIRPC_LIBS=-ltirpc PKG_CONFIG=false CC=musl-gcc \\
        CPPFLAGS="-I$PWD/.libraries/include" LDFLAGS="-L$PWD/.libraries/lib" \\
        CFLAGS="-O2 -idirafter $PWD/.kernel-headers"
    rm config.log # names of the compiler's temporary files, which it draws
    """,
    inputs={
        "kernel-headers": zfs.file("musl/kernel-headers.sh"),
        **{library: zfs.use(library, "prefix") for library in LIBRARIES},
    },
    wall=1200,
    expect=14,
)

build = zfs.run(
    "build",
    config,
    """
    # -all-static is libtool's word: given to configure it would reach the compiler, which does not know it
    make LDFLAGS="-all-static -L$PWD/.libraries/lib" zpool zfs mount.zfs zgenhostid
    for program in zpool zfs mount.zfs zgenhostid; do
        nm "$program" > "/out/$program.symbols"
        strip -o "/out/$program" "$program"
    done
    """,
    wall=1800,
    expect=30,
    keep="out",
)

build.check(
    "static",
    """
    for program in zpool zfs mount.zfs zgenhostid; do
        readelf -lW "/in/out/$program" > segments
        grep -q LOAD segments
        if grep -E 'INTERP|DYNAMIC' segments; then echo "$program is not static"; exit 1; fi
    done
    """,
)

# The key derivation is libcrypto's own (its vectors are a check of its recipe), not a stand-in under its name.
build.check(
    "libcrypto",
    """
    for program in zpool zfs; do
        for symbol in PKCS5_PBKDF2_HMAC_SHA1 EVP_KDF_derive ossl_kdf_pbkdf2_functions ossl_sha1_functions; do
            grep -q " [TRD] $symbol$" "/in/out/$program.symbols" || { echo "$program: no $symbol"; exit 1; }
        done
    done
    """,
)

# Without the kernel's half they can only explain themselves; the forging of the pool is what they are tried in.
build.check(
    "runs",
    """
    /in/out/zpool --help > help 2>&1
    grep -q 'create ' help
    /in/out/zfs --help > help 2>&1
    grep -q 'load-key ' help
    if /in/out/zpool list 2> error; then exit 1; fi
    grep -q 'ZFS modules' error
    /in/out/zgenhostid -o "$PWD/hostid" 0a0b0c0d
    [ "$(od -An -tx1 hostid | tr -d ' ')" = 0d0c0b0a ]
    """,
)

for name in ("bin/zpool", "bin/zfs", "sbin/mount.zfs", "sbin/zgenhostid"):
    zfs.artifact(name, build.out / name.split("/")[1], kind=elf_static)
