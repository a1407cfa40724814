from __future__ import annotations

import itertools
import random
import shutil
import subprocess

import pytest

from anvil.errors import IntegrityError
from anvil.sources.version import number_key, sort_key, upstream_version

# Each line rises; versions on one line are equal. Cases of the Policy Manual, of dpkg's behaviour, and of real life.
RISING = """
0~~ 0~~-0
0~~a
0~
0 0-0 0:0 00 0-00
0-0.1 0-0.01
0a
0+
0.0~rc1
0.0 0.
1.0~~
1.0~~a
1.0~
1.0~beta1~svc
1.0~beta1
1.0 1.00 1.0-0 0:1.0
1.0-1~bpo12+1
1.0-1 1.0-01
1.0-1+b1
1.0-1+deb12u1
1.0-1.1
1.0-2
1.0-10
1.0a
1.0aa
1.0b
1.0+dfsg-1
1.0+really0.9
1.0.0~
1.0.1
1.2.3-1-1
1.2.3.4
1.10
1.20-3
6.12.74-2
6.12.107-1
6.12.107-1+deb13u1
9
10
1:0
1:0.1
1:1.3.dfsg+really1.3.1-1~
1:1.3.dfsg+really1.3.1-1
1:1.3.dfsg+really1.3.1-1+deb13u1
2:0~
10:0
"""
LINES = [line.split() for line in RISING.split("\n") if line]


def test_versions_sort_as_in_debian() -> None:
    for (low_index, low), (high_index, high) in itertools.product(enumerate(LINES), repeat=2):
        for left, right in itertools.product(low, high):
            if low_index == high_index:
                assert sort_key(left) == sort_key(right), (left, right)
            else:
                assert (sort_key(left) < sort_key(right)) == (low_index < high_index), (left, right)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg to compare with")
def test_versions_sort_as_dpkg_says() -> None:
    chance = random.Random(20)
    for _ in range(150):
        pair = []
        for _side in range(2):
            tail = "".join(chance.choice("0019az.+~~-") for _ in range(chance.randrange(7))).rstrip("-")
            pair.append(f"{chance.choice(['', '0:', '1:'])}{chance.randrange(3)}{tail}")
        if any("-" in one.partition(":")[2] and one.endswith("-") for one in pair):
            continue
        left, right = (sort_key(one) for one in pair)
        relation = "lt" if left < right else "gt" if left > right else "eq"
        done = subprocess.run(["dpkg", "--compare-versions", pair[0], relation, pair[1]], check=False)
        assert done.returncode == 0, (pair, relation)


@pytest.mark.parametrize("bad", ["", "a1", "1:", ":1", "x:1", "1 2", "1_2", "1-", "-1", "1\n", "٣"])
def test_what_is_no_version_is_refused(bad: str) -> None:
    with pytest.raises(IntegrityError):
        sort_key(bad)


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("6.12.107-1", "6.12.107"),
        ("2.3.2-2~bpo12+2", "2.3.2"),
        ("1:1.37.0-6", "1.37.0"),
        ("1:1.3.dfsg+really1.3.1-1+deb13u1", "1.3.1"),
        ("1.3.6+ds-1", "1.3.6"),
        ("3.5.7-1~deb13u3", "3.5.7"),
        ("2.0.dfsg.1-3", "2.0"),
        ("1.26.1+ds2-1", "1.26.1"),
        ("7.0~rc1-1~exp1", "7.0~rc1"),
    ],
)
def test_the_upstream_version(version: str, upstream: str) -> None:
    assert upstream_version(version) == upstream


def test_numbers() -> None:
    assert number_key("6.12.107") == (6, 12, 107)
    assert number_key("6.14-rc3") == (6, 14)
    with pytest.raises(IntegrityError):
        number_key("next")
