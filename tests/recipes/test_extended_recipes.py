"""The built-in recipes, extended: what is added comes where it belongs, and what is wrong with it is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from anvil.mainframe.book import RecipeBook
from anvil.mainframe.services import LOCKS
from anvil.recipe.evaluate import evaluate_closure
from anvil.sources.lockfile import read_source_lock

MONOLITH = Path(__file__).parents[2] / "src" / "anvil" / "recipes" / "monolith"
HEAD = 'from anvil.recipe import Recipe\nos = Recipe("{}", extends="{}", licence="MIT")\n'
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBFDlPtT7rGGYRQ8ZJr2aaGlmRVBGzzpWJmXCLjWmZpd ada@home"
ALL = f"""
built = os.run("build", None, "cc")
os.root_file("bin/hello", built / "hello", mode=0o755)
os.root_file("etc/hello.conf", os.file("conf"))
os.root_text("etc/motd", "it's mine\\n")
os.root_link("usr/bin/hi", "/bin/it's")
os.root_tree(built.out)
os.user("ada", uid=1000, summary="Ada", groups=["tty"])
os.user("web", uid=800, home="/", shell="/bin/false")
os.ssh_key("ada", "{KEY}")
os.service("hello", "/bin/hello --serve", user="web")
os.hostname("my-os")
os.kernel_options({{"BTRFS_FS": "y", "IPV6": False}})
os.kernel_fragment(os.file("fragment"))
os.kernel_line("quiet", "mitigations=auto")
"""


@cache
def _request() -> dict[str, Any]:
    lock = read_source_lock(LOCKS / "debian.json")
    sources = {name: {"version": s.version, "facts": dict(s.facts)} for name, s in lock.sources.items()}
    return {"profile": "debian", "sources": sources, "recipes": RecipeBook().texts()}


def evaluate(mine: str, base: str | None = None) -> dict[str, Any]:
    """Evaluate a recipe that extends the ISO, or another one that does."""
    request = dict(_request())
    request["recipes"] = {
        **request["recipes"],
        "mine": HEAD.format("mine", "base" if base is not None else "iso") + mine,
    }
    if base is not None:
        request["recipes"]["base"] = HEAD.format("base", "iso") + base
    return evaluate_closure({**request, "wanted": ["mine"]})


def decks(mine: str, base: str | None = None) -> dict[str, Any]:
    answer = evaluate(mine, base)
    assert "error" not in answer, answer
    found: dict[str, Any] = answer["decks"]
    return found


def steps(deck: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in deck["steps"]}


def texts(deck: dict[str, Any]) -> dict[str, str]:
    """What the root's texts say, by where they go."""
    found = steps(deck)
    placed = {}
    for line in found["root"]["script"].splitlines():
        if words := re.fullmatch(r"lay_file '.*' \d+ '(.*)' /in/(\S+)", line.strip()):
            ref = found["root"]["inputs"][words[2]]
            if ref.get("step") in found:
                placed[words[1]] = found[ref["step"]]["extra"]["text"]
    return placed


@cache
def plain() -> dict[str, Any]:
    answer = evaluate_closure({**_request(), "wanted": ["iso"]})
    found: dict[str, Any] = answer["decks"]
    return found


def test_who_adds_nothing_changes_nothing_but_the_limit_of_the_isos_size() -> None:
    found = decks("")
    assert {name for name, deck in found.items() if deck != plain().get(name)} == {"mine", "iso"}
    one, other = steps(plain()["iso"]), steps(found["iso"])
    assert {name for name, step in one.items() if step != other[name]} == {"iso"}
    assert one["iso"]["script"].startswith(other["iso"]["script"])
    assert "over 30 MiB" in one["iso"]["script"].removeprefix(other["iso"]["script"])


def test_only_what_receives_something_changes() -> None:
    for line, changed in (
        ('os.root_text("etc/motd", "x")', {"rootfs"}),
        ('os.kernel_options({"BTRFS_FS": "y"})', {"kernel"}),
        ('os.kernel_line("quiet")', set()),
    ):
        found = decks(line)
        assert {name for name, deck in found.items() if deck != plain().get(name)} == {"mine", "iso", *changed}


