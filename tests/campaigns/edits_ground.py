"""Where edits are made: a project with locks of its own, forged and asked through the command line.

``small`` is a little deck with a card of most kinds, run in real cells. ``iso`` is Anvil's own road to the ISO, copied
into the project, with a builder that pretends: what a card "makes" is a function of what it is given, so that all of
planning, keys, results and history is the real thing, and a forge takes a second. A file's comments, and those of a
script, do not reach what the pretender makes: such an edit gives equal outputs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.cli.main import main
from anvil.mainframe import architect_daemon, processor_daemon, services
from anvil.mainframe.architect_daemon import Architect
from anvil.mainframe.book import BUILT_IN
from anvil.mainframe.forge import Forge
from anvil.mainframe.graph import BlobRef, StepRef
from anvil.mainframe.plan import node_identity
from anvil.mainframe.results import LayerRef, StepResult
from anvil.mainframe.services import Services
from anvil.mainframe.settings import Settings
from anvil.microjson.codec import MicroJSON, canonical
from anvil.model.layer import Digest, Entry, Manifest
from tests.apart import apart
from tests.campaigns.small_deck import empty_home

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anvil.mainframe.context import Context
    from anvil.mainframe.graph import Graph, Node

PROFILES = {"small": "edits", "iso": "debian"}
WANTED = {"small": "whole", "iso": "iso"}

PARTS = '''"""What whole is made of."""
from anvil.recipe import Recipe

parts = Recipe("parts", licence="MIT")
tree = parts.unpack(parts.source("small"))
patched = parts.patch("patch", tree, parts.file("parts.patch"))
options = parts.run(
    "options", patched, "sed -e 's/#.*//' -e '/^$/d' /in/fragment > options",
    inputs={"fragment": parts.file("parts.fragment")},
)
made = parts.run("made", options, "cat first options > /out/made", keep="out")
text = parts.write("text", None, "greeting", "hello 0\\n", mode=0o644)
parts.export("made", made.out / "made")
parts.export("greeting", text / "greeting")
'''
WHOLE = '''"""A file of facts."""
from anvil.recipe import Recipe, human_json

whole = Recipe("whole", licence="MIT")
pack = whole.run(
    "pack", None,
    """
    facts=$(cat /in/made /in/greeting /in/words | sha256sum | cut -c -64)
    printf '{\\n  "facts": "%s"\\n}\\n' $facts > /out/facts.json
    """,
    inputs={"made": whole.use("parts", "made"), "greeting": whole.use("parts", "greeting"),
            "words": whole.file("whole.words")},
    keep="out",
)
pack.check("good", "grep -q facts /in/out/facts.json")
whole.artifact("facts.json", pack.out / "facts.json", kind=human_json)
'''
_FILES = {
    "parts.py": PARTS,
    "whole.py": WHOLE,
    "parts.patch": "--- a/first\n+++ b/first\n@@ -1 +1 @@\n-first\n+changed\n",
    "parts.fragment": "# options\nONE=1\nTWO=2\n",
    "whole.words": "some words\n",
}


@dataclass
class Ground:
    """One of the two. jobs of a forge: 2."""

    kind: str
    folder: Path
    images: Path
    wanted_paths: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.project = self.folder / "project"
        self.recipes = self.project / "recipes"
        self.locks = self.folder / "locks"
        self.sources = self.folder / "sources"
        self.home = self.folder / "home"
        self.profile = PROFILES[self.kind]
        self.wanted = WANTED[self.kind]
        self.folder.mkdir(parents=True)
        self.sources.mkdir()
        shutil.copytree(services.LOCKS, self.locks)
        empty_home(self.home, self.images)
        if self.kind == "iso":
            shutil.copytree(BUILT_IN / "monolith", self.recipes)
        else:
            self.recipes.mkdir(parents=True)
            for name, text in _FILES.items():
                (self.recipes / name).write_text(text, encoding="utf-8")
            self.pin("1.0", b"second\n")

    def pin(self, version: str, second: bytes) -> str:
        """Make the small deck's source and its lock; the sha256."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in (("first", b"first\n"), ("second", second)):
                facts = tarfile.TarInfo(f"small/{name}")
                facts.size = len(data)
                tar.addfile(facts, io.BytesIO(data))
        data, name = out.getvalue(), f"small-{version}.tar"
        (self.sources / name).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        file = {"archive": "debian", "name": name, "path": f"pool/{name}", "sha256": sha256, "size": len(data)}
        source = {"version": version, "licence": "MIT", "files": [file], "facts": {}}
        lock = {"format": 1, "kind": "source-lock", "profile": self.profile, "resolved": "2026-01-01"}
        self.lock_path.write_text(json.dumps({**lock, "sources": {"small": source}}), encoding="utf-8")
        return sha256

    @property
    def lock_path(self) -> Path:
        """The source lock."""
        return self.locks / f"{self.profile}.json"

    # ---- asking

    def words(self, command: str, *more: str) -> list[str]:
        """A command line."""
        always = ["--profile", self.profile, "--project", str(self.project), "--home", str(self.home)]
        if command in {"forge", "plan"}:
            always = [self.wanted, *always, "--from", str(self.sources), "--offline"]
        if command == "forge":
            always += ["--output", str(self.folder / "out"), "--jobs", "2"]
        if command == "why":
            always += ["--recipe", self.wanted]
        return [command, *more, *always, "--json"]

    def anvil(self, command: str, *more: str) -> Any:
        """Run a command in a process of its own; what it printed, parsed. Raises RuntimeError when it failed."""
        words = self.words(command, *more)
        if self.kind == "iso" and command == "forge":
            self.wanted_paths = self.apart(self._paths)
        code, said, errors = self.apart(lambda: _captured(words))
        if code:
            raise RuntimeError(f"anvil {' '.join(words)} ended with {code}: {said[-2000:]}{errors[-2000:]}")
        if command == "forge":
            return [MicroJSON.decode(line.encode()) for line in said.splitlines()]
        return json.loads(said)

    def forge(self) -> set[str]:
        """Forge; the cards that ran."""
        return {message["data"]["card"] for message in self.anvil("forge") if message["@ID"] == 112}

    def apart(self, task: Any) -> Any:
        """Do something in a process in which the locks are these, and in ``iso`` the builder pretends."""

        def inside() -> Any:
            os.environ.pop("ANVIL_HOME", None)
            vars(services)["LOCKS"] = self.locks
            if self.kind == "iso":
                self._pretend()
            return task()

        return apart(inside)

    # ---- the deck as data

    def decks(self) -> dict[str, Any]:
        """Every evaluated deck of what is wanted, by recipe."""

        def look() -> dict[str, Any]:
            seen: dict[str, Any] = {}
            real = vars(architect_daemon)["build_graph"]

            def seeing(wanted: str, decks: Mapping[str, Any], **more: Any) -> Graph:
                seen.update(decks)
                graph: Graph = real(wanted, decks, **more)
                return graph

            vars(architect_daemon)["build_graph"] = seeing
            with Services(self._settings()) as opened:
                Architect(opened).draw(self.wanted)
            return seen

        decks: dict[str, Any] = self.apart(look)
        return decks

    def _settings(self) -> Settings:
        return Settings(home=self.home, output=self.folder / "out", project=self.project, profile=self.profile)

    # ---- the pretender

    def _paths(self) -> dict[str, set[tuple[str, str]]]:
        """What others take from each card: (tree, path)."""
        with Services(self._settings()) as opened:
            graph: Graph = Architect(opened).draw(self.wanted)
        paths: dict[str, set[tuple[str, str]]] = {}
        for node in graph.nodes.values():
            for ref in node.inputs.values():
                if isinstance(ref, StepRef) and ref.path:
                    paths.setdefault(ref.node, set()).add((ref.tree, ref.path))
        return paths

    def _pretend(self) -> None:
        real = Services.known

        def known(opened: Services, node: Node, key: str) -> StepResult | None:
            """Nothing is fetched, and no image is made: what was pretended counts."""
            if node.op in {"fetch", "image"}:
                stored = opened.db.find_result(key)
                return StepResult.from_data(MicroJSON.decode(stored.ret)["data"]) if stored else None
            return real(opened, node, key)

        vars(processor_daemon)["operation"] = lambda _op: self
        setattr(Services, "known", known)  # noqa: B010 -- mypy does not let a method be assigned
        setattr(Forge, "_look_first", lambda *_words: None)  # noqa: B010

    def run(self, context: Context) -> StepResult:
        """Pretend to run a card."""
        node, opened = context.node, context.services
        context.log.write_bytes(b"")
        if node.op == "fetch":
            return StepResult(
                facts={"files": [{"name": f["name"], "sha256": f["sha256"]} for f in node.extra["files"]]}
            )
        if node.op == "image":
            return StepResult(facts={"image": node.extra["name"], "digest": node.extra["digest"]})
        meaning = _meaning(context)
        if node.op == "boot":
            return StepResult(facts={"text": "it booted", "verdict": {"card": node.id}})
        if node.op == "release":
            entry = self._file(opened, "artifact", meaning)
            out = opened.layers.store(Manifest(entries=(entry,)))
            facts = {"sha256": entry.sha256, "size": entry.size, "executable": False, "kind": node.extra["kind"]}
            return StepResult(out=LayerRef(digest=out.digest, times=out.times), facts={**facts, "members": {}})
        if node.op == "check":
            return StepResult()
        wanted = self.wanted_paths.get(node.id, set())
        layers = []
        for tree in ("work", "out"):
            paths = {"made", *(path for each, path in wanted if each == tree)}
            layer = opened.layers.store(self._manifest(opened, paths, f"{meaning} {tree}"))
            layers.append(LayerRef(digest=layer.digest, times=layer.times))
        base = context.results[node.base].stack if node.base else ()
        return StepResult(stack=(layers[0], *base) if node.keep == "all" else (), out=layers[1])

    def _manifest(self, opened: Services, paths: set[str], meaning: str) -> Manifest:
        entries: dict[str, Entry] = {}
        for path in paths:
            parts = path.split("/")
            for count in range(1, len(parts)):
                folder = "/".join(parts[:count])
                entries[folder] = Entry(path=folder, type="dir", mode=0o755)
            entries[path] = self._file(opened, path, f"{meaning} {path}")
        return Manifest(entries=tuple(entries[path] for path in sorted(entries)))

    def _file(self, opened: Services, path: str, meaning: str) -> Entry:
        data = f"{meaning}\n".encode()
        digest = opened.vault.put_bytes(data)
        return Entry(path=path, type="file", mode=0o644, size=len(data), sha256=Digest(digest))


def _meaning(context: Context) -> str:
    """What a pretended card makes: a digest of its identity, comments aside."""
    node, opened = context.node, context.services
    body: dict[str, Any] = dict(node_identity(node, context.results, opened.reference).body)
    body["script"] = _bare(body["script"])
    inputs: Mapping[str, str] = body["inputs"]
    body["inputs"] = {
        name: _bare(opened.vault.read_bytes(Digest(digest)).decode("utf-8", "replace"))
        if isinstance(ref := node.inputs[name], BlobRef) and not ref.node
        else digest
        for name, digest in inputs.items()
    }
    body["extra"] = {name: value for name, value in body["extra"].items() if name != "texts"}
    return hashlib.sha256(canonical(body)).hexdigest()


def _bare(text: str) -> str:
    return re.sub(r"(?m)^\s*#.*\n?", "", text)


def _captured(words: list[str]) -> tuple[int, str, str]:
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main(words)
    sys.stdout.flush()
    return code, out.getvalue(), errors.getvalue()
