"""Garbage collection of a home, against an oracle of its own: what is reachable stays whole, the rest goes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anvil.cli.garbage import seconds, size
from anvil.errors import AnvilError, IntegrityError, UsageError
from anvil.mainframe.check_home import second_home
from anvil.mainframe.garbage import Collection, Line
from anvil.mainframe.garbage_choice import Policy
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.registry import MessageID
from anvil.model.layer import Digest
from anvil.vault.generation import Generations
from anvil.vault.store import Vault
from tests.mainframe.garbage_model import AGE, DAY, OLD, model, random_home
from tests.vault.support import needs_unshare

PROPERTY = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@PROPERTY
@given(st.integers(0, 1 << 30), st.sampled_from([0.0, AGE]))
def test_by_age_what_is_reachable_is_whole_and_the_rest_is_gone(seed: int, older: float) -> None:
    with model() as home:
        random_home(home, random.Random(seed))
        home.rest()
        busy = Vault(home.vault.root)  # somebody else, at work with something that nothing refers to yet
        handled = {busy.put_bytes(b"in somebody's hand")}
        for digest in sorted(home.loose)[:1]:
            assert busy.claim(Digest(digest))
            handled.add(Digest(digest))
        Collection(home.services, Policy(older=older)).run()
        left = [each for each in home.made if each.rooted or each.back < older]
        assert home.keys() == {each.key for each in left}
        wanted = {d for each in left for d in each.digests} | home.stays | handled | home.labels()
        assert home.blobs() == wanted
        home.check_whole()
        busy.generations.unpin()
        home.collect(Policy(older=older))
        assert home.blobs() == wanted - handled


@PROPERTY
@given(st.integers(0, 1 << 30), st.integers(0, 400))
def test_by_size_what_was_used_least_lately_goes_until_it_fits(seed: int, kilobytes: int) -> None:
    with model() as home:
        random_home(home, random.Random(seed))
        home.collect(Policy(keep=kilobytes * 1000))
        home.check_whole()
        left = home.keys()
        gone = [each for each in home.made if each.key not in left]
        assert {each.key for each in home.made if each.rooted} <= left
        optional = [each for each in home.made if not each.rooted and each.key in left]
        assert all(one.back <= other.back for one in optional for other in gone)
        wanted = {d for each in home.made if each.key in left for d in each.digests} | home.stays | home.labels()
        assert home.blobs() == wanted
        report = Collection(home.services, Policy(keep=kilobytes * 1000)).run(dry=True)
        assert report.total <= kilobytes * 1000 or not optional


def test_a_dry_run_changes_nothing_and_says_why_things_stay() -> None:
    with model() as home:
        kept, old = home.result({"a": "kept"}, back=OLD), home.result({"b": "old"}, back=OLD)
        home.release([kept], there=True)
        home.deck("jam", [kept])
        home.rest()
        before = home.blobs(), home.keys(), home.db.ledger_head()
        report = Collection(home.services, Policy(older=AGE)).run(dry=True)
        assert (home.blobs(), home.keys(), home.db.ledger_head()) == before
        gone = {line.what: line for line in report.gone}
        assert gone["results"].count == 1
        assert gone["blobs"].count == len(old.digests)
        stays = {line.what: line for line in report.stays}
        assert str(home.path / "artifact") in stays["released"].why
        assert stays["released"].size > 0
        assert "jam" in stays["jam"].why


def test_what_was_of_use_lately_stays_and_a_use_is_written_once_an_hour() -> None:
    with model() as home:
        old = home.result({"a": "old"}, back=OLD)
        home.clock.back = 2 * DAY
        home.db.touch([old.key, "no such key"])
        events = os.stat(f"{home.db.path}-wal").st_size
        home.clock.back = 2 * DAY - 1800
        home.db.touch([old.key])
        assert os.stat(f"{home.db.path}-wal").st_size == events
        home.clock.back = 0
        home.collect(Policy(older=AGE))
        assert home.keys() == {old.key}
        home.collect(Policy(older=1 * DAY))
        assert home.keys() == set()


def test_what_checks_left_goes_by_age_unless_a_check_is_in_it() -> None:
    def checks(lines: list[Line]) -> list[int]:
        return [line.count for line in lines if line.what == "checks" and line.size >= 5000]

    with model() as home:
        first = home.services.home.path
        left, held = (first / "check" / f"the second making of {name}" for name in ("one", "two"))
        for folder in (left, held):
            (folder / "vault").mkdir(parents=True)
            (folder / "vault" / "blob").write_bytes(bytes(5000))
            os.utime(folder, (time.time() - OLD,) * 2)
        with second_home(first, "two", images=True):
            assert checks(Collection(home.services, Policy(older=2 * OLD)).run(dry=True).stays) == [1]
            assert checks(Collection(home.services, Policy(older=AGE)).run().gone) == [1]
            assert (left.exists(), held.exists()) == (False, True)
        assert checks(Collection(home.services, Policy(keep=0)).run().gone) == [1]
        assert not held.exists()


def test_a_copy_of_the_language_that_is_being_made_stays() -> None:
    with model() as home:
        folder = home.services.home.language
        for name in ("tmp-now", "0" * 64):
            (folder / name).mkdir()
        home.collect(Policy(older=0))
        assert [path.name for path in folder.iterdir()] == ["tmp-now"]


def test_the_ledger_says_what_went() -> None:
    with model() as home:
        old = home.result({"a": "old"}, back=OLD)
        home.collect(Policy(older=AGE))
        (event,) = home.db.events(kind=MessageID.GARBAGE_COLLECTED)
        assert json.loads(event.body)["results"]["count"] == 1
        assert json.loads(event.body)["blobs"]["count"] == len(old.digests)
        assert [json.loads(e.body)["key"] for e in home.db.events(kind=MessageID.RESULT_FORGOTTEN)] == [old.key]
        home.collect(Policy(older=AGE))
        assert len(home.db.events(kind=MessageID.GARBAGE_COLLECTED)) == 1


def test_what_cannot_be_read_ends_the_collection_and_nothing_is_lost() -> None:
    with model() as home:
        home.result({"a": "old"}, back=OLD)
        young = home.result({"b": "young"}, back=0)
        path = home.vault.path(young.result.stack[0].digest)
        path.chmod(0o644)
        sound = path.read_bytes()
        path.write_bytes(b"damaged")
        home.services.layers._indexes.clear()
        before = home.blobs(), home.keys()
        with pytest.raises(IntegrityError, match="damaged") as caught:
            home.collect(Policy(older=AGE))
        assert "verify --mend" in caught.value.hint
        assert (home.blobs(), home.keys()) == before
        path.write_bytes(sound)
        home.collect(Policy(older=AGE))
        assert home.keys() == {young.key}
        home.check_whole()


def test_two_collections_do_not_meet() -> None:
    with model() as home:
        other = Generations(home.vault.root)
        with other.only_collection(), pytest.raises(AnvilError, match="another process"):
            home.collect(Policy(older=AGE))
        home.collect(Policy(older=AGE))


# --- killed anywhere ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_every_step_it_leaves_a_whole_home_and_the_next_one_ends_it() -> None:
    with model() as home:
        for number in range(230):  # more than are forgotten at once
            home.result({"f": f"old {number}"}, back=OLD, cached=number < 3)
        kept = home.result({"a": "kept"}, back=OLD)
        home.release([kept], there=True)
        home.rest()
        home.services.close()
        steps = 0
        while True:
            child = os.fork()
            if child == 0:
                collect_until(home.path / "home", steps)
            _, status = os.waitpid(child, 0)
            home.services = Services(home.services.settings)
            home.db, home.vault = home.services.db, home.services.vault
            home.check_whole()
            assert {kept.key} <= home.keys()
            if status == 0:
                break
            assert os.WIFSIGNALED(status)
            home.services.close()
            # early every step, later some: the sweep has one for each folder of blobs
            steps += 1 if steps < 20 else 37
        assert steps > 100
        assert home.keys() == {kept.key}
        assert home.blobs() == kept.digests | home.stays | home.labels()


def collect_until(path: Path, step: int) -> None:
    """In a child: collect, and be killed at a step; ends the process."""
    code = 1
    try:
        said = 0

        def tell(_text: str) -> None:
            nonlocal said
            said += 1
            if said > step:
                os.kill(os.getpid(), signal.SIGKILL)

        with Services(Settings(home=path, output=path)) as services:
            Collection(services, Policy(older=AGE), tell=tell).run()
        code = 0
    finally:
        os._exit(code)


# --- a full disk -------------------------------------------------------------------------------------------------

FULL = """
import os, sys
from pathlib import Path
from anvil.mainframe.home import Home
from tests.mainframe.garbage_model import Model, OLD
home = Model(path=Path(sys.argv[1]))
for n in range(40):
    home.result({"f": f"{n} " + "x" * 50_000}, back=OLD, cached=sys.argv[2] == "trees")
