"""A spec as the engine's `create` takes it: one network at creation, the others before the start.

Before API 1.44 `create` takes only one network; connecting the others afterwards works everywhere.
"""

from __future__ import annotations

from typing import Any

from keepfed.recreate.spec import ContainerSpec


def create_body(spec: ContainerSpec) -> dict[str, Any]:
    """The body of `POST /containers/create`."""
    body: dict[str, Any] = {**spec.config, "Image": spec.image, "HostConfig": dict(spec.host)}
    first = spec.endpoints[0] if spec.endpoints else None
    if first is not None and first.settings:
        body["NetworkingConfig"] = {"EndpointsConfig": {first.network: dict(first.settings)}}
        if first.settings.get("MacAddress"):
            body["MacAddress"] = first.settings["MacAddress"]
    return body
