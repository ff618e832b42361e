"""An engine in memory, which does what Docker does to names and states, and fails where it is told to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keepfed.engine.client import Refused
from keepfed.engine.container import Container
from keepfed.engine.picking import Listed
from tests.recreate.described import docker_like

OLD, NEW = "a" * 64, "b" * 64


class FakeApi:
    """The calls of the docker package that recreating needs."""

    def __init__(self, fails: str = "", spoil: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.fails = fails
        self.spoil = spoil
        self.timeout = 60.0
        old = docker_like(Id=OLD, Name="/plain", Config__Hostname=OLD[:12])
        self.there: dict[str, dict[str, Any]] = {OLD: old}
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.fails == f"{name} {self.calls.count(name)}":
            raise Refused(f"{name} refused", 500)

    def _found(self, identity: str) -> dict[str, Any]:
        for one in self.there.values():
            if identity in (one["Id"], one["Name"][1:]):
                return one
        raise Refused("no such container", 404)

    def create_container_from_config(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        self._called("create")
        made = docker_like(Id=NEW, Name=f"/{name}", State={"Running": False}, Config__Hostname=NEW[:12])
        made["HostConfig"] = copy.deepcopy(body["HostConfig"])
        made["Config"] |= {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
        if self.spoil:
            self.spoil(made)
        self.there[NEW] = made
        return {"Id": NEW}

    def connect_container_to_network(self, identity: str, network: str, **_settings: Any) -> None:
        self._called("connect")
        self._found(identity)["NetworkSettings"]["Networks"][network] = {}

    def stop(self, identity: str, timeout: int) -> None:
        self._called("stop")
        self._found(identity)["State"] = {"Running": False}

    def rename(self, identity: str, name: str) -> None:
        self._called("rename")
        if any(one["Name"] == f"/{name}" for one in self.there.values()):
            raise Refused("name in use", 409)
        self._found(identity)["Name"] = f"/{name}"

    def start(self, identity: str) -> None:
        self._called("start")
        self._found(identity)["State"] = {"Running": True}

    def remove_container(self, identity: str, v: bool = False, force: bool = False) -> None:
        assert not v, "volumes stay"
        self._called("remove")
        found = self._found(identity)
        assert force or not found["State"]["Running"]
        del self.there[found["Id"]]

    def logs(self, _identity: str, tail: int) -> bytes:
        return b"last words"

    def inspect_container(self, identity: str) -> dict[str, Any]:
        return copy.deepcopy(self._found(identity))


class FakeEngine:
    """The engine round it."""

    kind = "docker"

    def __init__(self, api: FakeApi) -> None:
        self.api = api

    @contextmanager
    def asking(self, _doing: str) -> Iterator[None]:
        yield

    def containers(self) -> list[Listed]:
        return [Listed(one["Id"], (one["Name"][1:],), "", "", "") for one in self.api.there.values()]

    def inspect(self, identity: str) -> dict[str, Any]:
        return self.api.inspect_container(identity)


def container(api: FakeApi) -> Container:
    """The old container of a fake."""
    engine: Any = FakeEngine(api)
    return Container.of(engine, engine.inspect(OLD))
