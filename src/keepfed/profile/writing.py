"""Records → keepfed.toml: comments and the tables of other loaders stay, and the file is replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from keepfed.errors import ProfileError
from keepfed.profile.reading import Reading, read_text
from keepfed.profile.records import SCHEMA, Evidence, HostProfile, LoaderProfile, Profile, portable
from keepfed.text import say


def write_profile(path: Path, profile: Profile) -> None:
    """Puts the loaders of `profile` into `path`; comments and the tables of other loaders stay.

    A table that stays although `[host]` changes notes in its evidence which host it was measured on. The file is replaced
    in one step; a symbolic link stays and its target is replaced.

    Raises ProfileError when the file that is there is malformed (it is left untouched) or the place cannot be written.
    """
    target = _target(path)
    try:
        replace_file(target, _rendered(target, profile).encode())
    except OSError as error:
        raise ProfileError(
            say("plan.unwritable", file=path, error=error.strerror or error), next_step=say("plan.unwritable_next")
        ) from error


def _target(path: Path) -> Path:
    """Where a write to `path` ends up. A dangling link is refused: it would create a file far from where it is looked for."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ProfileError(
            say("plan.dangling", file=path, target=path.readlink()), next_step=say("plan.unwritable_next")
        ) from error


def _rendered(target: Path, profile: Profile) -> str:
    import tomlkit
    from tomlkit.items import AoT

    if target.exists():
        text = read_text(target)
        old = Reading(target, text).profile()
        document = tomlkit.parse(text)
    else:
        old = Profile(profile.host)
        document = tomlkit.document()
        document.add(tomlkit.comment(say("plan.header")))
        document["schema"] = SCHEMA
        document["host"] = tomlkit.table()
    if old.host.fingerprint != profile.host.fingerprint:
        for entry, table in zip(old.loaders, document.get("loader", ()), strict=True):
            if entry.evidence is not None and not entry.evidence.host:
                table["evidence"]["host"] = old.host.fingerprint
    _set(document["host"], _host_table(profile.host))
    tables: Any = document.setdefault("loader", AoT([])) if profile.loaders else []
    places = {entry.loader: index for index, entry in enumerate(old.loaders)}
    for entry in profile.loaders:
        loader = portable(entry.loader)
        if loader in places:
            _set(tables[places[loader]], _loader_table(entry))
        else:
            table = tomlkit.table()
            _set(table, _loader_table(entry))
            tables.append(table)
    return tomlkit.dumps(document)


def _set(table: Any, values: dict[str, Any]) -> None:
    """Bring `table` to `values`, touching only what differs, so that comments and spellings stay."""
    import tomlkit

    for key in [key for key in table if key not in values]:
        del table[key]
    for key, value in values.items():
        if key in table and isinstance(value, dict):
            _set(table[key], value)
        elif key not in table or table[key] != value:
            if key == "evidence":
                table[key] = tomlkit.table()
                _set(table[key], value)
            elif isinstance(value, dict):
                table[key] = tomlkit.inline_table()
                table[key].update(value)
            else:
                table[key] = value


def _host_table(host: HostProfile) -> dict[str, Any]:
    return {
        "fingerprint": host.fingerprint,
        "cores": host.cores,
        "memory_bytes": host.memory_bytes,
        "gpus": list(host.gpus),
    }


def _loader_table(entry: LoaderProfile) -> dict[str, Any]:
    loader = portable(entry.loader)
    table: dict[str, Any] = {"dataset": loader.dataset, "site": loader.site}
    if loader.ordinal:
        table["ordinal"] = loader.ordinal
    table |= {"num_workers": entry.plan.num_workers, "prefetch_factor": entry.plan.prefetch_factor}
    if entry.evidence is not None:
        table["evidence"] = _evidence_table(entry.evidence)
    return table


def _evidence_table(evidence: Evidence) -> dict[str, Any]:
    table: dict[str, Any] = {
        "date": evidence.date,
        "before": evidence.before.to_json(),
        "after": evidence.after.to_json(),
        "limited_by": evidence.limited_by,
        "seconds": round(evidence.seconds, 1),
    }
    return table | ({"host": evidence.host} if evidence.host else {})


def replace_file(target: Path, data: bytes) -> None:
    """The whole file or nothing: written beside the target, then renamed over it."""
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
