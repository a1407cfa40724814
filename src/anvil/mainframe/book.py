"""Where recipes are found: the project's own folder first, then the ones Anvil comes with."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from anvil.errors import RecipeError

BUILT_IN = Path(__file__).parent.parent / "recipes"

_FILE_LIMIT = 64 * 1024 * 1024
_TEXT_LIMIT = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RecipeBook:
    """Every recipe that can be named, by its name. project: a folder with ``recipes/``, or None."""

    project: Path | None = None

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The file of each recipe; a project's recipe hides a built-in one of the same name."""
        folders = sorted(path for path in BUILT_IN.iterdir() if path.is_dir())
        if self.project is not None:
            folders.append(self.project / "recipes")
        return {path.stem: path for folder in folders for path in sorted(folder.glob("*.py"))}

    def texts(self) -> dict[str, str]:
        """The text of every recipe. Raises RecipeError for one that is not UTF-8, and for a link.

        Every recipe sees the texts of all others: a link in a project could show it any file of this user's.
        """
        texts = {}
        for name, path in self.paths.items():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                with os.fdopen(fd, "rb") as file:
                    found = os.fstat(fd)
                    if not stat.S_ISREG(found.st_mode) or found.st_size > _TEXT_LIMIT:
                        raise RecipeError(f"recipe {name} is not a file of at most 4 MiB", where=str(path))
                    texts[name] = file.read(_TEXT_LIMIT + 1).decode("utf-8")
            except (UnicodeDecodeError, OSError) as error:
                hint = "put the recipe itself there" if path.is_symlink() else ""
                raise RecipeError(f"recipe {name} cannot be read: {error}", where=str(path), hint=hint) from error
        return texts

    def file(self, recipe: str, path: str) -> bytes:
        """A file below a recipe's folder, by its plain relative path.

        Refused (RecipeError): a path with "", "." or ".." in it, links, folders and devices.
        """
        folder = self.paths[recipe].parent
        where = f"{self.paths[recipe]}"
        if "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise RecipeError(f"{path!r} is not a plain relative path", where=where, hint=f"put the file in {folder}")
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.split("/"):
                below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = below
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _FILE_LIMIT:
                raise RecipeError(f"{path} is not a file of at most 64 MiB", where=where)
            with os.fdopen(os.dup(fd), "rb") as file:
                return file.read()
        except OSError as error:
            raise RecipeError(
                f"the recipe names a file that cannot be read: {path} ({error.strerror})",
                where=where,
                hint=f"put it at {folder / path}",
            ) from error
        finally:
            os.close(fd)

    def digest(self, recipe: str, path: str) -> str:
        """The sha256 of such a file."""
        return hashlib.sha256(self.file(recipe, path)).hexdigest()
