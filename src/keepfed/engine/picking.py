"""Which container a name means.

The API resolves names itself, but with answers that help nobody: Docker calls an ambiguous prefix "multiple IDs found", Podman
finds nothing at all, and neither says what there is. So the list is asked for, and the choice is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from keepfed.errors import UnreachableError, UsageError
from keepfed.text import say

_SHORTEST_ID = 2
_MOST_NAMED = 12


@dataclass(frozen=True, slots=True)
class Listed:
    """One container as the engine lists it."""

    id: str
    """64 hexadecimal digits."""
    names: tuple[str, ...]
    """Its names, without the leading slash."""
    image: str
    """The image as it was asked for: name and tag, or an ID."""
    state: str
    """created, running, paused, restarting, exited, dead (Podman also: configured, stopped)."""
    service: str
    """The service of a compose file, empty where it is none."""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.names[0] if self.names else self.id[:12]


def pick(wanted: str, listed: Sequence[Listed]) -> Listed:
    """The container with this name, ID or unique beginning of an ID.

    Raises UsageError when several begin so, UnreachableError when there is none, with the nearest names.
    """
    wanted = wanted.strip().removeprefix("/")
    if not wanted:
        raise UsageError(say("engine.no_name"), next_step=_there_are(listed))
    for container in listed:
        if wanted in container.names or wanted == container.id:
            return container
    found = [container for container in listed if len(wanted) >= _SHORTEST_ID and container.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{container.id[:12]} ({container.name})" for container in found)
        raise UsageError(say("engine.ambiguous", name=wanted, found=several), next_step=say("engine.ambiguous_next"))
    raise UnreachableError(say("engine.absent", name=wanted), next_step=_nearest(wanted, listed))


def _nearest(wanted: str, listed: Sequence[Listed]) -> str:
    """The names that may have been meant: nearly the same, those that contain it, or those of that compose service."""
    names = [container.name for container in listed]
    near = [container.name for container in listed if container.service == wanted]
    near += [name for name in names if wanted.lower() in name.lower()]
    near += get_close_matches(wanted, names, n=3, cutoff=0.6)
    if not near:
        return _there_are(listed)
    return say("engine.did_you_mean", names=", ".join(dict.fromkeys(near)))


def _there_are(listed: Sequence[Listed]) -> str:
    if not listed:
        return say("engine.no_containers")
    running_first = sorted(listed, key=lambda container: container.state != "running")
    shown = ", ".join(f"{container.name} ({container.state})" for container in running_first[:_MOST_NAMED])
    more = len(listed) - _MOST_NAMED
    return say("engine.there_are_more", names=shown, more=more) if more > 0 else say("engine.there_are", names=shown)
