"""The engine itself: how it is reached, what it answers, and its refusals in words that help.

`find_container("trainer")` asks every engine that runs here (a rootful Docker and somebody's own Podman may well stand side by
side) unless DOCKER_HOST or CONTAINER_HOST names one. The docker package speaks to both, and is imported here and nowhere else,
when an engine is asked: it brings half of the web's libraries with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from keepfed.engine.addresses import Address, addresses, nothing_listens, why_not
from keepfed.engine.picking import Listed, pick
from keepfed.errors import UnreachableError
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.engine.container import Container

ANSWER_S = 60.0
"""How long one answer may take; stopping, committing and pulling pass their own limits."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker or Podman service. Close it, or use it as a context manager."""

    api: Any
    """The docker package's low-level client (docker.APIClient)."""
    address: Address
    """Where it was reached."""
    kind: str
    """docker or podman."""
    version: str
    """Its own version: "27.3.1"."""

    @classmethod
    def connect(cls, address: Address) -> Engine:
        """The engine at this address. Raises UnreachableError, with the way out."""
        message, next_step = why_not(address)
        if message:
            raise UnreachableError(_named(address, message), next_step=next_step)
        import docker

        settings = {"base_url": address.url, "timeout": ANSWER_S, **_tls(address)}
        try:
            # Asked with a fixed version first: a client that negotiates in its constructor leaves its socket open on failure.
            with closing(docker.APIClient(version=docker.constants.MINIMUM_DOCKER_API_VERSION, **settings)) as client:
                about = client.version(api_version=False)
            api = docker.APIClient(version=about["ApiVersion"], **settings)
        except (
            Exception
        ) as error:  # DockerException, requests' and urllib3's errors, ValueError: whatever an address can break
            text = _named(address, say("engine.no_answer", url=address.url, reason=_text(error)))
            raise UnreachableError(text, next_step=say("engine.start_it")) from error
        parts = [str(part.get("Name", "")) for part in about.get("Components") or ()]
        kind = "podman" if any("podman" in part.lower() for part in parts) else "docker"
        return cls(api, address, kind, str(about.get("Version", "")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The engine goes on."""
        self.api.close()

    @property
    def local(self) -> bool:
        """Whether paths and process numbers that it names are most likely those of this machine."""
        return self.address.local

    def containers(self) -> list[Listed]:
        """All containers, whatever their state. Raises UnreachableError."""
        with self.asking(say("engine.doing_list")):
            raw = self.api.containers(all=True)
        return [_listed(entry) for entry in raw]

    def inspect(self, identity: str) -> dict[str, Any]:
        """Everything that the engine knows about a container, by its ID or exact name. Raises UnreachableError."""
        with self.asking(say("engine.doing_inspect", name=identity[:64])):
            detail: dict[str, Any] = self.api.inspect_container(identity)
        return detail

    def inspect_image(self, identity: str) -> dict[str, Any]:
        """Everything that the engine knows about an image. Raises UnreachableError."""
        with self.asking(say("engine.doing_inspect", name=identity)):
            detail: dict[str, Any] = self.api.inspect_image(identity)
        return detail

    def container(self, name: str) -> Container:
        """The container with this name, ID or unique beginning of an ID. Raises UsageError or UnreachableError."""
        from keepfed.engine.container import Container

        return Container.of(self, self.inspect(pick(name, self.containers()).id))

    @contextmanager
    def asking(self, doing: str) -> Iterator[None]:
        """Turn the docker package's errors into ours; `doing` says what was tried: "list the containers"."""
        import docker
        import requests

        try:
            yield
        except docker.errors.APIError as error:
            reason = _text(error.explanation or error)
            raise Refused(say("engine.refused", doing=doing, reason=reason), error.status_code) from error
        except requests.exceptions.Timeout as error:
            raise UnreachableError(say("engine.too_slow", doing=doing, url=self.address.url)) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError) as error:
            # ValueError: an answer that is no JSON, as Podman sends for some of its own errors.
            text = say("engine.broke_off", doing=doing, reason=_text(error), url=self.address.url)
            raise UnreachableError(text) from error

    def require_ok(self, answer: Any, doing: str) -> None:
        """Raise Refused, in the engine's own words, unless a raw answer is a success."""
        if answer.status_code < 400:
            return
        try:
            reason = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            reason = answer.reason
        raise Refused(say("engine.refused", doing=doing, reason=_text(reason)), answer.status_code)


class Refused(UnreachableError):
    """The engine answered, and said no."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status: 404 is absent, 409 a conflict, 500 whatever else went wrong."""


def engines(environ: Mapping[str, str] | None = None, home: Path | None = None) -> list[Engine]:
    """Every engine that answers. Raises UnreachableError when there is none, with the cause that is nearest to a cure."""
    failures: list[UnreachableError] = []
    found: list[Engine] = []
    for address in addresses(os.environ if environ is None else environ, Path.home() if home is None else home):
        if not address.source and address.path and not os.path.exists(address.path):
            continue
        try:
            found.append(Engine.connect(address))
        except UnreachableError as error:
            failures.append(error)
    if found:
        return _without_twins(found)
    if failures:
        raise failures[0]
    message, next_step = nothing_listens()
    raise UnreachableError(message, next_step=next_step)


@contextmanager
def find_container(name: str) -> Iterator[Container]:
    """The container of that name on any engine here; its connection is open inside the `with`.

    Raises UsageError (ambiguous) or UnreachableError (no engine, no such container, with the nearest names).
    """
    from keepfed.engine.container import Container

    everywhere = engines()
    try:
        listed = _everywhere(everywhere)
        picked = pick(name, [one for _, one in listed])
        engine = next(engine for engine, one in listed if one is picked)
        yield Container.of(engine, engine.inspect(picked.id))
    finally:
        for engine in everywhere:
            engine.close()


def _everywhere(asked: list[Engine]) -> list[tuple[Engine, Listed]]:
    """The containers of all engines that can list them. Raises UnreachableError where none can."""
    found: list[tuple[Engine, Listed]] = []
    failures: list[UnreachableError] = []
    for engine in asked:
        try:
            found += [(engine, one) for one in engine.containers()]
        except UnreachableError as error:
            failures.append(error)
    if len(failures) == len(asked):
        raise failures[0]
    return found


def _without_twins(found: list[Engine]) -> list[Engine]:
    """One engine each: /run/podman/podman.sock may well be what /var/run/docker.sock links to."""
    kept: dict[str, Engine] = {}
    for engine in found:
        place = os.path.realpath(engine.address.path) if engine.address.path else engine.address.url
        if place in kept:
            engine.close()
        else:
            kept[place] = engine
    return list(kept.values())


def _listed(entry: Mapping[str, Any]) -> Listed:
    labels = entry.get("Labels") or {}
    service = labels.get("com.docker.compose.service") or labels.get("io.podman.compose.service") or ""
    names = tuple(str(name).removeprefix("/") for name in entry.get("Names") or ())
    return Listed(
        id=str(entry["Id"]),
        names=names,
        image=str(entry.get("Image", "")),
        state=str(entry.get("State", "")),
        service=str(service),
    )


def _named(address: Address, message: str) -> str:
    return say("engine.named_by", source=address.source, message=message) if address.source else message


def _tls(address: Address) -> dict[str, Any]:
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as the docker command obeys them."""
    if address.path:
        return {}
    from docker.utils import kwargs_from_env

    found = kwargs_from_env()
    return {"tls": found["tls"]} if "tls" in found else {}


def _text(reason: object) -> str:
    """One line; Podman has put whole archives into its messages."""
    line = " ".join(str(reason).split())
    return line if len(line) <= 300 else f"{line[:300]}..."
