"""A wish: what a client wants forged, as it goes over the socket and into the cortex."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anvil.errors import UsageError
from anvil.mainframe.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_JOBS = 1024


@dataclass(frozen=True, kw_only=True)
class Wish:
    """recipe, and of the client's settings all but the home, which is the daemons', and how cells are made there.

    The paths are absolute. jobs: at most so many; the Processor may give fewer.
    """

    recipe: str
    output: str
    project: str = ""
    profile: str = "debian"
    jobs: int = 1
    offline: bool = False
    from_dir: str = ""
    forced: tuple[str, ...] = ()
    mirrors: Mapping[str, str] = field(default_factory=dict)
    snapshot: str = ""

    @classmethod
    def of(cls, recipe: str, settings: Settings) -> Wish:
        """What a client that was told these settings wishes."""
        return cls(
            recipe=recipe,
            output=str(settings.output),
            project=str(settings.project or ""),
            profile=settings.profile,
            jobs=settings.jobs,
            offline=settings.offline,
            from_dir=str(settings.from_dir.absolute()) if settings.from_dir else "",
            forced=tuple(sorted(settings.forced)),
            mirrors=dict(settings.mirrors),
            snapshot=settings.snapshot,
        )

    def settings(self, daemon: Settings) -> Settings:
        """What the forge of it is told in a daemon that was itself told ``daemon``."""
        return Settings(
            home=daemon.home,
            output=Path(self.output),
            project=Path(self.project) if self.project else None,
            profile=self.profile,
            jobs=min(self.jobs, daemon.jobs),
            offline=self.offline or daemon.offline,
            from_dir=Path(self.from_dir) if self.from_dir else daemon.from_dir,
            mirrors={**daemon.mirrors, **self.mirrors},
            snapshot=self.snapshot or daemon.snapshot,
            forced=frozenset(self.forced),
            bwrap=daemon.bwrap,
            cell_uid=daemon.cell_uid,
        )

    def as_data(self) -> dict[str, Any]:
        """The wish as plain data."""
        return {**vars(self), "forced": list(self.forced), "mirrors": dict(self.mirrors)}

    @classmethod
    def from_data(cls, data: object) -> Wish:
        """The wish that plain data from outside says. Raises UsageError for anything that is none."""
        if not isinstance(data, dict) or set(data) != set(cls.__dataclass_fields__):
            raise UsageError("a wish has just these fields: " + ", ".join(cls.__dataclass_fields__))
        texts = [data[name] for name in ("recipe", "output", "project", "profile", "from_dir", "snapshot")]
        texts += _list(data["forced"]) + _texts(data["mirrors"])
        if not all(isinstance(text, str) and "\0" not in text for text in texts) or not data["recipe"]:
            raise UsageError("a wish's recipe, paths and names are texts")
        for name in ("output", "project", "from_dir"):
            if data[name] and not data[name].startswith("/"):
                raise UsageError(f"a wish's {name} is an absolute path", where=data[name])
        if type(data["jobs"]) is not int or not 1 <= data["jobs"] <= MOST_JOBS or type(data["offline"]) is not bool:
            raise UsageError("a wish's jobs are a number from 1 to 1024, and offline is true or false")
        return cls(**{**data, "forced": tuple(data["forced"])})


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [None]


def _texts(value: object) -> list[object]:
    return [*value.keys(), *value.values()] if isinstance(value, dict) else [None]
