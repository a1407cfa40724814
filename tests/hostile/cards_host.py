"""Hostile cards about the host's files, settings, devices and sockets: 1, 2, 13, 14, 22, 30, 32."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from anvil.cell import bwrap
from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, Attack, Wire
from tests.hostile.controls import left, outside, without
from tests.hostile.wires import canary, listeners

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.ground import Ground

READ = r"""
for f in @SECRET@ /etc/shadow /root/.ssh/* /home/*/.ssh/*; do
  if grep -qsE 'PRIVATE|^root:[$!]' "$f"; then echo HIT read $f; fi
done
echo TRIED
"""

WRITE = r"""
for f in @CANARY@/x @SECRET@ /x /etc/x /usr/x /usr/bin/x /in/x /dev/x /proc/x /proc/1/x /sys/x /var/x /root/x; do
  if { : >>"$f"; } 2>/dev/null; then echo "HIT wrote $f"; fi
  if mkdir "$f.d" 2>/dev/null; then echo "HIT made $f.d"; fi
done
if rm -f @SECRET@ && [ -e @CANARY@ ]; then echo HIT removed; fi
echo TRIED
"""

SETTINGS = r"""
for f in /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger; do
  if [ -w $f ] && { echo 1 >$f; } 2>/dev/null; then echo HIT wrote $f; fi
done
if mkdir /proc/sys/x 2>/dev/null; then echo HIT made a setting; fi
echo TRIED
"""

DEVICES = r"""
for d in kmsg mem port vda sda loop0 loop-control kvm net/tun fuse uinput mapper/control vhost-vsock hpet; do
  if [ -e /dev/$d ]; then echo HIT there is /dev/$d; fi
done
for s in kernel block class fs; do if [ -e /sys/$s ]; then echo HIT there is /sys/$s; fi; done
echo TRIED
"""

SOCKETS = r"""
for s in @SOCKET@ /run/docker.sock /var/run/docker.sock /run/dbus/system_bus_socket /run/systemd/private; do
  if python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' $s 2>/dev/null; then
    echo HIT connected to $s
  fi
done
echo TRIED
"""

ALIASES = r"""
for root in /proc/self/root /proc/1/root /proc/self/cwd/../.. /proc/thread-self/root/proc/1/root /dev/fd/../../root; do
  if grep -qs PRIVATE "$root@SECRET@"; then echo "HIT read by $root"; fi
  if { : >>"$root/usr/bin/x"; } 2>/dev/null; then echo "HIT wrote by $root"; fi
  if { : >>"$root/in/x"; } 2>/dev/null; then echo "HIT wrote by $root"; fi
done
echo TRIED
"""

PRELOAD = r"""
cat >e.c <<'END'
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void f(void)
{
    int fd = open("@SECRET@", O_RDONLY);
    char t[64];
    if (fd >= 0 && read(fd, t, 64) > 6) write(1, "HIT read by a preloaded library\n", 32);
}
END
gcc -w -shared -fPIC -o e.so e.c
LD_PRELOAD=$PWD/e.so /bin/true
LD_PRELOAD=$PWD/e.so /lib64/ld-linux-x86-64.so.2 /bin/true
cp /bin/true t; chmod 6755 t; LD_PRELOAD=$PWD/e.so ./t
echo TRIED
"""

SET_UID = r"""
for d in /out /work; do
  cp /bin/sh $d/shell; chmod 6755 $d/shell; chown 0:0 $d/shell 2>/dev/null || true
done
mkdir /out/sticky; chmod 3777 /out/sticky
echo TRIED
"""


def own_set_id(_ground: Ground, out: Path) -> str:
    """Before anything is collected the file carries the bits, and belongs to whom the cell is on the host."""
    facts = (out / "shell").stat()
    return f"mode {facts.st_mode:o} of uid {facts.st_uid}" if facts.st_mode & stat.S_ISUID else ""


def core_pattern_is_owned(ground: Ground, attack: Attack, wire: Wire) -> str:
    """As the host's root the cell's user owns core_pattern: only opening is asked, nothing is written.

    An ordinary user cannot be the host's root: for it the control is that the bits get out on files of its own.
    """
    if not ground.root:
        return left(own_set_id)(ground, attack, wire)
    result = ground.lab.cell("cp /bin/sh /out/shell; chmod 6755 /out/shell; stat -c %u /proc/1", host_uid=0)
    facts = (result.out / "shell").stat()
    return f"set-uid of the host's uid {facts.st_uid}" if facts.st_uid == 0 and facts.st_mode & stat.S_ISUID else ""


def environment_seen(ground: Ground, attack: Attack, wire: Wire) -> str:
    return outside(as_root=ground.root)(ground, attack, wire)


def writable_root() -> None:
    """The image bound read-write in the place of read-only."""
    vars(bwrap)["_ARGUMENTS"]["read-only"] = bwrap._ARGUMENTS["read-write"]


ATTACKS = (
    Attack(name="read-the-hosts-secrets", cards=(1,), script=READ, verdict=CONTAINED, wire=canary, control=outside()),
    Attack(
        name="read-the-parents-environment",
        cards=(1,),
        script=(
            "cat /proc/*/environ /proc/*/task/*/environ 2>/dev/null | tr '\\0' '\\n' >all || true\n"
            "if grep -q ANVIL_HOSTILE_TOKEN=token all; then echo HIT; fi\necho TRIED"
        ),
        verdict=CONTAINED,
        control=environment_seen,
    ),
    Attack(
        name="read-the-hosts-command-lines",
        cards=(1,),
        script=(
            "cat /proc/[0-9]*/cmdline /proc/cmdline 2>/dev/null | tr '\\0' '\\n' >all || true\n"
            "if grep -qE 'tests.hostile.runn[e]r|anvil-cel[l]/.* --|/var/tmp/anvi[l]' all; then echo HIT; fi\n"
            "echo TRIED"
        ),
        verdict=CONTAINED,
        control=outside(),
    ),
    Attack(name="write-elsewhere", cards=(2,), script=WRITE, verdict=CONTAINED, wire=canary, control=outside()),
    Attack(
        name="change-the-kernels-settings",
        cards=(13,),
        script=SETTINGS,
        verdict=CONTAINED,
        # in network and user namespaces of its own, whose ip_forward is nobody else's
        control=outside(shell='[ "${IN:-}" ] || IN=1 exec unshare -Urn bash -c "$BASH_EXECUTION_STRING"'),
    ),
    Attack(name="find-devices", cards=(14, 13), script=DEVICES, verdict=CONTAINED, control=outside()),
    Attack(
        name="make-device-nodes",
        cards=(14,),
        probe=True,
        script=(
            "if /in/probe mknod; then echo HIT a node was made; fi\n"
            "for d in /tmp /out /work /dev/shm; do\n"
            "  if mknod $d/null c 0 0 2>/dev/null; then echo HIT a whiteout in $d; rm $d/null; fi\n"
            "  if mknod $d/disk b 254 0 2>/dev/null; then echo HIT a disk in $d; rm $d/disk; fi\ndone\necho TRIED"
        ),
        verdict=CONTAINED,
        control=without(Without.filter),
    ),
    Attack(
        name="reach-the-hosts-sockets",
        cards=(22,),
        script=SOCKETS,
        verdict=CONTAINED,
        wire=listeners,
        control=outside(),
    ),
    Attack(
        name="other-names-of-the-root", cards=(30,), script=ALIASES, verdict=CONTAINED, wire=canary, control=outside()
    ),
    Attack(name="preload-a-library", cards=(30,), script=PRELOAD, verdict=CONTAINED, wire=canary, control=outside()),
    Attack(name="leave-set-uid-files", cards=(10, 32), script=SET_UID, verdict=CONTAINED, control=left(own_set_id)),
    Attack(
        name="own-core-pattern",
        cards=(32,),
        probe=True,
        script=(
            "for f in core_pattern modprobe hotplug poweroff_cmd core_pipe_limit; do\n"
            "  if /in/probe open_write /proc/sys/kernel/$f; then echo HIT $f; fi\ndone\n"
            "cp /bin/sh /out/shell; chmod 6755 /out/shell\n"
            "if [ $(stat -c %u /proc/sys/kernel/core_pattern) = $(id -u) ]; then echo HIT it is ours; fi\necho TRIED"
        ),
        verdict=CONTAINED,
        control=core_pattern_is_owned,
    ),
)
