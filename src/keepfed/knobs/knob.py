"""The settings themselves: canonical names, and which values each one takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from keepfed.errors import UsageError
from keepfed.knobs.spelling import THREAD_VARIABLES, spelled
from keepfed.text import say

KNOBS = (
    "num_workers",
    "prefetch_factor",
    "pin_memory",
    "persistent_workers",
    "threads_env",
    "shm_size",
    "cpus_per_task",
)

_RANGES = {
    "num_workers": (0, 1024),
    "prefetch_factor": (1, 1024),
    "threads_env": (1, 4096),
    "cpus_per_task": (1, 4096),
}
_YES_OR_NO = {"true": "true", "yes": "true", "on": "true", "1": "true"} | {
    "false": "false",
    "no": "false",
    "off": "false",
    "0": "false",
}
# What torch takes for "as many as usual", and the only prefetch_factor it takes where there are no workers.
_NOTHING = {"none", "null"}
_SIZE = re.compile(r"(?i)(\d+(?:\.\d+)?)\s*(b|k|kb|kib|m|mb|mib|g|gb|gib|gi|t|tb|tib|ti|ki|mi)?")
_UNIT = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
LARGEST_SHM_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class Wish:
    """One setting that is asked for, checked."""

    knob: str
    """Canonical name."""
    spelling: str
    """The name as it was asked for; with any spelling that is not canonical, only sites that are written so are meant."""
    value: str
    """Canonical value: a number, "true" or "false", "none" (prefetch_factor), or bytes with the unit that was given ("2g")."""


class UnknownName(UsageError):
    """A name that by itself says no setting; in some file it may still be one."""


def wish(name: str, value: str) -> Wish:
    """A checked `KNOB=VALUE`. Raises UsageError with the range that was expected, UnknownName with the nearest name."""
    knob = knob_of(name)
    return Wish(knob, name, checked(knob, name, value.strip()))


def wish_among(name: str, value: str, spellings: Mapping[str, str]) -> Wish:
    """The same where a name may be one that only these files give a meaning: `N = 4` above `DataLoader(num_workers=N)`.

    `spellings` gives the setting of each name that the files use. Raises UsageError.
    """
    try:
        return wish(name, value)
    except UnknownName:
        if name not in spellings:
            raise
        return Wish(spellings[name], name, checked(spellings[name], name, value.strip()))


def knob_of(name: str) -> str:
    """The setting that any of its spellings stands for. Raises UnknownName, with the nearest names, for others."""
    if name in KNOBS and name != "threads_env":
        return name
    last = name.rpartition(".")[2]
    found = spelled(name) or spelled(last)
    if found is not None:
        return found.knob
    if last == "sizeLimit":  # of a volume in memory at /dev/shm, which is the only one that is a setting
        return "shm_size"
    if name == "threads_env":
        raise UsageError(say("knobs.threads_by_name"), next_step=say("knobs.threads_by_name_next"))
    near = get_close_matches(name, [*KNOBS, *sorted(THREAD_VARIABLES), "workers", "num_threads"], n=1, cutoff=0.6)
    hint = say("knobs.did_you_mean", name=near[0]) if near else say("knobs.known_knobs", knobs=", ".join(KNOBS))
    raise UnknownName(say("knobs.unknown_knob", name=name), next_step=hint)


def checked(knob: str, name: str, value: str) -> str:
    """The canonical value. Raises UsageError where the setting cannot have it."""
    if knob == "prefetch_factor" and value.lower() in _NOTHING:
        return "none"
    if knob in _RANGES:
        low, high = _RANGES[knob]
        if not re.fullmatch(r"[+-]?\d{1,19}", value) or not low <= int(value) <= high:
            raise UsageError(say("knobs.out_of_range", name=name, value=value, low=low, high=high))
        return str(int(value))
    if knob == "shm_size":
        size_bytes(value)
        return value
    answer = _YES_OR_NO.get(value.lower())
    if answer is None:
        raise UsageError(say("knobs.not_yes_or_no", name=name, value=value))
    return answer


def size_bytes(text: str) -> int:
    """Bytes of a size as Docker takes it: `2g`, `2048m`, `512M`, plain bytes; units are powers of 1024.

    Source: docker run's --shm-size, "unit can be b, k, m or g"; `gb` and `GiB` are accepted by its parser
    (github.com/docker/go-units, RAMInBytes). Raises UsageError for anything else.
    """
    matched = _SIZE.fullmatch(text.strip())
    count = int(float(matched[1]) * 1024 ** _UNIT[(matched[2] or "b")[0].lower()]) if matched else 0
    if not 1 <= count <= LARGEST_SHM_BYTES:
        raise UsageError(say("knobs.bad_size", value=text), next_step=say("knobs.bad_size_next"))
    return count
