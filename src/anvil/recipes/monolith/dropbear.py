"""Dropbear: an ssh server and client in one static file. Keys only: it knows no passwords.

The export ``root`` is what a root needs of it; rootfs lays it in with the first ssh key, and starts anvil-sshd.
"""

from anvil.recipe import Recipe, elf_static

# its own code, scp, and libtomcrypt and libtommath, which come with it; and musl
LICENCE = "MIT AND BSD-2-Clause AND Unlicense"
PROGRAMS = "dropbear dbclient dropbearkey scp"

dropbear = Recipe("dropbear", licence=LICENCE, summary="an ssh server and client in one static file")

tree = dropbear.unpack(dropbear.source("dropbear"))

config = dropbear.run(
    "configure",
    tree,
    """
    cp /in/options localoptions.h
    ./configure --host=x86_64-linux-musl --enable-static --disable-zlib --disable-pam --disable-harden \\
        --disable-utmp --disable-utmpx --disable-wtmp --disable-wtmpx --disable-lastlog \\
        --enable-bundled-libtom CC=musl-gcc CFLAGS="-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=0"
    rm config.log # names of the compiler's temporary files, which it draws
    """,
    inputs={"options": dropbear.file("dropbear/localoptions.h")},
    wall=600,
    expect=10,
)

build = dropbear.run(
    "build",
    config,
    f"""
    make PROGRAMS="{PROGRAMS}" MULTI=1
    strip -o /out/dropbearmulti dropbearmulti
    nm dropbearmulti > /out/symbols
    """,
    wall=900,
    expect=40,
    keep="out",
)

build.check(
    "static",
    """
    d=/in/out/dropbearmulti
    readelf -lW $d > segments
    grep -q LOAD segments
    if grep -E 'INTERP|DYNAMIC' segments; then echo "not static"; exit 1; fi
    grep -q ' svr_auth_pubkey$' /in/out/symbols
    # no password can be tried: neither the question nor the comparison is in it
    if grep -E ' (svr_auth_password|crypt)$' /in/out/symbols; then echo "it knows passwords"; exit 1; fi
    """,
)

build.check(
    "works",
    """
    d=/in/out/dropbearmulti
    $d dropbearkey -t ed25519 -f key > said
    $d dropbearkey -y -f key | grep -q '^ssh-ed25519 AAAA'
    $d dropbear -V 2>&1 | grep -q '^Dropbear v'
    $d dbclient -V 2>&1 | grep -q '^Dropbear v'
    """,
)

root = dropbear.run(
    "root",
    None,
    """
    mkdir -p /out/usr/bin /out/usr/sbin /out/sbin
    install -m 755 /in/dropbearmulti /out/usr/bin/dropbearmulti
    for name in dbclient dropbearkey scp ssh; do ln -s dropbearmulti "/out/usr/bin/$name"; done
    ln -s ../bin/dropbearmulti /out/usr/sbin/dropbear
    install -m 755 /in/anvil-sshd /out/sbin/anvil-sshd
    """,
    inputs={
        "dropbearmulti": build.out / "dropbearmulti",
        "anvil-sshd": dropbear.file("dropbear/anvil-sshd"),
    },
    keep="out",
    expect=1,
)
dropbear.export("root", root.out)
dropbear.artifact("bin/dropbear", build.out / "dropbearmulti", kind=elf_static)
