"""The kernel: Linux with OpenZFS built in, one file without modules.

unpack-linux ─► config ─► zfs ─► config-zfs ─► build ─► bzImage
unpack-zfs ────────────────┘

OpenZFS's configure asks the configured kernel what it offers, so the options come first. An option that Kconfig drops
jams one of the two config cards, the first within seconds.
"""

from anvil.recipe import GiB, Recipe, Source, kernel_image

kernel = Recipe("kernel", licence="GPL-2.0-only AND CDDL-1.0", summary="Linux with OpenZFS built in")
linux = kernel.source("linux")
zfs = kernel.source("zfs")


def supported(linux: Source, zfs: Source) -> bool:
    """Tell whether OpenZFS's META names this kernel's series."""
    oldest, newest = zfs.facts["linux-minimum"], zfs.facts["linux-maximum"]
    return not linux.older_than(oldest) and not linux.newer_than(newest)


kernel.require(
    supported(linux, zfs),
    f"OpenZFS {zfs.version} supports Linux {zfs.facts['linux-minimum']} to {zfs.facts['linux-maximum']}, "
    f"not {linux.version}",
    hint="pin another linux or another zfs: anvil sources update",
)

# The mitigations were renamed in 6.9, and stable releases bring new ones with new names.
mitigations = "mitigations-before-6.9" if linux.older_than("6.9") else "mitigations"
files = {
    "base": kernel.file("kernel/base.fragment"),
    "mitigations": kernel.file(f"kernel/{mitigations}.fragment"),
    "check": kernel.file("kconfig/check-fragment.sh"),
}

# The same words in every build, whoever builds it: they are compiled in (uname -v, /proc/version).
FIXED = """
export KBUILD_BUILD_TIMESTAMP="$(date -u -d "@$SOURCE_DATE_EPOCH")"
export KBUILD_BUILD_USER=anvil KBUILD_BUILD_HOST=anvil KBUILD_BUILD_VERSION=1
"""

config = kernel.run(
    "config",
    kernel.unpack(linux),
    FIXED
    + """
# all but ZFS, which this tree does not know yet; allnoconfig and not tinyconfig, which would choose SLUB_TINY
cat /in/base /in/mitigations | grep -v '^CONFIG_ZFS=' > /tmp/fragment
KCONFIG_ALLCONFIG=/tmp/fragment make allnoconfig
sh /in/check .config /tmp/fragment
make prepare scripts
""",
    inputs=files,
    wall=900,
    expect=15,
)

integrated = kernel.run(
    "zfs",
    config,
    FIXED
    + """
cp -r /in/zfs .zfs
cd .zfs
# several hundred small compilations show what this kernel offers; TEST_JOBS, or it would count the machine's cores
TEST_JOBS=$JOBS ./configure --with-config=kernel --enable-linux-builtin --with-linux=/work --with-linux-obj=/work
./copy-builtin /work
cd ..
rm -r .zfs
test -f fs/zfs/Kconfig
""",
    inputs={"zfs": kernel.unpack(zfs).work},
    wall=1800,
    expect=70,
)

complete = kernel.run(
    "config-zfs",
    integrated,
    """
    cat /in/base /in/mitigations > /tmp/fragment
    KCONFIG_ALLCONFIG=/tmp/fragment make allnoconfig
    sh /in/check .config /in/base /in/mitigations
    """,
    inputs=files,
    wall=300,
    expect=4,
)

build = kernel.run(
    "build",
    complete,
    FIXED
    + """
make bzImage
cp arch/x86/boot/bzImage System.map /out/
cp .config /out/config
make -s kernelrelease > /out/release
# a quarter of a gigabyte of intermediate links that nothing builds on
rm -f .tmp_vmlinux* vmlinux.o arch/x86/boot/compressed/vmlinux.bin
""",
    memory=6 * GiB,
    wall=7200,
    expect=750,
)

build.check(
    "image",
    """
    cd /in/out
    # the boot protocol's magic, and the release in the string the header points at (512 bytes before it)
    [ "$(dd if=bzImage bs=1 skip=514 count=4 status=none)" = HdrS ]
    offset=$(od -An -tu2 -j526 -N2 bzImage)
    dd if=bzImage bs=1 skip=$((offset + 512)) count=64 status=none | tr '\\0' '\\n' > /work/words
    grep -q "^$(cat release) " /work/words
    grep -q ' openzfs_init$' System.map
    [ "$(stat -c %s bzImage)" -lt $((16 << 20)) ]
    """,
)

kernel.export("config", build.out / "config")
kernel.export("System.map", build.out / "System.map")
kernel.artifact("bzImage", build.out / "bzImage", kind=kernel_image, redistribution="contested")
