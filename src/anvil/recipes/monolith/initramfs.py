"""The initramfs: what runs between the kernel and the ZFS root.

It finds the medium, checks and loops the root image, imports the pool from that loop alone and switches root; see
initramfs/init, which is the whole of it. The shell and its applets are our BusyBox, the pool is imported by our zpool.
"""

from anvil.recipe import Recipe, archive

initramfs = Recipe(
    "initramfs",
    licence="GPL-2.0-only AND CDDL-1.0",
    summary="finds the medium, imports the pool, switches root",
)

# Names are sorted, owners and times fixed, so that the same contents are the same bytes.
packed = initramfs.run(
    "pack",
    None,
    """
    mkdir -p root/{bin,dev,etc,proc,run,sys,sysroot,tmp}
    install -m 755 /in/busybox /in/zpool root/bin/
    install -m 755 /in/init root/init
    install -m 644 /in/emergency /in/profile root/etc/
    install -m 644 /in/hostid root/etc/hostid # 0x616e766c, "anvl", the same in every part
    cd root
    bin/busybox --list | while read -r applet; do
        [ -e "bin/$applet" ] || ln -s busybox "bin/$applet"
    done
    bin/busybox sh -n init # by the shell that will run it
    find . -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    find . -print0 | sort -z | cpio --null -o -H newc --reproducible -R 0:0 --quiet |
        gzip -9n > /out/initramfs.cpio.gz
    """,
    inputs={
        "busybox": initramfs.use("busybox", "bin/busybox"),
        "zpool": initramfs.use("zfs", "bin/zpool"),
        "init": initramfs.file("initramfs/init"),
        "emergency": initramfs.file("initramfs/emergency"),
        "profile": initramfs.file("initramfs/profile"),
        "hostid": initramfs.file("rootfs/hostid"),
    },
    keep="out",
    expect=2,
)
initramfs.artifact("initramfs.cpio.gz", packed.out / "initramfs.cpio.gz", kind=archive)
