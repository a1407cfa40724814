"""``make campaign-environment``: faults of the environment; each is to be told with cause and mend before any build.

Each fault of ``environment_faults`` is made, and a small recipe forged: the message's sentence must name the cause and
its next step the mend, the exit code must be right, there is no traceback, and no card but a download ran. Twenty are
chosen by the seed and counted; all the others are run and told too. Controls: without a fault the same forge builds;
every message is judged by the expectations of all other faults, which must refuse it; and with the checks before a
build taken away, some faults are met late or not at all.

Needs root, for real mounts and control groups. Ends with 1 unless all are told. The result is kept as
bench/results/environment.json; ``--only NAME…`` runs some, and keeps nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import random
import re
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.machine import describe

from anvil.mainframe.services import LOCKS
from tests.campaigns.environment_faults import FAULTS, HERE, PYTHON, Fault
from tests.conftest import user_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RESULT = Path(__file__).parents[2] / "bench" / "results" / "environment.json"
REPOSITORY = Path(__file__).parents[2]
SEED = 4
COUNT = 20
ORDINARY = 65534

BLIND = """
import contextlib
from anvil.mainframe import preflight
preflight.before_build = lambda *_: []
preflight.explained = lambda *_: contextlib.nullcontext()
"""
"""What takes the checks before a build away."""

NOTHING = Fault(name="nothing", cause="", mend="", code=0)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a person saw. ran: cards other than downloads that were begun."""

    code: int
    sentence: str
    hint: str
    ran: tuple[str, ...]
    said: str
    seconds: float


def read(code: int, out: str, errors: str, seconds: float) -> Told:
    """The message and its next step, of an error or of a jam, out of what was printed."""
    said = out + errors
    sentence = re.search(r"^(?:anvil: |JAM  \S+: )(.*)$", said, re.MULTILINE)
    hint = re.search(r"^  (?:mend|next): +(.*)$", said, re.MULTILINE)
    ran = re.findall(r"^\[ *\d+/\d+\] run   (?!sources/|images/)(\S+)", out, re.MULTILINE)
    return Told(
        code=code, sentence=sentence[1] if sentence else "", hint=hint[1] if hint else "", ran=tuple(ran), said=said,
        seconds=seconds,
    )  # fmt: skip


def complaint(fault: Fault, told: Told) -> str:
    """What is wrong with how a fault was told; "" if nothing is."""
    if "Traceback" in told.said:
        return f"a traceback: {told.said[-300:]}"
    if told.ran:
        return f"cards ran first: {', '.join(told.ran)}"
    if told.code != fault.code:
        return f"exit code {told.code}: {told.said[-300:]}"
    if not re.search(fault.cause, told.sentence):
        return f"the cause is not named: {told.sentence!r}"
    if not re.search(fault.mend, told.hint):
        return f"the mend is not named: {told.hint!r}"
    return ""


def make(fault: Fault, *, blind: bool = False) -> Told:
    """Make a fault, forge in it, and read what is told. blind: without the checks before a build."""
    place = Path(tempfile.mkdtemp(prefix="anvil-environment-", dir="/var/tmp"))
    try:
        place.chmod(0o755)
        folders = {"HOME_DIR": place / "home", "OUTPUT": place / "out-default", "PROJECT": place / "project"}
        folders |= {"PLACE": place, "IMAGES": place / "images"}
        _lay_out(fault, place, blind=blind)
        with serve(fault.served, place) as address:
            environment = _environment(fault, folders, address)
            command = ["unshare", "-m", *fault.namespaces.split(), "sh", "-euc", _script(fault, folders)]
            began = time.monotonic()
            done = subprocess.run(
                command, cwd=place / "project", env=environment, capture_output=True, text=True, timeout=300,
                check=False,
            )  # fmt: skip
            return read(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
    finally:
        _remove_groups(place)
        shutil.rmtree(place, ignore_errors=True)


def _lay_out(fault: Fault, place: Path, *, blind: bool) -> None:
    uid = ORDINARY if fault.user == "user" else 0
    for name, mode in (("home", 0o700), ("images", 0o755), ("project", 0o755), ("project/recipes", 0o755)):
        (place / name).mkdir(mode=mode)
        os.chown(place / name, uid, uid)
    (place / "home" / "images").symlink_to(place / "images")
    (place / "project" / "recipes" / "hello.py").write_text(fault.recipe, encoding="utf-8")
    (place / "patch").mkdir()
    if patch := fault.patch + (BLIND if blind else ""):
        (place / "patch" / "sitecustomize.py").write_text(patch, encoding="utf-8")
    if "LD_PRELOAD" in fault.variables:
        shim = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(place / "clock_shim.so"), str(HERE / "clock_shim.c")]
        subprocess.run(shim, check=True)