def test_everything_comes_where_it_belongs() -> None:
    found = decks(ALL)
    root = steps(found["rootfs"])["root"]
    for line in (
        "lay_file 'mine' 755 'bin/hello' /in/added-2",
        "lay_link 'mine' 'usr/bin/hi' '/bin/it'\\''s'",
        "lay_tree 'mine (mine:build/out)' /in/added-1",
        "lay_tree 'mine (dropbear)' /in/added-11",
        "lay_home 'mine' 1000 1000 home/ada",
        "chmod 700 home/ada/.ssh",
    ):
        assert line in root["script"].splitlines(), root["script"]
    assert root["script"].splitlines()[-1].strip() == "pack_root"
    assert root["inputs"]["added-2"] == {"step": "build", "tree": "work", "path": "hello", "of": "mine"}
    said = texts(found["rootfs"])
    assert said["etc/motd"] == "it's mine\n"
    assert said["home/ada/.ssh/authorized_keys"] == f"{KEY}\n"
    assert said["etc/anvil/services/hello"] == "web\nlog\nrespawn\n/bin/hello --serve\n"
    assert said["etc/anvil/services/dropbear"] == "root\nlog\nrespawn\n/sbin/anvil-sshd\n"
    assert said["etc/hostname"] == "my-os\n"
    assert "web:x:800:800::/:/bin/false\n" in said["etc/passwd"]
    assert "ada:!:" in said["etc/shadow"]
    assert "tty:x:5:ada\n" in said["etc/group"]
    assert said["etc/inittab"].endswith(
        "::respawn:/sbin/anvil-service hello\n::respawn:/sbin/anvil-service dropbear\n"
    )
    menu = steps(found["iso"])["kernel-line"]["extra"]["text"]
    assert 'set consoles="$consoles quiet mitigations=auto"' in menu
    taken = {
        ref["file"] for deck in found.values() for s in deck["steps"] for ref in s["inputs"].values() if "file" in ref
    }
    assert {"rootfs/lay.sh", "rootfs/anvil-service", "kernel/needed", "kernel/lay-options.sh"} <= taken


def test_the_kernels_config_is_made_from_what_is_laid_over_it() -> None:
    kernel = steps(decks(ALL)["kernel"])
    assert kernel["options-1"]["extra"]["text"] == "CONFIG_BTRFS_FS=y\n# CONFIG_IPV6 is not set\n"
    assert kernel["options"]["script"].endswith("sh /in/lay-options 'mine' /in/options-1 'mine' /in/fragment-1")
    assert kernel["options"]["inputs"]["fragment-1"] == {"file": "fragment", "of": "mine"}
    for name in ("config", "config-zfs"):
        for part in ("base", "mitigations"):
            assert kernel[name]["inputs"][part] == {"step": "options", "tree": "out", "path": part}
        assert kernel[name]["script"] == steps(plain()["kernel"])[name]["script"]


def test_without_keys_nothing_of_the_ssh_server_is_there() -> None:
    found = decks(ALL.replace("os.ssh_key", "max"))
    assert "dropbear" not in found
    assert "dropbear" not in str(found["rootfs"]["steps"])


def test_a_payload_of_the_ssh_server_is_laid_once_and_started_only_with_a_key() -> None:
    without = decks('os.payload("dropbear")')
    assert steps(without["rootfs"])["root"]["script"].count("lay_tree") == 1
    assert not texts(without["rootfs"])
    with_key = decks(f'os.payload("dropbear"); os.ssh_key("root", "{KEY}")')
    assert steps(with_key["rootfs"])["root"]["script"].count("lay_tree") == 1
    assert "etc/anvil/services/dropbear" in texts(with_key["rootfs"])


def test_the_full_iso_extends_the_small_one_with_every_payload() -> None:
    answer = evaluate_closure({**_request(), "wanted": ["iso-full"]})["decks"]
    assert {"iso", "rootfs", "kernel", "dropbear"} <= set(answer)
    assert answer["kernel"] == plain()["kernel"]
    assert "dropbear" not in plain()


