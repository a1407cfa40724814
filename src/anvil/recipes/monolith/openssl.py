"""libcrypto: PBKDF2, which turns a passphrase into the key of an encrypted ZFS dataset."""

from anvil.recipe import Recipe

openssl = Recipe("openssl", licence="Apache-2.0", summary="libcrypto for the ZFS commands")

build = openssl.run(
    "build",
    openssl.unpack(openssl.source("openssl")),
    """
    sh /in/kernel-headers
    # A whole libcrypto less what nobody here calls: "bulk" stands for the ciphers, digests and protocols beyond the
    # common ones. no-autoload-config: a static program must not obey an openssl.cnf it happens to find.
    perl Configure linux-x86_64 --prefix=/usr --libdir=lib --openssldir=/etc/ssl no-bulk no-asm no-shared no-module \\
        no-dso no-tests no-apps no-docs no-ssl no-tls no-sock no-http no-autoload-config no-engine no-legacy \\
        no-deprecated no-argon2 no-scrypt no-slh-dsa no-secure-memory \\
        CC=musl-gcc CFLAGS="-O2 -idirafter $PWD/.kernel-headers"
    make build_generated
    make libcrypto.a
    mkdir -p /out/usr/lib /out/usr/include
    cp libcrypto.a /out/usr/lib/
    cp -r include/openssl /out/usr/include/
    rm /out/usr/include/openssl/*.in
    """,
    inputs={"kernel-headers": openssl.file("musl/kernel-headers.sh")},
    wall=1800,
    expect=90,
    keep="out",
)

build.check(
    "pbkdf2",
    """
    musl-gcc -static -O2 -Wall -Wextra -Werror -I/in/out/usr/include -o vectors -x c /in/vectors \\
        -L/in/out/usr/lib -lcrypto
    ./vectors
    """,
    inputs={"vectors": openssl.file("openssl/pbkdf2-vectors.c")},
)

openssl.export("prefix", build.out / "usr")
