"""The recipes that compile, as text: what they ask for, what they refuse, and the scripts they bring along."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from anvil.recipe.evaluate import evaluate_closure

MONOLITH = Path(__file__).parents[2] / "src" / "anvil" / "recipes" / "monolith"
NAMES = ("busybox", "zlib", "util_linux", "libtirpc", "openssl", "zfs", "kernel")
OPTION = re.compile(r"(?:(CONFIG_\w+)=.+|# (CONFIG_\w+) is not set)")

FACTS = {"linux-minimum": "4.18", "linux-maximum": "6.14"}
VERSIONS = {
    "busybox": "1.37.0",
    "zlib": "1.3.1",
    "util-linux": "2.41.5",
    "libtirpc": "1.3.6",
    "openssl": "3.5.7",
    "zfs": "2.3.2",
    "linux": "6.12.107",
}


def evaluate(*wanted: str, **versions: str) -> dict[str, Any]:
    pinned = {**VERSIONS, **versions}
    sources = {name: {"version": version, "facts": FACTS if name == "zfs" else {}} for name, version in pinned.items()}
    recipes = {name: (MONOLITH / f"{name}.py").read_text() for name in NAMES}
    return evaluate_closure({"profile": "test", "sources": sources, "recipes": recipes, "wanted": list(wanted)})


def decks(*wanted: str, **versions: str) -> dict[str, Any]:
    answer = evaluate(*wanted, **versions)
    assert "error" not in answer, answer
    found: dict[str, Any] = answer["decks"]
    return found


def options(fragment: str) -> dict[str, str]:
    """Option to line; fails on a line that is neither an option, a comment nor empty, and on an option named twice."""
    found: dict[str, str] = {}
    for line in (MONOLITH / fragment).read_text().splitlines():
        match = OPTION.fullmatch(line)
        if match is None:
            assert line == "" or (line.startswith("# ") and "CONFIG_" not in line), line
            continue
        name = match[1] or match[2]
        assert name not in found, f"{name} twice in {fragment}"
        found[name] = line
    return found


MITIGATIONS = ("kernel/mitigations.fragment", "kernel/mitigations-before-6.9.fragment")


@pytest.mark.parametrize("mitigations", MITIGATIONS)
def test_kernel_fragments_name_each_option_once(mitigations: str) -> None:
    assert not options("kernel/base.fragment").keys() & options(mitigations).keys()


ASKED = """
ZFS BLK_DEV_LOOP BLK_DEV_INITRD SQUASHFS SQUASHFS_ZSTD SQUASHFS_XZ ISO9660_FS OVERLAY_FS TMPFS DEVTMPFS EFI_STUB
WATCHDOG I6300ESB_WDT ITCO_WDT LPC_ICH I2C_I801 SOFTLOCKUP_DETECTOR BOOTPARAM_SOFTLOCKUP_PANIC
E1000 E1000E R8169 IGB IGC IXGBE VMXNET3 VMWARE_PVSCSI ENA_ETHERNET
HYPERV HYPERV_NET HYPERV_STORAGE HYPERV_UTILS HYPERV_KEYBOARD MMC MMC_BLOCK MMC_SDHCI MMC_SDHCI_PCI MMC_SDHCI_ACPI
VIRTIO_PCI VIRTIO_BLK VIRTIO_NET VIRTIO_CONSOLE SCSI_VIRTIO BLK_DEV_NVME SATA_AHCI USB_XHCI_HCD USB_STORAGE USB_UAS
BLK_DEV_SR BLK_DEV_SD FB_EFI DRM_SIMPLEDRM FRAMEBUFFER_CONSOLE VGA_CONSOLE SERIAL_8250_CONSOLE
RANDOMIZE_KSTACK_OFFSET_DEFAULT"""


@pytest.mark.parametrize("name", ASKED.split())
def test_the_kernel_asks_for(name: str) -> None:
    assert options("kernel/base.fragment")[f"CONFIG_{name}"] == f"CONFIG_{name}=y"


def test_the_kernel_is_one_file_that_reboots_after_a_panic() -> None:
    base = options("kernel/base.fragment")
    assert base["CONFIG_MODULES"] == "# CONFIG_MODULES is not set"
    assert base["CONFIG_PANIC_TIMEOUT"] == "CONFIG_PANIC_TIMEOUT=10"


def test_the_mitigations_follow_the_rename() -> None:
    new, old = (options(fragment) for fragment in MITIGATIONS)
    assert all(line.endswith("=y") for line in (*new.values(), *old.values()))
    assert all(name.startswith("CONFIG_MITIGATION_") for name in new.keys() - {"CONFIG_CPU_MITIGATIONS"})
    assert not any("MITIGATION_" in name for name in old)
    assert len(new) > len(old)


def mitigations_used(linux: str) -> str:
    steps = {step["name"]: step for step in decks("kernel", linux=linux)["kernel"]["steps"]}
    used: str = steps["config"]["inputs"]["mitigations"]["file"]
    assert steps["config-zfs"]["inputs"]["mitigations"]["file"] == used
    return used


def test_the_kernels_version_chooses_the_mitigations() -> None:
    assert mitigations_used("6.12.107") == "kernel/mitigations.fragment"
    assert mitigations_used("6.9") == "kernel/mitigations.fragment"
    assert mitigations_used("6.6.14") == "kernel/mitigations-before-6.9.fragment"


@pytest.mark.parametrize("linux", ["6.14", "6.14.11", "4.18", "6.12.107"])
def test_a_kernel_within_the_limits_of_openzfs_is_taken(linux: str) -> None:
    assert decks("kernel", linux=linux)


@pytest.mark.parametrize("linux", ["6.15", "6.18.2", "7.0", "4.17.19"])
def test_a_kernel_that_openzfs_does_not_support_is_refused_by_name(linux: str) -> None:
    answer = evaluate("kernel", linux=linux)
    assert answer["recipe"] == "kernel"
    assert answer["error"]["message"] == f"OpenZFS 2.3.2 supports Linux 4.18 to 6.14, not {linux}"
    assert "anvil sources update" in answer["error"]["hint"]


def test_what_is_released_and_what_is_not() -> None:
    released = {name: sorted(deck["artifacts"]) for name, deck in decks(*NAMES).items()}
    assert released == {
        "busybox": ["bin/busybox"],
        "zlib": [],
        "util_linux": [],
        "libtirpc": [],
        "openssl": [],
        "zfs": ["bin/zfs", "bin/zpool", "sbin/mount.zfs", "sbin/zgenhostid"],
        "kernel": ["bzImage"],
    }


def test_the_kernel_says_that_handing_it_on_is_contested() -> None:
    image = decks("kernel")["kernel"]["artifacts"]["bzImage"]
    assert image["licence"] == "GPL-2.0-only AND CDDL-1.0"
    assert image["redistribution"] == "contested"


def test_the_kernel_that_forges_pools_is_made_after_the_shipped_one_and_never_released() -> None:
    deck = decks("kernel")["kernel"]
    steps = {step["name"]: step for step in deck["steps"]}
    assert [name for name, step in steps.items() if "/forging" in str(step["inputs"])] == ["build"]
    shipped, patched, twin = (
        steps["build"]["script"].index(words)
        for words in ("cp arch/x86/boot/bzImage System.map /out/\n", "/in/forging-patch", "/out/forging-bzImage")
    )
    assert shipped < patched < twin
    assert {(artifact["ref"]["step"], artifact["ref"]["path"]) for artifact in deck["artifacts"].values()} == {
        ("build", "bzImage")
    }
    assert deck["exports"]["forging-bzImage"]["ref"]["path"] == "forging-bzImage"


def test_the_forging_patch_does_nothing_unless_asked() -> None:
    patch = (MONOLITH / "kernel" / "forging.patch").read_text()
    added = [line[1:].strip() for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++")]
    taken = [line for line in patch.splitlines() if re.match(r"-(?!--)", line)]
    # all that is taken away are the ends of two functions that got another name, and two lines in other words
    assert len(taken) <= 6, taken
    assert sum("spl_forge_seed != 0" in line for line in added) == 6
    assert sum(line == "if (spl_forge_seed == 0)" for line in added) == 1
    assert sum("if (unlikely(forge_time))" in line for line in added) == 1


def test_the_commands_do_not_need_the_kernel() -> None:
    # otherwise userland could not be built beside it
    assert set(decks("zfs")) == {"zfs", "zlib", "util_linux", "libtirpc", "openssl"}


ALL_STEPS = [(name, step) for name, deck in decks(*NAMES).items() for step in deck["steps"]]
SCRIPTS = [pytest.param(step["script"], id=f"{name}-{step['name']}") for name, step in ALL_STEPS if step["script"]]


def test_every_file_named_is_there() -> None:
    named = {ref["file"] for _, step in ALL_STEPS for ref in step["inputs"].values() if "file" in ref}
    assert named
    assert [file for file in sorted(named) if not (MONOLITH / file).is_file()] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash_and_use_what_they_are_given(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script.encode(), check=True)
    # "set -e" passes over a command inverted by "!": such a line can never fail
    assert not re.search(r"^\s*! ", script, re.MULTILINE)
    # under pipefail, "| grep -q" and "| head" end their writer with SIGPIPE now and then
    assert not re.search(r"\|\s*(grep -q|head)", script)
    # make takes its jobs from the mainframe's jobserver
    assert not re.search(r"\bmake\b[^\n]* -j", script)


def test_inputs_named_in_a_script_are_given() -> None:
    missing = []
    for name, step in ALL_STEPS:
        used = set(re.findall(r"/in/([A-Za-z0-9_-]+)", step["script"]))
        missing += [(name, step["name"], key) for key in used - set(step["inputs"])]
    assert missing == []


# ---- the scripts themselves


def run(script: str, *args: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(MONOLITH / "kconfig" / script), *map(str, args)], capture_output=True, text=True, check=False
    )


def check(tmp_path: Path, config: str, *fragments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "config").write_text(config)
    files = []
    for number, fragment in enumerate(fragments):
        files.append(tmp_path / f"fragment{number}")
        files[-1].write_text(fragment)
    return run("check-fragment.sh", tmp_path / "config", *files)


CONFIG = '# CONFIG_OFF is not set\nCONFIG_ON=y\nCONFIG_NAME="x y"\nCONFIG_NUMBER=10\n'


def test_a_met_fragment_passes(tmp_path: Path) -> None:
    fragment = '# words\nCONFIG_ON=y\nCONFIG_NAME="x y"\nCONFIG_NUMBER=10\n\n# CONFIG_OFF is not set\n'
    done = check(tmp_path, CONFIG, fragment, "# CONFIG_NEVER_SEEN is not set\n")
    assert (done.returncode, done.stdout) == (0, "5 options asked, 0 not met\n")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("CONFIG_GONE=y", "nothing (unknown or unmet)"),
        ("CONFIG_OFF=y", "# CONFIG_OFF is not set"),
        ("# CONFIG_ON is not set", "CONFIG_ON=y"),
        ("CONFIG_NUMBER=0", "CONFIG_NUMBER=10"),
        ("CONFIG_NAME=x y", 'CONFIG_NAME="x y"'),
        ("CONFIG_O=y", "nothing (unknown or unmet)"),
    ],
)
def test_a_dropped_option_is_named(tmp_path: Path, line: str, word: str) -> None:
    done = check(tmp_path, CONFIG, f"CONFIG_ON=y\n{line}\n" if "CONFIG_ON " not in line else f"{line}\n")
    assert done.returncode == 1
    assert f"dropped: {line}; the kernel has: {word}\n" in done.stdout


def test_an_option_named_in_two_fragments_fails(tmp_path: Path) -> None:
    done = check(tmp_path, CONFIG, "CONFIG_ON=y\n", "CONFIG_ON=y\n")
    assert done.returncode == 1
    assert "named twice: CONFIG_ON" in done.stdout


def test_no_fragment_at_all_fails(tmp_path: Path) -> None:
    assert check(tmp_path, CONFIG, "# nothing asked\n").returncode == 1


def test_a_missing_config_fails(tmp_path: Path) -> None:
    (tmp_path / "fragment").write_text("CONFIG_ON=y\n")
    assert run("check-fragment.sh", tmp_path / "none", tmp_path / "fragment").returncode != 0


def test_a_fragment_is_laid_over_a_config(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "fragment").write_text("# why\nCONFIG_OFF=y\n# CONFIG_ON is not set\nCONFIG_NEW=3\n")
    assert run("apply-fragment.sh", tmp_path / "config", tmp_path / "fragment").returncode == 0
    assert sorted((tmp_path / "config").read_text().splitlines()) == [
        "# CONFIG_ON is not set",
        'CONFIG_NAME="x y"',
        "CONFIG_NEW=3",
        "CONFIG_NUMBER=10",
        "CONFIG_OFF=y",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "fragment"]


def test_the_fragment_of_busybox() -> None:
    asked = options("busybox/fragment")
    assert asked["CONFIG_STATIC"] == "CONFIG_STATIC=y"
    assert asked["CONFIG_TC"] == "# CONFIG_TC is not set"
