"""Records → keepfed.toml: comments and the tables of other loaders stay, and the file is replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from keepfed.errors import ProfileError
from keepfed.plan import LoaderId
from keepfed.profile.reading import Reading, read_text
from keepfed.profile.records import SCHEMA, Evidence, HostProfile, LoaderProfile, Profile, plan_for, portable
from keepfed.text import say


def write_profile(path: Path, profile: Profile, *, alive: Collection[LoaderId] = ()) -> None:
    """Puts the loaders of `profile` into `path`; comments and the tables of other loaders stay.

    A loader whose line has moved takes over its old table, by the rule of `plan_for`; `alive` are the loaders of the
    program that keep theirs although nothing new is written for them.
    A table that stays although `[host]` changes notes in its evidence which host it was measured on. The file is replaced
    in one step; a symbolic link stays and its target is replaced.

    Raises ProfileError when the file that is there is malformed (it is left untouched) or the place cannot be written.
    """
    target = _target(path)
    try:
        replace_file(target, _rendered(target, profile, alive).encode())
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


def _rendered(target: Path, profile: Profile, alive: Collection[LoaderId]) -> str:
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
        document["host"] = _spaced_table()
    if old.host.fingerprint != profile.host.fingerprint:
        for entry, table in zip(old.loaders, document.get("loader", ()), strict=True):
            if entry.evidence is not None and not entry.evidence.host:
                table["evidence"]["host"] = old.host.fingerprint
    _set(document["host"], _host_table(profile.host))
    if profile.loaders:
        if not isinstance(document.get("loader"), AoT):  # `loader = [{…}]` is TOML too, but cannot be added to
            profile = _joined(Reading(target, tomlkit.dumps(document)).profile(), profile)
            document.pop("loader", None)
            document["loader"] = AoT([])
            old = Profile(old.host)
        _set_loaders(document["loader"], old, profile, alive)
    return tomlkit.dumps(document)


def _joined(old: Profile, new: Profile) -> Profile:
    entries = {entry.loader: entry for entry in old.loaders} | {portable(entry.loader): entry for entry in new.loaders}
    return Profile(new.host, tuple(entries.values()))


def _set_loaders(tables: Any, old: Profile, profile: Profile, alive: Collection[LoaderId]) -> None:

    places = {entry.loader: index for index, entry in enumerate(old.loaders)}
    taken = {*alive, *(entry.loader for entry in profile.loaders)}
    for entry in profile.loaders:
        match = plan_for(old, entry.loader, taken=taken)
        if match is None:
            tables.append(_spaced_table())
        else:
            taken.add(match.entry.loader)
        _set(tables[places[match.entry.loader] if match else -1], _loader_table(entry))


def _spaced_table() -> Any:
    """A new table with an empty line above its head."""
    import tomlkit

    table = tomlkit.table()
    table.trivia.indent = "\n"
    return table


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
                table[key] = _spaced_table()
                _set(table[key], value)
            elif isinstance(value, dict):
                table[key] = tomlkit.inline_table()
                table[key].update(value)
            else:
                table[key] = value


def _host_table(host: HostProfile) -> dict[str, Any]:
    table: dict[str, Any] = {"fingerprint": host.fingerprint}
    if host.cores is not None:
        table["cores"] = int(host.cores) if float(host.cores).is_integer() else host.cores
    if host.memory_bytes is not None:
        table["memory_bytes"] = host.memory_bytes
    return table | {"gpus": list(host.gpus)}


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
