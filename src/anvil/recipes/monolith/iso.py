"""The medium: one ISO that starts from a CD and from a USB disk, on BIOS and on UEFI.

    /boot/bzImage, /boot/initramfs.cpio.gz     what GRUB loads
    /boot/grub/grub.cfg                        its menu
    /anvil/rootfs.squashfs                     rootfs.img and rootfs.map: which MiB of it hold anything
    /anvil/rootfs.sha256                       of the squashfs; checked at every start

500 MB of image cost a few megabytes of medium: squashfs leaves the holes out, and the pool is compressed already.

A recipe that extends this one may be larger than 30 MiB, and add words to the kernel line of the menu.
"""

from anvil.recipe import GiB, Recipe, iso_image, values

iso = Recipe(
    "iso",
    licence="GPL-2.0-only AND GPL-3.0-or-later AND CDDL-1.0",
    summary="the hybrid ISO, booted before it is released",
    image="machine",
)

# grub-mkrescue is not reproducible (it draws random ids); these three images are all that it would have made.
grub = iso.run(
    "grub",
    None,
    """
    grep -v '^#' /in/embedded > embedded.cfg # the reader of an embedded menu knows no comments
    shared="normal search search_fs_file configfile linux iso9660 part_gpt part_msdos echo test halt reboot ls"
    grub-mkimage -O i386-pc-eltorito -p /boot/grub -c embedded.cfg -o /out/eltorito.img \
        $shared biosdisk serial terminal
    grub-mkimage -O x86_64-efi -p /boot/grub -c embedded.cfg -o bootx64.efi \
        $shared fat efi_gop efi_uga terminal
    cp /usr/lib/grub/i386-pc/boot_hybrid.img /out/
    touch -d "@$SOURCE_DATE_EPOCH" bootx64.efi
    kib=$(( ($(stat -c %s bootx64.efi) + 1023) / 1024 + 64 ))
    mformat -C -i /out/efi.img -T $((kib * 2)) -h 2 -s 32 -N 616e766c -v ANVILEFI ::
    mmd -i /out/efi.img ::/EFI ::/EFI/BOOT
    mcopy -m -i /out/efi.img bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
    """,
    inputs={"embedded": iso.file("iso/grub-embedded.cfg")},
    keep="out",
    expect=2,
)

squashed = iso.run(
    "squash",
    None,
    """
    python3 -I /in/map /in/rootfs.img > rootfs.map
    # Times and modes are given here, not taken from the files; mksquashfs refuses this beside SOURCE_DATE_EPOCH.
    epoch=$SOURCE_DATE_EPOCH
    env -u SOURCE_DATE_EPOCH mksquashfs /in/rootfs.img rootfs.map /out/rootfs.squashfs -noappend -quiet -no-progress \
        -comp zstd -Xcompression-level 19 -b 131072 -no-xattrs -no-exports \
        -root-mode 0555 -p "rootfs.img m 0444 0 0" -p "rootfs.map m 0444 0 0" -all-root \
        -mkfs-time "$epoch" -all-time "$epoch"
    cd /out && sha256sum rootfs.squashfs > rootfs.sha256
    """,
    inputs={"rootfs.img": iso.use("rootfs", "rootfs.img"), "map": iso.file("iso/map.py")},
    keep="out",
    expect=3,
)

# The menu is read by a text that adds to the words every entry has; what an entry says is looked at when it is chosen.
words = []
for word in iso.slot("kernel-line", "a word of the kernel's command line"):
    words.append(word.sound(values.kernel_word, "word"))
    if words[-1].startswith("loglevel="):
        word.refuse("the menu's own loglevel=4 stands behind it and wins", hint="say ignore_loglevel, or quiet")
MENU = "cp /in/menu iso/boot/grub/grub.cfg"
menu = {"menu": iso.file("iso/grub.cfg")}
if words:
    line = " ".join(words)
    text = (
        f'# The menu, with more words on the kernel line.\nsource $prefix/menu.cfg\nset consoles="$consoles {line}"\n'
    )
    menu["words"] = iso.write("kernel-line", None, "grub.cfg", text) / "grub.cfg"
    MENU = "cp /in/menu iso/boot/grub/menu.cfg && cp /in/words iso/boot/grub/grub.cfg"
# What Anvil itself comes with stays small.
LIMIT = """size=$(stat -c %s /out/anvilos-phase2.iso)
    [ "$size" -le $((30 * 1024 * 1024)) ] || { echo "the ISO has $size bytes: over 30 MiB" >&2; exit 1; }"""
if iso.extended:
    LIMIT = ""

made = iso.run(
    "iso",
    None,
    f"""
    mkdir -p iso/boot/grub iso/anvil
    cp /in/kernel iso/boot/bzImage
    cp /in/initramfs iso/boot/initramfs.cpio.gz
    {MENU}
    cp /in/grub/eltorito.img iso/boot/grub/
    cp /in/squashed/* iso/anvil/
    find iso -exec touch -d "@$SOURCE_DATE_EPOCH" {{}} +
    # xorriso takes every date and id from SOURCE_DATE_EPOCH. The partition at sector 64 (-partition_offset 16) lets
    # the ISO be mounted from the partition too; the EFI image is a partition of its own, seen by CD and disk alike.
    xorriso -as mkisofs -quiet -o /out/anvilos-phase2.iso -r -iso-level 3 -V ANVILOS -partition_offset 16 \
        --grub2-mbr /in/grub/boot_hybrid.img --mbr-force-bootable \
        -append_partition 2 0xef /in/grub/efi.img -appended_part_as_gpt \
        -c boot/boot.catalog -b boot/grub/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table \
        --grub2-boot-info \
        -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot \
        iso
    {LIMIT}
    """,
    inputs={
        "kernel": iso.use("kernel", "bzImage"),
        "initramfs": iso.use("initramfs", "initramfs.cpio.gz"),
        **menu,
        "grub": grub.out,
        "squashed": squashed.out,
    },
    keep="out",
    expect=2,
)

# The verdict is part of the forge: one firmware and one attachment each; `anvil boot` tries the others.
medium = made.out / "anvilos-phase2.iso"
iso.boot("bios-cdrom", medium=medium, firmware="bios", attach="cdrom", expect="ANVILOS READY", memory=GiB // 2)
iso.boot("uefi-disk", medium=medium, firmware="uefi", attach="disk", expect="ANVILOS READY", memory=GiB // 2)
iso.artifact("anvilos-phase2.iso", medium, kind=iso_image)