if sys.argv[2] == "reserve":
    home.services.home.reserve.write_bytes(bytes(2_000_000))
home.close()
with open(sys.argv[1] + "/filling", "wb", buffering=0) as file:
    for size in (1 << 16, 4096, 1):
        try:
            while True:
                file.write(bytes(size))
        except OSError:
            pass
assert os.statvfs(sys.argv[1]).f_bavail == 0
"""


@needs_unshare
@pytest.mark.parametrize("what", ["trees", "reserve"])
def test_it_works_on_a_full_disk(tmp_path: Path, what: str) -> None:
    root = str(Path(__file__).parents[2])
    script = (
        'mount -t tmpfs -o size=24m,mode=700 none "$1"; "$2" -c "$3" "$1" "$4"; '
        'if "$2" -m anvil.cli.main stack --home "$1/home"; then exit 9; fi; '
        '"$2" -m anvil.cli.main vault gc --home "$1/home"; '
        '"$2" -m anvil.cli.main vault gc --home "$1/home" --json'
    )
    flags = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    command = ["unshare", *flags, "sh", "-euc", script, "sh", str(tmp_path), sys.executable, FULL, what]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "anvil vault gc" in done.stderr  # what a command says that cannot begin
    assert "40 results" in done.stdout
    assert json.loads(done.stdout[done.stdout.index("{") :])["gone"] == []


# --- the command line --------------------------------------------------------------------------------------------


def test_the_words_for_ages_and_sizes() -> None:
    assert [seconds(text) for text in ("90s", "12h", "30d", "2w", "0")] == [90, 43_200, 30 * DAY, 14 * DAY, 0]
    assert [size(text) for text in ("20GB", "500M", "1.5tb", "0", "7")] == [20 * 10**9, 500 * 10**6, 15 * 10**11, 0, 7]
    assert int(seconds("9" * 400 + "w") * 1_000_000) < 2**63  # as the database takes it
    for wrong in ("", "x", "30", "-1d", "d"):
        with pytest.raises(UsageError):
            seconds(wrong)
    for wrong in ("", "big", "-1GB", "20 XB"):
        with pytest.raises(UsageError):
            size(wrong)
