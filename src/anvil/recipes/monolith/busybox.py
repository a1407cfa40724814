"""BusyBox: init, the shell and some four hundred commands of the system in one static file."""

from anvil.recipe import Recipe, elf_static

busybox = Recipe("busybox", licence="GPL-2.0-only AND MIT", summary="the system's commands in one static file")
fragment = busybox.file("busybox/fragment")

tree = busybox.unpack(busybox.source("busybox"))

config = busybox.run(
    "configure",
    tree,
    """
    make defconfig
    sh /in/apply .config /in/fragment
    # oldconfig asks for what those lines brought into sight; an empty answer takes the default
    make oldconfig < <(yes '' 2>/dev/null)
    sh /in/check .config /in/fragment
    """,
    inputs={
        "apply": busybox.file("kconfig/apply-fragment.sh"),
        "check": busybox.file("kconfig/check-fragment.sh"),
        "fragment": fragment,
    },
    wall=600,
    expect=10,
)

build = busybox.run(
    "build",
    config,
    """
    sh /in/kernel-headers
    headers="-idirafter $PWD/.kernel-headers"
    # busybox is linked with -Wl,--gc-sections from its own script; the map it leaves beside it is not wanted
    make CC=musl-gcc EXTRA_CFLAGS="$headers" CONFIG_EXTRA_CFLAGS="$headers" busybox
    cp busybox /out/
    """,
    inputs={"kernel-headers": busybox.file("musl/kernel-headers.sh")},
    wall=1800,
    expect=75,
    keep="out",
)

build.check(
    "applets",
    """
    b=/in/out/busybox
    $b --list > /tmp/applets
    # what the initramfs, init and the system's scripts call; a missing one would only be seen at boot
    for applet in [ ash awk blkid cat chmod chroot chrt cp cpio cttyhack cut date dd df dmesg echo env expr find \\
        findfs free getty grep gzip halt head hostname hwclock id init ip kill ln login losetup ls mdev mkdir mknod \\
        mount mountpoint mv passwd pivot_root poweroff printf ps readlink reboot rm sed setsid sh sha256sum sleep \\
        sort stat stty su switch_root sync tail tar test top touch tr true tty udhcpc udhcpc6 umount uname vi \\
        watchdog wc which zcat; do
        grep -qxF -- "$applet" /tmp/applets || { echo "no applet: $applet"; exit 1; }
    done
    for applet in insmod lsmod modprobe rmmod tc; do
        if grep -qxF "$applet" /tmp/applets; then echo "unwanted applet: $applet"; exit 1; fi
    done
    """,
)

build.check(
    "works",
    """
    b=/in/out/busybox
    readelf -lW $b > segments
    grep -q LOAD segments
    if grep -E 'INTERP|DYNAMIC' segments; then echo "not static"; exit 1; fi
    [ "$($b sh -c 'x=$((6 * 7)); echo $x')" = 42 ]
    mkdir in out
    echo anvil > in/file
    (cd in && echo file | $b cpio -o -H newc) | (cd out && $b cpio -i)
    cmp in/file out/file
    [ "$($b tar -C in -cf - file | $b tar -tf -)" = file ]
    [ "$($b printf anvil | $b sha256sum)" = "$(printf anvil | sha256sum)" ]
    # what login compares; glibc's crypt gives the same
    [ "$($b mkpasswd -m sha512 -S saltstring 'Hello world!')" = \\
        '$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1' ]
    """,
)

busybox.artifact("bin/busybox", build.out / "busybox", kind=elf_static)
