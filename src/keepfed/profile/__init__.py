"""keepfed.toml: the settings that were measured for a program, kept beside it, with the evidence."""

from __future__ import annotations

from keepfed.profile.reading import FILE_NAME, find_profile, read_profile
from keepfed.profile.records import (
    LIMITS,
    SCHEMA,
    Evidence,
    HostProfile,
    LoaderProfile,
    Match,
    Measured,
    Profile,
    plan_for,
)
from keepfed.profile.writing import replace_file, write_profile

__all__ = [
    "FILE_NAME",
    "LIMITS",
    "SCHEMA",
    "Evidence",
    "HostProfile",
    "LoaderProfile",
    "Match",
    "Measured",
    "Profile",
    "find_profile",
    "plan_for",
    "read_profile",
    "replace_file",
    "write_profile",
]
