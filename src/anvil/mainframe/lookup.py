"""What comparisons of identities ask: what digests stand for, in the locks, the cortex and the vault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anvil.model.layer import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anvil.mainframe.services import Services

_TEXT_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Pinned:
    """files: the sha256 of every file that recipes name, by recipe and path, where they are known."""

    services: Services
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def pin(self, digest: str) -> Mapping[str, Any]:
        """What a digest stands for: as the locks say now, or as was noted."""
        for name, (image, lock) in self.services.image_locks.items():
            if image == digest:
                packages = {each.name: [each.version, each.file.sha256] for each in lock.packages}
                return {"image": name, "packages": packages}
        for name, source in self.services.sources.sources.items():
            if digest and source.files[0].sha256 == digest:
                return {"source": name, "version": source.version, "file": source.files[0].name}
        return self.services.db.pin(digest) or {}

    def text(self, digest: str) -> str | None:
        """A file's text, while the vault has it."""
        vault = self.services.vault
        if not digest or not vault.has(Digest(digest)) or vault.size(Digest(digest)) > _TEXT_LIMIT:
            return None
        try:
            return vault.read_bytes(Digest(digest)).decode()
        except UnicodeDecodeError:
            return None

    def path(self, card: str, name: str, digest: str) -> str:
        """The path of a recipe's file, from the recipe's folder; its name where that is not known."""
        recipe = card.partition("/")[0]
        for (_, path), sha256 in sorted(self.files.items(), key=lambda item: item[0][0] != recipe):
            if path.rpartition("/")[2] == name and sha256 == digest:
                return path
        return name

    def named(self, digest: str) -> str:
        """The path of a recipe's file by its digest."""
        return next((path for (_, path), sha256 in self.files.items() if sha256 == digest), "")
