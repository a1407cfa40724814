"""The root: what anvil_pool/ROOT holds, and the 500 MB image that holds anvil_pool.

Only a ZFS can make a pool, and the host need not have one: the image is filled by a virtual machine that runs the
kernel that was just forged (rootfs/forge-init). The root itself is a tar, so that a changed line in it costs one tar
and one short boot, and no compiler.

The same root gives the same image, bit for bit: a twin of the kernel that knows no chance and no time fills it (see
kernel.py), on one emulated processor, with OpenZFS set so that nothing is left to timers.

What others add comes through slots. With nothing added no card is another one than without slots.
"""

import re

from anvil.recipe import Addition, MiB, Recipe, Ref, disk_image, values

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

# ---- what others add. A text is a card of its own: the output gate passes texts that a recipe shows as they are.

slots = {
    name: rootfs.slot(name, summary)
    for name, summary in {
        "root": "a file, text or link, by its path in the root",
        "trees": "a folder, all of which is laid into the root",
        "users": "a user, by name",
        "ssh-keys": "a public key that may log in as a user",
        "services": "a command that init starts, by the service's name",
        "hostname": "the machine's name",
    }.items()
}
lay: list[str] = []  # what rootfs/lay.sh is told to do
taken: dict[str, Ref] = {}  # what it takes in
placed: dict[str, Addition] = {}  # who puts something where