def test_what_the_root_says_without_additions_is_what_the_recipe_starts_from() -> None:
    """The recipe writes these texts as a whole: its own lines are those of the files beside it."""
    said = texts(decks('os.user("ada", uid=1000)\nos.service("x", "/bin/x")\nos.hostname("anvil")')["rootfs"])
    for path, name, added in (
        ("etc/passwd", "passwd", 1), ("etc/shadow", "shadow", 1), ("etc/group", "group", 1),
        ("etc/inittab", "inittab", 1), ("etc/hostname", "hostname", 0), ("etc/hosts", "hosts", 0),
    ):  # fmt: skip
        lines = said[path].splitlines(keepends=True)
        own = lines[:-added] if added else lines
        assert "".join(own) == (MONOLITH / "rootfs" / name).read_text(), path


@pytest.mark.parametrize(
    ("mine", "why"),
    [
        ('os.root_text("etc", "x"); os.root_text("etc/motd", "y")', "/etc is a file for one"),
        ('os.root_text("etc/passwd", "x"); os.user("ada", uid=1000)', "both put /etc/passwd there"),
        ('os.root_text("etc/inittab", "x"); os.service("x", "/bin/x")', "both put /etc/inittab there"),
        ('os.user("root", uid=1000)', "a user or group of that name"),
        ('os.user("tty", uid=1000)', "a user or group of that name"),
        ('os.user("a", uid=1000); os.user("b", uid=1000)', "a and b both have the uid 1000"),
        ('os.user("a", uid=1000); os.user("b", uid=1001, gid=1000)', "the group a has the gid 1000 already"),
        ('os.user("a", uid=5)', "the group tty has the gid 5 already"),
        ('os.user("a", uid=1000, home="/usr/a")', "/usr/a cannot be its home"),
        ('os.user("a", uid=1000, home="/var")', "/var cannot be its home"),
        ('os.user("a", uid=1000); os.user("b", uid=1001, home="/home/a/b")', "/home/a/b cannot be its home"),
        ('os.user("a", uid=1000); os.user("b", uid=1001, home="/home")', "/home cannot be its home"),
        ('os.user("a", uid=1000, groups=["wheel"])', "no group is called 'wheel'"),
        ('os.service("x", "/bin/x", user="ada")', "is no user of the root"),
        (f'os.ssh_key("ada", "{KEY}")', "is no user of the root"),
        (f'os.ssh_key("nobody", "{KEY}")', "nobody has no home"),
        # by hand, past the words
        ('os.extend("rootfs", "root", "/etc/motd", {"kind": "text", "mode": 420, "text": ""})', "plain relative path"),
        ('os.extend("rootfs", "root", "etc/motd", {"kind": "text", "mode": 2541, "text": "x"})', "its mode is wrong"),
        ('os.extend("rootfs", "root", "etc/motd", {"kind": "device"})', "is no kind of thing"),
        ('os.extend("rootfs", "root", "etc/motd", {"kind": "file", "mode": 420})', "no file or folder called"),
        ('os.extend("rootfs", "services", "x", {"command": "/x"})', "is no user of the root"),
        ('os.extend("rootfs", "ssh-keys", "x", {"user": "root", "key": "AAAA"})', "no public ssh key"),
        ('os.extend("kernel", "options", "BTRFS-FS", {"value": "y"})', "not a kernel option's name"),
        ('os.extend("kernel", "options", "BTRFS_FS", {"value": "y\\nCONFIG_X=y"})', "no value of a kernel option"),
        ('os.extend("kernel", "options", "BTRFS_FS", {"value": "yes"})', "no value of a kernel option"),
        ('os.extend("iso", "kernel-line", "x", {"word": "x; halt"})', "not a word of the kernel line"),
        ('os.kernel_line("loglevel=7")', "the menu's own loglevel=4 stands behind it and wins"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_the_extenders_name(mine: str, why: str) -> None:
    answer = evaluate(mine)
    assert answer.get("recipe") == "mine", answer
    assert why in answer["error"]["message"]
    assert "mine" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("mine", "base", "why"),
    [
        ('os.root_text("etc/motd", "x")', 'os.root_text("etc/motd", "y")', "root 'etc/motd' is"),
        ('os.root_link("etc/motd", "x")', 'os.root_text("etc/motd", "y")', "root 'etc/motd' is"),
        ('os.kernel_options({"A": "y"})', 'os.kernel_options({"A": "n"})', "options 'A' is (value 'n') for one"),
        ('os.user("ada", uid=1000)', 'os.user("ada", uid=1001)', "users 'ada' is"),
        ('os.user("ada", uid=1000)', 'os.user("bob", uid=1000)', "bob and ada both have the uid 1000"),
        ('os.service("x", "/bin/x")', 'os.service("x", "/bin/y")', "services 'x' is"),
        ('os.hostname("a")', 'os.hostname("b")', "hostname 'hostname' is (name 'b') for one and (name 'a')"),
        ('os.kernel_line("m=a")', 'os.kernel_line("m=b")', "kernel-line 'm' is"),
    ],
)
def test_a_chain_that_contradicts_itself_is_told_with_both_names(mine: str, base: str, why: str) -> None:
    answer = evaluate(mine, base)
    message = answer["error"]["message"]
    assert message.startswith(("base and mine contradict each other", "mine and base contradict each other"))
    assert why in message
    assert "take it out of" in answer["error"]["hint"]


def test_a_chain_that_agrees_is_fine() -> None:
    same = f'os.user("ada", uid=1000); os.ssh_key("ada", "{KEY}"); os.kernel_options({{"BTRFS_FS": "y"}})'
    found = decks(same, same)
    assert "lay_home 'base and mine' 1000 1000 home/ada" in steps(found["rootfs"])["root"]["script"]


# ---- the scripts, run


@pytest.mark.parametrize("script", ["rootfs/lay.sh", "kernel/lay-options.sh", "dropbear/anvil-sshd"])
def test_scripts_pass_shellcheck(script: str) -> None:
    tool = Path(sys.executable).with_name("shellcheck")
    found = str(tool) if tool.exists() else shutil.which("shellcheck")
    assert found is not None, "shellcheck is not installed: make setup-dev"
    checked = subprocess.run([found, MONOLITH / script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root to lay things into, and what may be laid."""
    folder = tmp_path / "root"
    for name in ("bin", "etc", "run"):
        (folder / name).mkdir(parents=True)
    (folder / "bin" / "busybox").write_text("busybox")
    (folder / "bin" / "ls").symlink_to("busybox")
    (folder / "var").mkdir()
    (folder / "var" / "run").symlink_to("../run")
    tree = tmp_path / "tree"
    (tree / "opt" / "deep").mkdir(parents=True)
    (tree / "opt" / "deep" / "file").write_text("deep")
    (tree / "opt" / "link").symlink_to("deep/file")
    (tree / "opt").chmod(0o711)
    (tmp_path / "file").write_text("new")
    return folder


def lay(root: Path, *lines: str, script: Path = MONOLITH / "rootfs" / "lay.sh") -> str:
    """Run lines of the card; what it refuses, or ""."""
    text = "\n".join([f". {script}", *lines])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (not done.stderr), done.stderr
    return done.stderr


def test_files_links_and_trees_are_laid_in_place_of_what_was_there(root: Path) -> None:
    assert not lay(
        root,
        "lay_file mine 755 bin/ls ../file",
        "lay_file mine 600 etc/new/deep/file ../file",
        "lay_link mine bin/hi /bin/ls",
        "lay_tree other ../tree",
        "lay_home mine 1000 1000 home/ada",
    )
    assert (root / "bin" / "busybox").read_text() == "busybox"  # not written through the link
    assert (root / "bin" / "ls").read_text() == "new"
    assert (root / "bin" / "ls").stat().st_mode & 0o777 == 0o755
    assert (root / "etc" / "new" / "deep" / "file").stat().st_mode & 0o777 == 0o600
    assert (root / "bin" / "hi").readlink() == Path("/bin/ls")
    assert (root / "opt" / "link").readlink() == Path("deep/file")
    assert (root / "opt").stat().st_mode & 0o777 == 0o711
    assert (root / "home" / "ada").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["lay_tree other ../tree", "lay_file mine 644 opt/link ../file"], "other and mine both put /opt/link there"),
        (["lay_file mine 644 opt ../file", "lay_tree other ../tree"], "/opt is put there by mine, and is a folder"),
        (["lay_tree other ../tree", "lay_file mine 644 opt ../file"], "/opt is put there by mine, and is a folder"),
        (["lay_tree a ../tree", "lay_tree b ../tree"], "a and b both put /opt/deep/file there"),
        (["lay_file mine 644 var/run/x ../file"], "/var/run is a folder for mine, but a link to ../run"),
        (["lay_file mine 644 bin/busybox/x ../file"], "/bin/busybox is a folder for mine, but a file in the root"),
        (["lay_file mine 644 etc ../file"], "mine puts /etc there, which is a folder in the root"),
        (["lay_file mine 644 etc/x ../none"], "what it names is no file"),
        (["lay_file mine 644 etc/x ../tree"], "what it names is no file"),
        (["lay_tree mine ../file"], "what it names is no folder"),
        (["lay_link mine out /etc", "lay_file mine 644 out/x ../file"], "/out is put there by mine"),
    ],
)  # fmt: skip
def test_what_cannot_be_laid_out_is_told_with_who_wants_it(root: Path, lines: list[str], why: str) -> None:
    assert why in lay(root, *lines)


@pytest.fixture
def packed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the root's tar lands."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    return root.parent / "out" / "root.tar"


def pack(root: Path, packed: Path, *lines: str) -> str:
    """Lay things out, and pack the root; what is refused, or ""."""
    packed.parent.mkdir(exist_ok=True)
    own = root.parent / "lay.sh"
    own.write_text((MONOLITH / "rootfs" / "lay.sh").read_text().replace("/out/", f"{packed.parent}/"))
    return lay(root, *lines, "pack_root", script=own)


def test_all_is_roots_but_homes_and_what_is_in_them(root: Path, packed: Path) -> None:
    lines = ("lay_file mine 600 home/ada/a/b ../file", "lay_home mine 1000 1001 home/ada", "lay_home mine 7 7 srv/x")
    assert not pack(root, packed, *lines)
    with tarfile.open(packed) as tar:
        members = tar.getmembers()
    owners = {member.name.removeprefix("./"): (member.uid, member.gid) for member in members}
    assert len(owners) == len(members)  # each once
    assert {member.mtime for member in members} == {1767225600}
    assert {name: ids for name, ids in owners.items() if ids != (0, 0)} == {
        "home/ada": (1000, 1001), "home/ada/a": (1000, 1001), "home/ada/a/b": (1000, 1001), "srv/x": (7, 7),
    }  # fmt: skip
    assert {"home", "bin/ls", "etc"} <= owners.keys()
    first = packed.read_bytes()
    shutil.rmtree(root / "home")
    assert not pack(root, packed, *lines)
    assert packed.read_bytes() == first


def test_a_root_that_is_too_large_is_told_with_the_limit(root: Path, packed: Path) -> None:
    with open(root / "large", "wb") as file:
        file.truncate(101 << 20)
    why = pack(root, packed)
    assert "it has 101 MiB, and at most 100 are written the same way each time: zfs_dirty_data_max in rootfs.py" in why
    (root / "large").unlink()
    assert not pack(root, packed)


def options(folder: Path, **fragments: str) -> subprocess.CompletedProcess[str]:
    """Lay fragments over the kernel's; the results are in the folder."""
    given = folder / "in"
    given.mkdir()
    for name, source in (
        ("base", "base.fragment"),
        ("mitigations", "mitigations.fragment"),
        ("needed", "needed"),
        ("choices", "choices"),
    ):
        shutil.copy(MONOLITH / "kernel" / source, given / name)
    words = []
    for who, text in fragments.items():
        (folder / who).write_text(text)
        words += [who, str(folder / who)]
    script = (MONOLITH / "kernel" / "lay-options.sh").read_text().replace("/in/", f"{given}/")
    return subprocess.run(["sh", "-c", script, "lay", *words], cwd=folder, capture_output=True, text=True, check=False)


def test_options_of_others_win_over_the_kernels_own(tmp_path: Path) -> None:
    done = options(
        tmp_path,
        mine="# more\n\nCONFIG_BTRFS_FS=y\n# CONFIG_IPV6 is not set\nCONFIG_HZ_1000=y\n",
        base='CONFIG_BTRFS_FS=y\nCONFIG_MITIGATION_SLS=n\nCONFIG_DEFAULT_HOSTNAME="my os"\n',
    )
    assert done.returncode == 0, done.stderr
    laid, mitigations = (tmp_path / "base").read_text(), (tmp_path / "mitigations").read_text()
    assert "CONFIG_IPV6=y" not in laid
    assert laid.count("CONFIG_BTRFS_FS=y") == laid.count("# CONFIG_IPV6 is not set") == 1
    assert "# CONFIG_MITIGATION_SLS is not set" in laid
    assert "CONFIG_MITIGATION_SLS" not in mitigations
    assert 'CONFIG_DEFAULT_HOSTNAME="my os"' in laid
    own = (MONOLITH / "kernel" / "base.fragment").read_text()
    gone = set(own.splitlines()) - set(laid.splitlines())
    assert gone == {"CONFIG_IPV6=y", 'CONFIG_DEFAULT_HOSTNAME="anvil"', "CONFIG_HZ_250=y"}
    names = re.findall(r"^(?:# )?(CONFIG_\w+)(?:=| is not set)", laid + mitigations, re.MULTILINE)
    assert len(names) == len(set(names))  # check-fragment.sh takes each once


@pytest.mark.parametrize(
    ("fragments", "why"),
    [
        ({"mine": "# CONFIG_ZFS is not set\n"}, "but the boot needs CONFIG_ZFS=y: the root is a ZFS dataset"),
        ({"mine": "CONFIG_MODULES=y\n"}, "=y, but the boot needs # CONFIG_MODULES is not set: the"),
        ({"mine": "CONFIG_X=m\n"}, "mine wants CONFIG_X=m, but the kernel is one file without modules"),
        ({"mine": "\nBTRFS_FS=y\n"}, "line 2 of the fragment of mine is no option: BTRFS_FS=y"),
        ({"base": "CONFIG_X=1\n", "mine": "CONFIG_X=2\n"}, "base and mine contradict each other: one wants"),
        ({"mine": "CONFIG_X=1\nCONFIG_X=2\n"}, "mine and mine contradict each other"),
        ({"mine": "CONFIG_KERNEL_XZ=y\n"}, "=y in place of CONFIG_KERNEL_ZSTD, which the boot needs"),
        ({"base": "CONFIG_HZ_100=y\n", "mine": "CONFIG_HZ_1000=y\n"}, "CONFIG_HZ_100 and CONFIG_HZ_1000 there can"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_told_with_who_wants_it_and_why_not(
    tmp_path: Path, fragments: dict[str, str], why: str
) -> None:
    done = options(tmp_path, **fragments)
    assert done.returncode == 1
    assert why in done.stderr
    assert not (tmp_path / "base").read_text().startswith("# What") if (tmp_path / "base").is_file() else True


def test_what_the_boot_needs_is_what_the_kernel_has() -> None:
    have: dict[str, str] = {}
    for name in ("base", "mitigations"):
        for line in (MONOLITH / "kernel" / f"{name}.fragment").read_text().splitlines():
            if found := re.fullmatch(r"CONFIG_(\w+)=(.*)", line):
                have[found[1]] = found[2]
            if found := re.fullmatch(r"# CONFIG_(\w+) is not set", line):
                have[found[1]] = "n"
    needed = [
        line.split(" ", 2) for line in (MONOLITH / "kernel" / "needed").read_text().splitlines() if line[0] != "#"
    ]
    assert len(needed) > 40
    assert {name: value for name, value, why in needed if why} == {name: have.get(name) for name, _, _ in needed}