def _environment(fault: Fault, folders: Mapping[str, Path], address: str) -> dict[str, str]:
    found = {name: text for name, text in os.environ.items() if not name.startswith("ANVIL_")}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folders["PLACE"] / "patch"), found.get("PYTHONPATH", ""))))
    found |= {"ANVIL_HOME": str(folders["HOME_DIR"]), "NO_COLOR": "1"}
    if address:
        found["ANVIL_MIRROR_DEBIAN"] = address
    for name, text in fault.variables.items():
        if name == "LD_PRELOAD":
            continue  # the forge's alone: see _script
        found.pop(name, None)
        if text:
            found[name] = _filled(text, folders)
    return found


def _script(fault: Fault, folders: Mapping[str, Path]) -> str:
    words = [PYTHON, "-m", "anvil.cli.main", "forge", "hello", "--project", str(folders["PROJECT"]), *fault.words]
    who = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"] if fault.user == "user" else []
    preload = [f"LD_PRELOAD={fault.variables['LD_PRELOAD']}"] if "LD_PRELOAD" in fault.variables else []
    command = shlex.join(
        _filled(word, folders) for word in (*fault.prefix, *who, *(["env", *preload] if preload else []), *words)
    )
    images = shlex.join(["mount", "--bind", str((user_home() / "images").resolve()), str(folders["IMAGES"])])
    ordinary = fault.user == "user" or "setpriv" in fault.prefix
    opened = list(_opened(folders["PLACE"])) if ordinary else []
    return "\n".join((images, *opened, _filled(fault.script, folders), f"exec {command}"))


def _opened(place: Path) -> Iterator[str]:
    """Shell lines that let an ordinary user reach Python and the sources: a closed folder above them is covered."""
    needed = dict.fromkeys(os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, REPOSITORY))
    hidden: dict[str, list[str]] = {}
    for path in needed:
        closed = [str(top) for top in reversed(Path(path).parents) if not top.stat().st_mode & stat.S_IXOTH]
        if closed:
            hidden.setdefault(closed[0], []).append(path)
    for number, (closed_folder, paths) in enumerate(hidden.items()):
        for index, path in enumerate(paths):
            aside = place / f"aside-{number}-{index}"
            yield shlex.join(["mkdir", str(aside)]) + "; " + shlex.join(["mount", "--bind", path, str(aside)])
        yield shlex.join(["mount", "-t", "tmpfs", "-o", "mode=755", "none", closed_folder])
        for index, path in enumerate(paths):
            aside = place / f"aside-{number}-{index}"
            yield shlex.join(["mkdir", "-p", path]) + "; " + shlex.join(["mount", "--bind", str(aside), path])


def _filled(text: str, folders: Mapping[str, Path]) -> str:
    for name, path in folders.items():
        text = text.replace(f"${name}", str(path))
    return text


def _remove_groups(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for group in (place / "groups").read_text(encoding="utf-8").split():
            for _ in range(50):
                with contextlib.suppress(OSError):
                    os.rmdir(group)
                    break
                time.sleep(0.1)


# ---- the mirror


@contextlib.contextmanager
def serve(how: str, place: Path) -> Iterator[str]:
    """A mirror on this machine that misbehaves, by its address; "" for none."""
    if how == "refuses":
        yield "http://127.0.0.1:9/debian"
    elif how == "silent":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/debian"
    elif how:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(how))
        scheme = "http"
        if how == "self-signed":
            scheme = "https"
            server.socket = _context(place).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{scheme}://127.0.0.1:{server.server_port}/debian"
        server.shutdown()
        server.server_close()
        thread.join()
    else:
        yield ""