def quoted(text: str) -> str:
    """A word for the shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def take(ref: Ref) -> str:
    """Where the card finds something."""
    name = f"added-{len(taken) + 1}"
    taken[name] = ref
    return f"/in/{name}"


def place(by: Addition, path: str, content: Ref | str, mode: int = 0o644) -> None:
    """A file at a path of the root; a text is written first."""
    if path in placed:
        by.contradict(placed[path], f"both put /{path} there")
    placed[path] = by
    if isinstance(content, str):
        name = re.sub("[^a-z0-9]+", "-", path.lower()).strip("-")[:40]
        content = rootfs.write(f"text-{len(taken) + 1}-{name}", None, "text", content) / "text"
    lay.append(f"lay_file {quoted(by.by)} {mode:o} {quoted(path)} {take(content)}")


for tree in slots["trees"]:
    name = tree.sound(lambda text: values.line(text, "name of a tree"))
    lay.append(f"lay_tree {quoted(f'{tree.by} ({name})')} {take(tree.ref('tree'))}")

for thing in slots["root"]:
    path = thing.sound(values.root_path)
    match thing.sound(lambda kind: values.known("kind of thing", kind, {"file", "text", "link"}), "kind"):
        case "file":
            place(thing, path, thing.ref("content"), thing.sound(values.mode, "mode"))
        case "text":
            place(thing, path, thing.sound(values.text, "text"), thing.sound(values.mode, "mode"))
        case _:
            target = thing.sound(lambda text: values.line(text, "target"), "target")
            placed[path] = thing
            lay.append(f"lay_link {quoted(thing.by)} {quoted(path)} {quoted(target)}")

for thing in slots["hostname"]:
    name = thing.sound(values.hostname, "name")
    place(thing, "etc/hostname", f"{name}\n")
    place(thing, "etc/hosts", f"127.0.0.1 localhost {name}\n::1 localhost {name}\n")

# What rootfs/passwd, shadow, group and inittab say: a recipe sees no files, and a text must be written as a whole.
PASSWD = ["root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/:/bin/false"]
SHADOW = ["root::0:0:99999:7:::", "nobody:!:0:0:99999:7:::"]
GROUPS = {"root": 0, "tty": 5, "nogroup": 65534}
INITTAB = [
    "# id (a terminal, or nothing) :: action : program",
    "::sysinit:/etc/init.d/rcS",
    "ttyS0::respawn:/sbin/anvil-getty ttyS0 vt100",
    "tty1::respawn:/sbin/anvil-getty tty1 linux",
    "::respawn:/sbin/anvil-net",
    "::once:/sbin/anvil-ready",
    "::ctrlaltdel:/sbin/reboot",
    "::shutdown:/etc/init.d/rcK",
    "::restart:/sbin/init",
]
NO_HOMES = {"bin", "boot", "dev", "etc", "init", "lib", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr"}

homes = {"root": "root", "nobody": ""}
groups, members = dict(GROUPS), {name: [] for name in GROUPS}
numbers: dict[int, Addition] = {}
people = slots["users"]
for user in people:
    name, uid, gid = user.sound(values.user), user.sound(values.uid, "uid"), user.sound(values.uid, "gid")
    if name in homes or name in GROUPS:
        user.refuse("the root has a user or group of that name", hint="choose another name")
    if uid in numbers:
        user.contradict(numbers[uid], f"{numbers[uid].name} and {name} both have the uid {uid}")
    if gid in groups.values():
        other = next(group for group, number in groups.items() if number == gid)
        user.refuse(f"the group {other} has the gid {gid} already", hint="choose another uid or gid")
    home = user.sound(lambda text: "/" if text == "/" else values.absolute(text, "a home"), "home").strip("/")
    nested = [other for other in homes.values() if other and home and f"{home}/".startswith(f"{other}/")]
    nested += [other for other in homes.values() if other and home and f"{other}/".startswith(f"{home}/")]
    if home.partition("/")[0] in NO_HOMES or home == "var" or nested:
        user.refuse(f"/{home} cannot be its home", hint=f'home="/home/{name}", or home="/" for none')
    shell = user.sound(lambda text: values.absolute(text, "a shell"), "shell")
    summary = user.sound(lambda text: values.line(text, "summary", empty=True, without=":,"), "summary")
    numbers[uid], homes[name], groups[name], members[name] = user, home, gid, []
    PASSWD.append(f"{name}:x:{uid}:{gid}:{summary}:/{home}:{shell}")
    SHADOW.append(f"{name}:{user.sound(values.password_hash, 'password') or '!'}:0:0:99999:7:::")
for user in people:
    for group in user.sound(values.text, "groups").split():
        if group not in groups:
            user.refuse(f"no group is called {group!r}", hint=f"groups: {', '.join(sorted(groups))}")
        members[group].append(user.name)
if people:
    listed = [f"{name}:x:{gid}:{','.join(members[name])}" for name, gid in groups.items()]
    place(people[0], "etc/passwd", "\n".join([*PASSWD, ""]))
    place(people[0], "etc/shadow", "\n".join([*SHADOW, ""]), 0o600)
    place(people[0], "etc/group", "\n".join([*listed, ""]))

services = {service.sound(values.service): service for service in slots["services"]}
keys: dict[str, list[Addition]] = {}
for key in slots["ssh-keys"]:
    user = key.sound(lambda name: values.known("user of the root", name, homes), "user")
    if not homes[user]:
        key.refuse(f"{user} has no home, where keys are kept", hint="give the user a home")
    keys.setdefault(user, []).append(key)
for user, theirs in keys.items():
    lines = [key.sound(values.ssh_key, "key") for key in theirs]
    place(theirs[0], f"{homes[user]}/.ssh/authorized_keys", "\n".join([*lines, ""]), 0o600)
    lay.append(f"chmod 700 {homes[user]}/.ssh")
# The ssh server comes with the first key, and not without: then nothing of it is in the image, and nothing listens.
if keys:
    first = next(iter(keys.values()))[0]
    if all(tree.name != "dropbear" for tree in slots["trees"]):
        lay.append(f"lay_tree {quoted(f'{first.by} (dropbear)')} {take(rootfs.use('dropbear', 'root'))}")
    if "dropbear" not in services:
        what = {"command": "/sbin/anvil-sshd", "once": False, "user": "root", "console": False}
        services["dropbear"] = Addition(by=first.by, slot="services", name="dropbear", value=what)

for name, service in services.items():
    user = service.sound(lambda name: values.known("user of the root", name, homes), "user")
    shown = "console" if service.sound(values.flag, "console") else "log"
    life = "once" if service.sound(values.flag, "once") else "respawn"
    lines = [user, shown, life, service.sound(values.command, "command"), ""]
    place(service, f"etc/anvil/services/{name}", "\n".join(lines))
    INITTAB.append(f"::{life}:/sbin/anvil-service {name}")
if services:
    some = next(iter(services.values()))
    place(some, "etc/inittab", "\n".join([*INITTAB, ""]))
    place(some, "sbin/anvil-service", rootfs.file("rootfs/anvil-service"), 0o755)

for path, thing in placed.items():
    parts = path.split("/")
    for above in ("/".join(parts[:count]) for count in range(1, len(parts))):
        if above in placed:
            thing.contradict(placed[above], f"/{above} is a file for one and a folder for the other")

for user in people:
    if homes[user.name]:
        ids = f"{user.value['uid']} {user.value['gid']}"
        lay.append(f"lay_home {quoted(user.by)} {ids} {homes[user.name]}")

# With additions Anvil's own part of the script is as it is without; they are laid over it.
PACK = """
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \\
        -cf /out/root.tar .
"""
if lay:
    taken["lay"] = rootfs.file("rootfs/lay.sh")
    PACK = "".join(f"    {line}\n" for line in (". /in/lay", *lay, "pack_root"))

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
    {PACK.strip()}
    """,
    inputs={
        "busybox": busybox,
        "zpool": zpool,
        "zfs": zfs,
        "mount.zfs": mount_zfs,
        **{name: rootfs.file(f"rootfs/{name}") for name in FILES},
        **taken,
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
