from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from anvil.errors import (
    AnvilError,
    DiskFull,
    EnvironmentLack,
    HashMismatch,
    IntegrityError,
    Interrupted,
    NetworkLack,
    SourceGone,
)
from anvil.model.lock import PinnedFile
from anvil.sources import part as part_module
from anvil.sources.fetch import Fetcher, Progress
from anvil.sources.mirrors import Mirrors
from anvil.sources.transfer import Patience

from .misbehaving_server import Mirror, pin, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

BODY = bytes(range(256)) * 4096  # 1 MiB
# Long enough for a busy machine; for tests in which silence is the matter, short.
QUICK = Patience(silence_seconds=10, attempts=3, pause_seconds=0.01, progress_bytes=1000)
SHORT = replace(QUICK, silence_seconds=0.4)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as one:
        yield one


@pytest.fixture
def second() -> Iterator[Mirror]:
    with serving() as one:
        yield one


class Shelf:
    """What was delivered, checked as it is handed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bodies: dict[str, bytes] = {}

    def __call__(self, file: PinnedFile, path: Path) -> None:
        body = path.read_bytes()
        assert pin(file.path, body).sha256 == file.sha256
        self.bodies[file.name] = body


class Bench(NamedTuple):
    fetcher: Fetcher
    shelf: Shelf
    downloads: Path

    def fetch(self, file: PinnedFile) -> bytes:
        self.fetcher.fetch(file, self.shelf)
        return self.shelf.bodies[file.name]


def bench(tmp_path: Path, *mirrors: Mirror | str, **options: object) -> Bench:
    bases = tuple(one.base if isinstance(one, Mirror) else one for one in mirrors)
    options.setdefault("patience", QUICK)
    downloads = tmp_path / "downloads"
    fetcher = Fetcher(
        Mirrors(bases={"debian": bases} if bases else {}),
        downloads,
        **options,  # type: ignore[arg-type]
    )
    return Bench(fetcher, Shelf(tmp_path), downloads)


def left_over(one: Bench) -> list[str]:
    return sorted(path.name for path in one.downloads.iterdir())


def test_a_file_is_delivered_verified_and_leaves_nothing(tmp_path: Path, mirror: Mirror) -> None:
    one = bench(tmp_path, mirror)
    assert one.fetch(mirror.add("pool/a_1.0+ds~1.tar", BODY)) == BODY
    assert left_over(one) == []
    assert oct(one.downloads.stat().st_mode & 0o777) == oct(0o700)


def test_a_delivered_file_may_be_moved_away(tmp_path: Path, mirror: Mirror) -> None:
    one = bench(tmp_path, mirror)
    file = mirror.add("pool/a", BODY)
    one.fetcher.fetch(file, lambda _, path: os.replace(path, tmp_path / "kept"))
    assert (tmp_path / "kept").read_bytes() == BODY
    assert left_over(one) == []


@pytest.mark.parametrize("fault", ["drop", "stall", "500", "hang", "503", "short"])
def test_a_failing_mirror_is_asked_again(tmp_path: Path, mirror: Mirror, fault: str) -> None:
    file = mirror.add("pool/a", BODY, size=0 if fault == "short" else None)
    mirror.faults["pool/a"] = [fault]
    if fault == "short":  # with no size in the lock, half a file that says it is whole is only found by its hash
        with pytest.raises(HashMismatch):
            bench(tmp_path, mirror).fetch(file)
    else:
        patience = SHORT if fault in ("hang", "stall") else QUICK
        assert bench(tmp_path, mirror, patience=patience).fetch(file) == BODY
        assert len(mirror.asked) == 2


@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_what_arrived_is_continued(tmp_path: Path, mirror: Mirror, fault: str) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.faults["pool/a"] = [fault]
    assert bench(tmp_path, mirror, patience=SHORT).fetch(file) == BODY
    assert [ask[2] for ask in mirror.asked] == ["", f"bytes={len(BODY) // 2}-"]


@pytest.mark.parametrize("fault", ["no-range", "bad-range", "416"])
def test_a_server_that_cannot_continue_begins_again(tmp_path: Path, mirror: Mirror, fault: str) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.faults["pool/a"] = ["drop", fault]
    assert bench(tmp_path, mirror).fetch(file) == BODY


def test_the_next_run_continues(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    one = bench(tmp_path, mirror)
    one.downloads.mkdir()
    (one.downloads / f"{file.sha256}.part").write_bytes(BODY[:1000])
    assert one.fetch(file) == BODY
    assert mirror.asked == [("GET", "pool/a", "bytes=1000-")]


def test_a_whole_part_needs_no_mirror(tmp_path: Path) -> None:
    file = pin("pool/a", BODY)
    one = bench(tmp_path, offline=True)
    one.downloads.mkdir()
    (one.downloads / f"{file.sha256}.part").write_bytes(BODY)
    assert one.fetch(file) == BODY


@pytest.mark.parametrize("wrong", [b"\0" * 1000, b"\0" * len(BODY), BODY + b"tail"])
def test_a_wrong_part_is_thrown_away(tmp_path: Path, mirror: Mirror, wrong: bytes) -> None:
    file = mirror.add("pool/a", BODY)
    one = bench(tmp_path, mirror)
    one.downloads.mkdir()
    (one.downloads / f"{file.sha256}.part").write_bytes(wrong)
    assert one.fetch(file) == BODY
    assert left_over(one) == []


def test_wrong_bytes_are_refused_and_named(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.always["pool/a"] = "wrong"
    one = bench(tmp_path, mirror)
    with pytest.raises(HashMismatch) as caught:
        one.fetch(file)
    assert one.shelf.bodies == {}
    assert caught.value.where == f"{mirror.base}/pool/a"
    assert f"expected sha256 {file.sha256}" in caught.value.detail
    assert "got sha256 " in caught.value.detail
    assert caught.value.hint
    assert len(mirror.asked) == 1
    assert list(one.downloads.iterdir()) == []


@pytest.mark.parametrize("fault", ["wrong", "short", "long", "gzip"])
def test_a_bad_mirror_does_not_spoil_a_good_one(tmp_path: Path, mirror: Mirror, second: Mirror, fault: str) -> None:
    file = mirror.add("pool/a", BODY)
    second.add("pool/a", BODY)
    mirror.always["pool/a"] = fault
    assert bench(tmp_path, mirror, second).fetch(file) == BODY


def test_a_beginning_from_a_bad_mirror_is_blamed_on_nobody(tmp_path: Path, mirror: Mirror, second: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.files["pool/a"] = b"x" * len(BODY)
    second.add("pool/a", BODY)
    mirror.faults["pool/a"] = ["drop", "404"]
    assert bench(tmp_path, mirror, second).fetch(file) == BODY
    assert [ask[2] for ask in second.asked] == [f"bytes={len(BODY) // 2}-", ""]


def test_a_mirror_that_drops_other_bytes_for_ever_ends(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.files["pool/a"] = b"x" * len(BODY)
    mirror.faults["pool/a"] = ["drop", ""] * 20
    with pytest.raises((NetworkLack, HashMismatch)):
        bench(tmp_path, mirror).fetch(file)
    assert len(mirror.asked) < 12


def test_unknown_size_is_fetched_and_capped(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    file = mirror.add("pool/a", BODY, size=0)
    assert bench(tmp_path, mirror).fetch(file) == BODY
    monkeypatch.setattr(part_module, "UNKNOWN_SIZE_CAP", len(BODY) - 1)
    with pytest.raises(HashMismatch, match="not the pinned file"):
        bench(tmp_path, mirror).fetch(file)


def test_a_public_address_needs_no_mirror(tmp_path: Path, mirror: Mirror) -> None:
    pinned = mirror.add("pool/a", BODY)
    file = PinnedFile(name="a", sha256=pinned.sha256, size=0, url=f"{mirror.base}/pool/a")
    assert bench(tmp_path).fetch(file) == BODY


def test_redirects_are_followed_but_only_on_the_web(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.files["pool/b"] = BODY
    mirror.faults["pool/a"] = [f"redirect:{mirror.base}/pool/b"]
    assert bench(tmp_path, mirror).fetch(file) == BODY
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    for address in (secret.as_uri(), "ftp://127.0.0.1/a", f"{mirror.base}/pool/a"):
        mirror.always["pool/a"] = f"redirect:{address}"
        with pytest.raises(NetworkLack):
            bench(tmp_path, mirror).fetch(file)


def test_not_there_on_every_mirror_is_gone(tmp_path: Path, mirror: Mirror, second: Mirror) -> None:
    one = bench(tmp_path, mirror, second)
    with pytest.raises(SourceGone) as caught:
        one.fetch(pin("pool/linux_6.12.orig.tar.xz", BODY))
    assert caught.value.exit_code == 3
    assert "linux_6.12.orig.tar.xz" in caught.value.message
    assert "anvil sources update" in caught.value.hint
    assert len(mirror.asked) == len(second.asked) == 1


def test_the_files_that_are_there_come_before_the_word_that_others_are_gone(tmp_path: Path, mirror: Mirror) -> None:
    one = bench(tmp_path, mirror)
    here = [mirror.add(f"pool/{name}", name.encode() * 1000) for name in "abc"]
    gone = [pin(f"pool/{name}", name.encode()) for name in "xy"]
    with pytest.raises(SourceGone) as caught:
        one.fetcher.fetch_all([gone[0], *here, gone[1]], one.shelf)
    assert sorted(one.shelf.bodies) == ["a", "b", "c"]
    assert sorted(caught.value.detail.split("\n")) == ["x", "y"]


def test_gone_on_one_and_silent_on_another_is_a_lack_of_network(tmp_path: Path, mirror: Mirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/debian"
    with pytest.raises(NetworkLack) as caught:
        bench(tmp_path, mirror, dead).fetch(pin("pool/a", BODY))
    assert "not there" in caught.value.detail
    assert caught.value.hint


def test_forbidden_is_not_asked_again(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.always["pool/a"] = "403"
    with pytest.raises(NetworkLack, match="403"):
        bench(tmp_path, mirror).fetch(file)
    assert len(mirror.asked) == 1


def test_a_silent_mirror_is_given_up_in_bounded_time(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    mirror.always["pool/a"] = "hang"
    begin = time.monotonic()
    with pytest.raises(NetworkLack, match="in time"):
        bench(tmp_path, mirror, patience=SHORT).fetch(file)
    assert time.monotonic() - begin < 10
    assert len(mirror.asked) == QUICK.attempts


FAULTS = ("404", "500", "403", "416", "drop", "short", "wrong", "long", "no-range", "bad-range", "gzip", "")


@pytest.mark.parametrize("seed", range(25))
def test_whatever_mirrors_do_a_file_is_right_or_there_is_an_error(
    tmp_path: Path, mirror: Mirror, second: Mirror, seed: int
) -> None:
    chance = random.Random(seed)
    files = [mirror.add(f"pool/{number}", chance.randbytes(20_000)) for number in range(4)]
    second.files.update(mirror.files)
    one = bench(tmp_path, mirror, second)
    one.downloads.mkdir()
    for file in files:
        for server in (mirror, second):
            server.faults[file.path] = chance.choices(FAULTS, k=chance.randrange(6))
            server.always[file.path] = chance.choice(("", "", "404", "wrong", "drop"))
        if chance.random() < 0.5:
            left = mirror.files[file.path][: chance.randrange(20_000)] + chance.randbytes(chance.randrange(2))
            (one.downloads / f"{file.sha256}.part").write_bytes(left)
    with suppress(NetworkLack, SourceGone, HashMismatch):
        one.fetcher.fetch_all(files, one.shelf, workers=2)  # the shelf checks each file's digest
    # And once the mirrors are well, everything is had, whatever was left behind.
    for server in (mirror, second):
        server.faults.clear()
        server.always.clear()
    one.fetcher.fetch_all(files, one.shelf, workers=2)
    assert {file.name for file in files} == set(one.shelf.bodies)
    assert left_over(one) == []


def test_a_dead_mirror_is_waited_for_once(tmp_path: Path, mirror: Mirror, second: Mirror) -> None:
    files = [second.add(f"pool/{number}", f"{number}".encode() * 50) for number in range(8)]
    for file in files:
        mirror.always[file.path] = "hang"
    one = bench(tmp_path, mirror, second, patience=SHORT)
    one.fetcher.fetch_all(files, one.shelf, workers=1)
    assert len(mirror.asked) == 1
    one.fetcher.fetch(second.add("pool/more", b"more"), one.shelf)
    assert len(mirror.asked) == 1


def test_a_trickle_is_given_up(tmp_path: Path, mirror: Mirror, second: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    second.add("pool/a", BODY)
    mirror.always["pool/a"] = "slow"
    patience = Patience(silence_seconds=5, pause_seconds=0.01, slow_bytes_per_second=10_000, slow_seconds=0.3)
    begin = time.monotonic()
    assert bench(tmp_path, mirror, second, patience=patience).fetch(file) == BODY
    assert time.monotonic() - begin < 10


def test_no_mirror_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLack) as caught:
        bench(tmp_path).fetch(pin("pool/a", BODY))
    assert caught.value.exit_code == 3
    assert "ANVIL_MIRROR_DEBIAN=" in caught.value.hint
    assert "--from DIR" in caught.value.hint


def test_offline_asks_nobody(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    other = mirror.add("pool/b", BODY + b"b")
    one = bench(tmp_path, mirror, offline=True)
    with pytest.raises(EnvironmentLack) as caught:
        one.fetcher.fetch_all([file, other], one.shelf)
    assert "--from DIR" in caught.value.hint
    assert caught.value.detail == "a\nb"
    assert mirror.asked == []


@pytest.mark.parametrize("place", ["a_1%3a2.deb", "a_1:2.deb", "pool/m/a_1:2.deb", "debian/pool/m/a_1:2.deb"])
def test_a_given_folder_is_looked_in(tmp_path: Path, place: str) -> None:
    path = tmp_path / "given" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    one = bench(tmp_path, offline=True, from_dir=tmp_path / "given")
    assert one.fetch(pin("pool/m/a_1:2.deb", BODY)) == BODY
    assert path.read_bytes() == BODY


def test_a_wrong_file_in_the_given_folder_is_named(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given/a").write_bytes(b"other" * 1000)
    file = mirror.add("pool/a", BODY)
    with pytest.raises(HashMismatch) as caught:
        bench(tmp_path, offline=True, from_dir=tmp_path / "given").fetch(file)
    assert caught.value.where.endswith("/given/a")
    assert bench(tmp_path, mirror, from_dir=tmp_path / "given").fetch(file) == BODY


def test_a_mirror_on_disk(tmp_path: Path) -> None:
    (tmp_path / "debian/pool").mkdir(parents=True)
    (tmp_path / "debian/pool/a").write_bytes(BODY)
    base = (tmp_path / "debian").as_uri()
    assert bench(tmp_path, base).fetch(pin("pool/a", BODY)) == BODY
    with pytest.raises(SourceGone):
        bench(tmp_path, base).fetch(pin("pool/b", BODY))


def test_several_at_once_each_digest_once(tmp_path: Path, mirror: Mirror) -> None:
    files = [mirror.add(f"pool/{number}", f"{number}".encode() * 5000) for number in range(20)]
    twin = PinnedFile(name="twin", sha256=files[0].sha256, size=files[0].size, archive="debian", path="pool/twin")
    seen: list[Progress] = []
    caller = threading.get_ident()
    threads: set[int] = set()

    def progress(event: Progress) -> None:
        threads.add(threading.get_ident())
        seen.append(event)

    one = bench(tmp_path, mirror, progress=progress)
    one.fetcher.fetch_all([*files, twin], one.shelf, workers=4)
    assert len(one.shelf.bodies) == 20
    assert sum(event.finished for event in seen) == 20
    assert all(event.done <= event.total for event in seen)
    assert threads == {caller}
    assert left_over(one) == []


def test_nothing_to_fetch_is_done(tmp_path: Path) -> None:
    bench(tmp_path).fetcher.fetch_all([], lambda *_: None)


@pytest.mark.parametrize("fault", ["hang", "stall", "slow"])
def test_cancel_ends_within_a_second_and_the_next_run_goes_on(tmp_path: Path, mirror: Mirror, fault: str) -> None:
    files = [mirror.add(f"pool/{number}", f"{number}".encode() * 100_000) for number in range(6)]
    for file in files:
        mirror.always[file.path] = fault
    end = time.monotonic() + 0.5
    one = bench(tmp_path, mirror, patience=Patience(), cancel=lambda: time.monotonic() > end)
    with pytest.raises(Interrupted):
        one.fetcher.fetch_all(files, one.shelf)
    assert time.monotonic() - end < 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    mirror.always.clear()
    again = bench(tmp_path, mirror)
    again.fetcher.fetch_all(files, again.shelf)
    assert len(again.shelf.bodies) == 6
    if fault == "stall":
        assert any(ask[2] for ask in mirror.asked)


def test_an_error_of_the_receiver_ends_it_and_keeps_the_file(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    one = bench(tmp_path, mirror)

    def refuse(_: PinnedFile, __: Path) -> None:
        raise DiskFull("the vault is full")

    with pytest.raises(DiskFull):
        one.fetcher.fetch(file, refuse)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    assert one.fetch(file) == BODY
    assert len(mirror.asked) == 1


def test_two_processes_share_one_part(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    one = bench(tmp_path, mirror)
    one.downloads.mkdir()
    path = one.downloads / f"{file.sha256}.part"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-Sc",
            (
                "import fcntl,os,sys,time; f=open(sys.argv[1],'w+b'); fcntl.flock(f,fcntl.LOCK_EX);"
                "print('held',flush=True); time.sleep(0.5); os.rename(sys.argv[1], sys.argv[1]+'.taken')"
            ),
            str(path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        assert one.fetch(file) == BODY
        assert holder.wait(10) == 0
    assert left_over(one) == [path.name + ".taken"]
    assert (one.downloads / (path.name + ".taken")).read_bytes() == b""


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path, mirror: Mirror) -> None:
    file = mirror.add("pool/a", BODY)
    one = bench(tmp_path, mirror)
    one.downloads.mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (one.downloads / f"{file.sha256}.part").symlink_to(tmp_path / "precious")
    with pytest.raises(EnvironmentLack):
        one.fetch(file)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_too_little_room_is_said_before_anything_is_asked(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = mirror.add("pool/a", BODY)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFull) as caught:
        bench(tmp_path, mirror).fetch(file)
    assert caught.value.hint
    assert mirror.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_a_full_disk(tmp_path: Path, mirror: Mirror) -> None:
    small = tmp_path / "downloads"
    small.mkdir()
    # In a mount namespace of its own, so that nothing can be left mounted.
    script = (
        "import sys; sys.path[:0]=[sys.argv[4]]\n"
        "from pathlib import Path\n"
        "from anvil.errors import DiskFull\n"
        "from anvil.model.lock import PinnedFile\n"
        "from anvil.sources.fetch import Fetcher\n"
        "from anvil.sources.mirrors import Mirrors\n"
        "file=PinnedFile(name='a',sha256=sys.argv[3],size=0,archive='debian',path='pool/a')\n"
        "fetcher=Fetcher(Mirrors(bases={'debian':(sys.argv[2],)}),Path(sys.argv[1]))\n"
        "try: fetcher.fetch(file, print)\n"
        "except DiskFull as error: print('full:', error.hint)\n"
    )
    file = mirror.add("pool/a", BODY)
    arguments = [str(small), mirror.base, file.sha256, str(Path(part_module.__file__).parents[2])]
    mounted = 'mount -t tmpfs -o size=256k none "$1" && exec "$0" -c "$SCRIPT" "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, sys.executable, *arguments],
        env={**os.environ, "SCRIPT": script},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no mount namespace here")
    assert done.stdout.startswith("full: "), done.stderr


def test_errors_of_the_disk_in_our_words(tmp_path: Path) -> None:
    full: AnvilError = part_module.translate(OSError(errno.EDQUOT, "quota"), tmp_path / "x")
    assert isinstance(full, DiskFull)
    assert isinstance(part_module.translate(OSError(errno.EROFS, "read-only"), tmp_path / "x"), EnvironmentLack)
    (tmp_path / "downloads").write_text("a file in its place")
    with pytest.raises(EnvironmentLack):
        bench(tmp_path, "http://127.0.0.1:9/debian").fetch(pin("pool/a", BODY))


def test_answers_asks_without_fetching(tmp_path: Path, mirror: Mirror) -> None:
    one = bench(tmp_path, mirror)
    file = mirror.add("pool/a", BODY)
    assert one.fetcher.answers(file)
    assert [ask[0] for ask in mirror.asked] == ["HEAD"]
    assert not one.fetcher.answers(pin("pool/b", BODY))
    assert not one.fetcher.answers(pin("pool/a", BODY, size=5))
    mirror.always["pool/a"] = "500"
    with pytest.raises(NetworkLack):
        one.fetcher.answers(file)
    assert not bench(tmp_path, offline=True).fetcher.answers(file)
    with pytest.raises(EnvironmentLack):
        bench(tmp_path).fetcher.answers(file)


def test_read_gives_small_files_only(tmp_path: Path, mirror: Mirror, second: Mirror) -> None:
    one = bench(tmp_path, mirror, second)
    second.files["dists/trixie/InRelease"] = b"signed"
    assert one.fetcher.read("debian", "dists/trixie/InRelease", limit=100) == b"signed"
    with pytest.raises(IntegrityError):
        one.fetcher.read("debian", "dists/trixie/InRelease", limit=5)
    with pytest.raises(SourceGone):
        one.fetcher.read("debian", "dists/sid/InRelease", limit=5)
    second.always["dists/trixie/InRelease"] = "500"
    with pytest.raises(NetworkLack):
        one.fetcher.read("debian", "dists/trixie/InRelease", limit=100)
    with pytest.raises(EnvironmentLack):
        one.fetcher.read("elsewhere", "x", limit=5)


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", mirror.base.removesuffix("/debian"))
    monkeypatch.delenv("no_proxy", raising=False)
    file = pin("pool/a", BODY)
    mirror.files["http://mirror.invalid/debian/pool/a"] = BODY
    assert bench(tmp_path, "http://mirror.invalid/debian").fetch(file) == BODY