def _handler(how: str) -> type[http.server.BaseHTTPRequestHandler]:
    sizes = _pinned_sizes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was not worth listening to
                self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            size = sizes.get(self.path.rpartition("/")[2], 0)
            if how == "portal":
                if self.path != "/login":
                    self.send_response(302)
                    self.send_header("Location", "/login")
                    self.end_headers()
                    return
                size = 40
            elif how in {"empty", "broken"}:
                self.send_error(404 if how == "empty" else 500)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if body:
                self.wfile.write(bytes(size))

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _pinned_sizes() -> dict[str, int]:
    lock = json.loads((LOCKS / "debian.json").read_text(encoding="utf-8"))
    return {
        file["path"].rpartition("/")[2]: file["size"]
        for source in lock["sources"].values()
        for file in source["files"]
    }


def _context(place: Path) -> ssl.SSLContext:
    key, certificate = place / "key.pem", place / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


# ---- the campaign


def chosen(seed: int, count: int = COUNT) -> list[str]:
    """The names of the faults that the seed picks."""
    return random.Random(seed).sample([fault.name for fault in FAULTS], count)


def crossed(told: Mapping[str, Told]) -> list[str]:
    """Faults whose message passes for another's: expectations that would take anything."""
    return [
        f"{other.name} is taken for {fault.name}"
        for fault in FAULTS
        for other in FAULTS
        if fault.name in told and other.name in told and other.name not in (fault.name, *fault.kin)
        and not complaint(fault, told[other.name])
    ]  # fmt: skip


def without_a_fault() -> str:
    """ "" if a forge without a fault builds, and is judged as not being a fault."""
    told = make(NOTHING)
    if told.code or "hello/build" not in told.ran:
        return f"it did not build: {told.said[-300:]}"
    taken = [fault.name for fault in FAULTS if not complaint(fault, told)]
    return f"it is taken for {', '.join(taken)}" if taken else ""


def row(fault: Fault, told: Told, *, picked: bool) -> dict[str, Any]:
    """What is kept of one fault."""
    place = re.compile(r"/var/tmp/anvil-environment-\w+")
    kept: dict[str, Any] = {
        "chosen": picked,
        "user": fault.user,
        "cause": place.sub("PLACE", told.sentence),
        "mend": place.sub("PLACE", told.hint),
        "seconds": round(told.seconds, 2),
    }
    if wrong := complaint(fault, told):
        kept["complaint"] = place.sub("PLACE", wrong)
    return kept


def campaign(faults: Sequence[Fault], picked: Sequence[str], *, controls: bool) -> dict[str, Any]:
    """Run faults, printing each; everything that is kept."""
    rows: dict[str, dict[str, Any]] = {}
    seen: dict[str, Told] = {}
    late: list[str] = []
    for fault in faults:
        told = seen[fault.name] = make(fault)
        rows[fault.name] = row(fault, told, picked=fault.name in picked)
        bad = rows[fault.name].get("complaint", "")
        sys.stdout.write(f"{'FAIL' if bad else 'told'}  {fault.name:<24} {bad or told.sentence[:90]}\n")
        sys.stdout.flush()
        if controls and complaint(fault, make(fault, blind=True)):
            late.append(fault.name)
    told_names = [name for name in rows if "complaint" not in rows[name]]
    return {
        "seed": SEED,
        "chosen": len(picked),
        "told_of_chosen": sum(name in picked for name in told_names),
        "faults": len(rows),
        "told": len(told_names),
        "slowest_seconds": max(each["seconds"] for each in rows.values()),
        "controls": {
            "without_a_fault": without_a_fault() or "it builds, and no expectation takes it for a fault",
            "crossed": crossed(seen),
            "not_told_without_the_checks": late,
        },
        "results": rows,
    }


def main() -> int:
    """Run all faults, or those that are named."""
    parser = argparse.ArgumentParser(prog="tests.campaigns.environment")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.stderr.write("needs root, for mounts and control groups\n")
        return 3
    faults = [fault for fault in FAULTS if not args.only or fault.name in args.only]
    picked = chosen(SEED)
    found = campaign(faults, picked, controls=not args.only)
    if not args.only:
        text = json.dumps({"machine": describe(), **found}, indent=1, ensure_ascii=False)
        RESULT.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({key: found[key] for key in found if key != "results"}, indent=2) + "\n")
    controls = found["controls"]
    good = found["told"] == found["faults"] and not controls["crossed"] and "builds" in controls["without_a_fault"]
    return 0 if good and (args.only or controls["not_told_without_the_checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
