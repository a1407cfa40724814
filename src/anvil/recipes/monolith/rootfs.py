"""The root: what anvil_pool/ROOT holds, and the 500 MB image that holds anvil_pool.

Only a ZFS can make a pool, and the host need not have one: the image is filled by a virtual machine that runs the
kernel that was just forged (rootfs/forge-init). The root itself is a tar, so that a changed line in it costs one tar
and one short boot, and no compiler.

The same root gives the same image, bit for bit: a twin of the kernel that knows no chance and no time fills it (see
kernel.py), on one emulated processor, with OpenZFS set so that nothing is left to timers.
"""

from anvil.recipe import MiB, Recipe, disk_image

rootfs = Recipe("rootfs", licence="GPL-2.0-only AND CDDL-1.0", summary="anvil_pool with anvil_pool/ROOT, in 500 MB")

busybox = rootfs.use("busybox", "bin/busybox")
zpool = rootfs.use("zfs", "bin/zpool")
zfs = rootfs.use("zfs", "bin/zfs")
mount_zfs = rootfs.use("zfs", "sbin/mount.zfs")

# Where each file beside this recipe goes, and its mode.
FILES = {
    "init": ("init", 755),
    "inittab": ("etc/inittab", 644),
    "rcS": ("etc/init.d/rcS", 755),
    "rcK": ("etc/init.d/rcK", 755),
    "fstab": ("etc/fstab", 644),
    "passwd": ("etc/passwd", 644),
    "shadow": ("etc/shadow", 600),
    "group": ("etc/group", 644),
    "securetty": ("etc/securetty", 644),
    "profile": ("etc/profile", 644),
    "issue": ("etc/issue", 644),
    "hosts": ("etc/hosts", 644),
    "hostname": ("etc/hostname", 644),
    "hostid": ("etc/hostid", 644),  # as in the initramfs: a pool is imported without force
    "shells": ("etc/shells", 644),
    "os-release": ("etc/os-release", 644),
    "anvil-getty": ("sbin/anvil-getty", 755),
    "anvil-net": ("sbin/anvil-net", 755),
    "anvil-ready": ("sbin/anvil-ready", 755),
    "default.script": ("usr/share/udhcpc/default.script", 755),
}
INSTALL = "\n".join(f"install -D -m {mode} /in/{name} {path}" for name, (path, mode) in FILES.items())

tree = rootfs.run(
    "root",
    None,
    f"""
    mkdir root && cd root
    mkdir -p bin sbin usr/bin usr/sbin etc dev proc sys run tmp var mnt root
    chmod 1777 tmp && chmod 700 root
    install -m 755 /in/busybox bin/busybox
    install -m 755 /in/zpool /in/zfs /in/mount.zfs sbin/
    /in/busybox --list-full | while read -r applet; do
        [ -e "$applet" ] || ln -s /bin/busybox "$applet"
    done
    {INSTALL.replace(chr(10), chr(10) + "    ")}
    ln -s ../run/resolv.conf etc/resolv.conf
    ln -s ../proc/mounts etc/mtab
    ln -s ../run var/run
    ln -s ../tmp var/tmp
    for script in init etc/init.d/rcS etc/init.d/rcK sbin/anvil-* usr/share/udhcpc/default.script; do
        bin/busybox sh -n "$script" # by the shell that will run it
    done
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \\
        -cf /out/root.tar .
    """,
    inputs={
        "busybox": busybox,
        "zpool": zpool,
        "zfs": zfs,
        "mount.zfs": mount_zfs,
        **{name: rootfs.file(f"rootfs/{name}") for name in FILES},
    },
    keep="out",
    expect=1,
)
rootfs.export("root.tar", tree.out / "root.tar")

# Not compressed: QEMU puts it into memory as it is, and unpacking under emulation costs more than copying.
initrd = rootfs.run(
    "forge-initrd",
    None,
    """
    mkdir -p root/{bin,dev,etc,proc,sys,mnt} && cd root
    install -m 755 /in/busybox /in/zpool /in/zfs bin/
    install -m 755 /in/init init
    install -m 644 /in/root.tar root.tar
    install -m 644 /in/hostid etc/hostid
    bin/busybox sh -n init
    bin/busybox --list | while read -r applet; do
        [ -e "bin/$applet" ] || ln -s busybox "bin/$applet"
    done
    find . -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    find . -print0 | sort -z | cpio --null -o -H newc --reproducible -R 0:0 --quiet > /out/forge.cpio
    """,
    inputs={
        "busybox": busybox,
        "zpool": zpool,
        "zfs": zfs,
        "init": rootfs.file("rootfs/forge-init"),
        "hostid": rootfs.file("rootfs/hostid"),
        "root.tar": tree.out / "root.tar",
    },
    keep="out",
    expect=1,
)

# Everything that changes while the image is filled is written when forge-init says so, and by nothing else: no timer
# and no amount of changed data ends a transaction group, no thread comes and goes, no allocator races another.
SETTINGS = {
    "spl.spl_taskq_thread_dynamic": 0,
    "zfs.zfs_txg_timeout": 3600,
    "zfs.zio_dva_throttle_enabled": 0,
    "zfs.spa_num_allocators": 1,
    "zfs.spa_asize_inflation": 3,
    "zfs.zfs_dirty_data_max": 128 * MiB,
    "zfs.zfs_dirty_data_max_max": 128 * MiB,
    "zfs.zfs_dirty_data_sync_percent": 99,
    "zfs.zfs_delay_min_dirty_percent": 99,
    "zfs.metaslab_preload_enabled": 0,
    "zfs.metaslab_debug_load": 1,
    "zfs.metaslab_debug_unload": 1,
}

pool = rootfs.forge(
    "pool",
    kernel=rootfs.use("kernel", "forging-bzImage"),
    initrd=initrd.out / "forge.cpio",
    disks={"rootfs.img": 500 * MiB},
    append="console=ttyS0,115200 loglevel=4 panic=-1 nosoftlockup forge_time=$SOURCE_DATE_EPOCH "
    "spl.spl_forge_seed=$SEED " + " ".join(f"{name}={value}" for name, value in SETTINGS.items()),
    memory=512 * MiB,
    deterministic=True,
    done="ANVIL FORGE DONE",
    wall=300,
    expect=10,
)
# What is in a pool only a ZFS can say: the output gate asks this same guest (anvil.census on its kernel line), on the
# kernel that is shipped, which thereby shows that it can read what its twin wrote.
kernel = rootfs.use("kernel", "bzImage")
rootfs.artifact(
    "rootfs.img",
    pool.out / "rootfs.img",
    kind=disk_image,
    opener={"kernel": kernel, "initrd": initrd.out / "forge.cpio"},
)
