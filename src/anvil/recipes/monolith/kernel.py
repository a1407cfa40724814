"""The kernel: Linux with OpenZFS built in, one file without modules.

unpack-linux ─► config ─► zfs ─► config-zfs ─► build ─► bzImage, and forging-bzImage (never released)
unpack-zfs ────────────────┘

OpenZFS's configure asks the configured kernel what it offers, so the options come first. An option that Kconfig drops
jams one of the two config cards, the first within seconds.

What others add is laid over the fragments first, by kernel/lay-options.sh, in a card of its own that takes a second;
what the boot needs (kernel/needed) nobody can take away. With nothing added no card is another one than without slots.
"""

from anvil.recipe import GiB, Recipe, Source, kernel_image, values

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

# ---- what others add

added: dict[str, list[str]] = {}  # by whom: lines of a .config
for option in kernel.slot("options", "a kernel option, by its name without CONFIG_, as a .config has it"):
    name = option.sound(values.option)
    value = option.sound(values.config_value, "value")
    added.setdefault(option.by, []).append(f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}")
laid = {
    f"options-{number}": (
        by,
        kernel.write(f"options-{number}", None, "fragment", "\n".join([*lines, ""])) / "fragment",
    )
    for number, (by, lines) in enumerate(added.items(), 1)
}
for number, addition in enumerate(kernel.slot("fragments", "a file of options, as a .config has them"), 1):
    laid[f"fragment-{number}"] = (addition.by, addition.ref("fragment"))
if laid:
    inputs = {
        "base": files["base"],
        "mitigations": files["mitigations"],
        "needed": kernel.file("kernel/needed"),
        "choices": kernel.file("kernel/choices"),
        "lay-options": kernel.file("kernel/lay-options.sh"),
        **{name: ref for name, (_, ref) in laid.items()},
    }
    words = " ".join(f"'{by}' /in/{name}" for name, (by, _) in laid.items())
    options = kernel.run("options", None, f"cd /out && sh /in/lay-options {words}", inputs=inputs, wall=60, keep="out")
    files = {"base": options.out / "base", "mitigations": options.out / "mitigations", "check": files["check"]}

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
# the number of jobs would stay in a file, where nothing uses it: any number will do, but the same for everyone
sed -i 's/^TEST_JOBS = .*/TEST_JOBS = 2/' include/zfs/Makefile
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

# Two kernels from one tree. The second, in half a minute: what of chance, addresses and time would reach a pool is
# fixed in it (see the patch). It forges pools and is neither released nor put on a medium. Both in one card: a second
# one would have to keep the built tree of the first, two gigabytes for one use.
build = kernel.run(
    "build",
    complete,
    FIXED
    + """
make bzImage
cp arch/x86/boot/bzImage System.map /out/
cp .config /out/config
make -s kernelrelease > /out/release

patch --batch --forward --fuzz=0 -p1 < /in/forging-patch
# nobody waits for the twin to be small: the kernel's own rule asks for zstd's slowest level
printf 'exec zstd -1 -c\\n' > /tmp/zstd
make ZSTD='sh /tmp/zstd' bzImage
cp arch/x86/boot/bzImage /out/forging-bzImage
""",
    inputs={"forging-patch": kernel.file("kernel/forging.patch")},
    memory=6 * GiB,
    wall=7200,
    expect=500,
    keep="out",
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
    if grep ' spl_forge\\| forge_time' System.map; then echo "this is the kernel that forges pools"; exit 1; fi
    [ "$(stat -c %s bzImage)" -lt $((16 << 20)) ]
    """,
)

# The words of the patch are in the twin and not in the other. The compressed kernel is where the boot protocol's
# header says (setup_sects at 0x1f1, payload_offset and payload_length at 0x248), less the size behind it.
build.check(
    "apart",
    """
    unpacked() {
        start=$(( ($(od -An -tu1 -j497 -N1 "$1") + 1) * 512 + $(od -An -tu4 -j584 -N4 "$1") ))
        size=$(( $(od -An -tu4 -j588 -N4 "$1") - 4 ))
        dd if="$1" iflag=skip_bytes,count_bytes skip=$start count=$size status=none | zstd -dc
    }
    unpacked /in/out/forging-bzImage > forging
    unpacked /in/out/bzImage > shipped
    for word in spl_forge_seed forge_time; do
        grep -q "$word" forging
        if grep -q "$word" shipped; then echo "the shipped kernel knows $word"; exit 1; fi
    done
    grep -q 'spl.spl_hostid' shipped # the negative control: this is the unpacked kernel, and such words are found
    """,
)

kernel.export("forging-bzImage", build.out / "forging-bzImage")
kernel.export("config", build.out / "config")
kernel.export("System.map", build.out / "System.map")
kernel.artifact("bzImage", build.out / "bzImage", kind=kernel_image, redistribution="contested")
