"""The difference between two configurations, from texts that may be hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil.errors import OutputForbidden
from anvil.mainframe.shellconfig import CONFIG_BYTES, difference, fragment, parse_config

BEFORE = b"""#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc (Debian 14.2.0-19) 14.2.0"
CONFIG_HZ=250
# CONFIG_BTRFS_FS is not set
CONFIG_NET=y
CONFIG_INET=y
CONFIG_CMDLINE="a \\"b\\" \\\\ c"
"""

AFTER = b"""CONFIG_CC_VERSION_TEXT="gcc (another) 15"
CONFIG_HZ=1000
CONFIG_BTRFS_FS=y
CONFIG_BTRFS_FS_POSIX_ACL=y
# CONFIG_NET is not set
CONFIG_CMDLINE="a \\"b\\" \\\\ c"
CONFIG_PHYSICAL_START=0x1000000
"""


def test_only_what_differs_is_in_the_fragment() -> None:
    changed = difference(parse_config(BEFORE), parse_config(AFTER))
    assert fragment(changed, title="Mine.") == (
        "# Mine.\nCONFIG_HZ=1000\nCONFIG_BTRFS_FS=y\nCONFIG_BTRFS_FS_POSIX_ACL=y\n# CONFIG_NET is not set\n"
        "CONFIG_PHYSICAL_START=0x1000000\n# CONFIG_INET is not set\n"
    )


def test_the_same_text_gives_nothing() -> None:
    assert difference(parse_config(BEFORE), parse_config(BEFORE)) == {}


@pytest.mark.parametrize(
    "line",
    [
        b"CONFIG_A=yes",
        b"CONFIG_A=y; rm -rf /",
        b'CONFIG_A="open',
        b'CONFIG_A="a" b"',
        b"CONFIG_A=y\x1b]0;owned\x07",
        b"# \x1b[2J",
        b"# caf\xc3\xa9",
        b"CONFIG_A=\x00",
        b"include /etc/passwd",
        b"$(shell,touch /tmp/x)",
        b"CONFIG_A B=y",
        b'CONFIG_A="' + b"x" * 5000 + b'"',
        b"#" * 5000,
    ],
)
def test_what_is_no_configuration_is_refused(line: bytes) -> None:
    with pytest.raises(OutputForbidden) as caught:
        parse_config(b"CONFIG_HZ=250\n" + line + b"\n")
    assert caught.value.where == ".config, line 2"


def test_too_much_is_refused() -> None:
    with pytest.raises(OutputForbidden):
        parse_config(b"#\n" * (CONFIG_BYTES // 2))


_NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
_VALUES = st.one_of(
    st.sampled_from(["y", "m", "n", "0x1F"]),
    st.integers(-(2**31), 2**31).map(str),
    st.text("ab \\\"$'", max_size=8).map(lambda t: '"' + t.replace("\\", "\\\\").replace('"', '\\"') + '"'),
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=30))
def test_a_fragment_is_itself_a_configuration(options: dict[str, str]) -> None:
    assert parse_config(fragment(options, title="x").encode()) == options


@given(st.dictionaries(_NAMES, _VALUES, max_size=10), st.dictionaries(_NAMES, _VALUES, max_size=10))
def test_what_differs_laid_over_the_one_gives_the_other(before: dict[str, str], after: dict[str, str]) -> None:
    def ours(options: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in options.items() if "VERSION" not in name}

    merged = {**before, **difference(before, after)}
    for name, value in ours(after).items():
        assert merged.get(name, "n") == value
    for name in ours(before).keys() - after.keys():
        assert merged[name] == "n" or before[name] not in {"y", "m"}
