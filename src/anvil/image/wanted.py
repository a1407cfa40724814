"""What each image is for: the lists in wanted/, name to reason. Adding an image adds a file there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from anvil.errors import RecipeError

FOLDER = Path(__file__).parent / "wanted"
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image's packages, name to the reason why each is there. What they need comes with them unnamed."""

    name: str
    packages: dict[str, str]


def wanted_names(folder: Path = FOLDER) -> tuple[str, ...]:
    """The images there are, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.json")))


def read_wanted(name: str, folder: Path = FOLDER) -> Wanted:
    """The wanted list of an image. RecipeError when there is none or it is not one."""
    path = folder / f"{name}.json"
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"the wanted list of the image {name!r} cannot be read: {error}", where=str(path)) from error
    packages = data.get("packages") if isinstance(data, dict) and data.get("kind") == "wanted" else None
    if not isinstance(packages, dict) or not packages:
        raise RecipeError("a wanted list has kind 'wanted' and packages, name to reason", where=str(path))
    for package, reason in packages.items():
        if not _NAME.fullmatch(package) or not isinstance(reason, str) or not reason:
            raise RecipeError(f"{package!r} is not a package's name with a reason", where=str(path))
    return Wanted(name=name, packages=packages)
