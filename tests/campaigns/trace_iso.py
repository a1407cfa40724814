"""``make campaign-trace``: forge the whole ISO in an empty home under strace, and say what ran outside every cell.

Ends with 1 when anything but Python and bubblewrap did. The result is kept as bench/results/trace-iso.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mainframe import process_trace

RESULT = Path(__file__).parents[2] / "bench" / "results" / "trace-iso.json"


def main() -> int:
    """Trace one forge."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="anvil-trace-", dir=os.environ.get("TMPDIR")) as folder:
        trace = Path(folder) / "trace"
        environment = {**os.environ, "ANVIL_HOME": f"{folder}/home"}
        forge = [sys.executable, "-m", "anvil.cli.main", "forge", "iso", "--output", f"{folder}/out"]
        code = subprocess.run(
            [*process_trace.STRACE, "-o", str(trace), *forge], env=environment, check=False
        ).returncode
        with trace.open(encoding="utf-8", errors="replace") as lines:
            found = process_trace.read(lines)
    python = os.path.realpath(sys.executable)
    outside = sorted({os.path.realpath(path) if path.startswith("/") else path for path in found.outside})
    strange = [path for path in outside if path not in {python, "bwrap"}]
    result = {
        "exit_code": code,
        "seconds": round(time.monotonic() - began),
        "cells": found.cells,
        "programs_inside": len(found.inside),
        "compilers_inside": sorted(path for path in found.inside if path.endswith(("/cc1", "/ld", "/as"))),
        "qemu_inside": sorted(path for path in found.inside if "qemu" in path),
        "outside": [os.path.basename(path) for path in outside],
        "strange": strange,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if code == 0 and not strange and result["qemu_inside"] and result["compilers_inside"] else 1


if __name__ == "__main__":
    sys.exit(main())
