"""Hostile cards about the network and other cards: 3, 4, 23."""

from __future__ import annotations

from tests.cell.cell_lab import Without
from tests.hostile.attack import CONTAINED, Attack
from tests.hostile.controls import without
from tests.hostile.wires import listeners

EGRESS = r"""
cat >go.py <<'END'
import socket
def attempt(what, family, kind, act):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(2)
            act(s)
        print("HIT", what, flush=True)
    except OSError as error:
        print(what, error)
attempt("tcp", socket.AF_INET, socket.SOCK_STREAM, lambda s: s.connect(("127.0.0.1", @TCP@)))
def twice(s):  # the second time the kernel tells that nobody was there
    s.connect(("127.0.0.1", @UDP@))
    s.send(b"x")
    s.send(b"x")
attempt("udp", socket.AF_INET, socket.SOCK_DGRAM, twice)
attempt("dns", socket.AF_INET, socket.SOCK_DGRAM, lambda s: s.sendto(b"\0\1" * 20, ("192.0.2.53", 53)))
attempt("tcp6", socket.AF_INET6, socket.SOCK_STREAM, lambda s: s.connect(("::1", @TCP6@)))
attempt("udp6", socket.AF_INET6, socket.SOCK_DGRAM, lambda s: s.sendto(b"x", ("2001:db8::1", 53)))
attempt("abstract", socket.AF_UNIX, socket.SOCK_STREAM, lambda s: s.connect("\0@ABSTRACT@"))
END
python3 go.py
if (exec 3<>/dev/tcp/127.0.0.1/@TCP@) 2>/dev/null; then echo HIT by bash; fi
if python3 -c 'import socket; print(socket.getaddrinfo("example.org", 80))' 2>/dev/null; then echo HIT a name; fi
echo TRIED
"""

FAMILIES = r"""
cat >go.py <<'END'
import socket
families = {"netlink": 16, "packet": 17, "vsock": 40, "alg": 38, "bluetooth": 31, "can": 29, "tipc": 30, "xdp": 44,
            "key": 15, "rds": 21, "nfc": 39, "kcm": 41, "qipcrtr": 42}
for name, number in families.items():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(number, kind, 0).close()
        except OSError:
            continue
        print("HIT a socket of", name)
        break
END
python3 go.py
echo TRIED
"""

TWO_CARDS = """
from anvil.recipe import Recipe
r = Recipe("@NAME@", licence="MIT")
serve = '''
python3 - <<'END'
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("\\\\0@SALT@")
s.listen()
s.settimeout(3)
try:
    link, _ = s.accept()
    _, fds, _, _ = socket.recv_fds(link, 10, 1)
    print("HIT got descriptors", fds)
except TimeoutError:
    print("nobody came")
END
echo TRIED
'''
send = '''
python3 - <<'END'
import socket, time
for _ in range(25):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect("\\\\0@SALT@")
        socket.send_fds(s, [b"x"], [0])
        print("HIT sent a descriptor")
        break
    except OSError:
        time.sleep(0.1)
END
echo TRIED
'''
r.run("serve", None, serve)
r.run("send", None, send)
"""

ATTACKS = (
    Attack(
        name="reach-the-network",
        cards=(3, 4),
        script=EGRESS,
        verdict=CONTAINED,
        wire=listeners,
        control=without(Without.isolation("--unshare-net")),
    ),
    Attack(
        name="sockets-of-other-families",
        cards=(3,),
        script=FAMILIES,
        verdict=CONTAINED,
        control=without(Without.filter),
    ),
    Attack(
        name="pass-a-descriptor-to-another-card",
        cards=(23,),
        recipe=TWO_CARDS,
        verdict=CONTAINED,
        control=without(Without.isolation("--unshare-net")),
    ),
)
