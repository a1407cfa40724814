"""A project's own lock laid over a profile's: which sources a forge then has. Pure."""

from __future__ import annotations

from dataclasses import replace

from anvil.errors import RecipeError
from anvil.model.lock import SourceLock


def lay_over(profile: SourceLock, project: SourceLock, where: str) -> SourceLock:
    """The profile's lock with the project's sources beside its own.

    where: the project's lock, for people. A name that both have is the project's only where its lock says that it
    replaces; else RecipeError, for a recipe would be made from something that its writer has never seen.
    """
    shared = sorted(profile.sources.keys() & project.sources.keys() - project.replaces)
    if shared:
        name = shared[0]
        ours, theirs = project.sources[name], profile.sources[name]
        raise RecipeError(
            f"the source {name!r} is in the project's lock ({ours.version}) and in profile {profile.profile} "
            f"({theirs.version})",
            where=where,
            hint=f"take it out (anvil sources remove {name}) and pin it again under another name (--name), or for all "
            "recipes in the place of the profile's (--replace)",
        )
    return replace(profile, sources=dict(sorted({**profile.sources, **project.sources}.items())))


def with_source(lock: SourceLock, added: SourceLock) -> SourceLock:
    """A project's lock with another's sources in it, in the place of those of the same names; the newer day."""
    return SourceLock(
        profile=lock.profile,
        resolved=max(lock.resolved, added.resolved),
        sources=dict(sorted({**lock.sources, **added.sources}.items())),
        replaces=(lock.replaces - added.sources.keys()) | added.replaces,
    )


def without_source(lock: SourceLock, name: str) -> SourceLock:
    """A project's lock without one of its sources."""
    left = {key: source for key, source in lock.sources.items() if key != name}
    return replace(lock, sources=left, replaces=lock.replaces - {name})
