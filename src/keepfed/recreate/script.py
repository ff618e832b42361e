"""A spec as a POSIX script: for a machine without keepfed, for a colleague, or for reading before anything happens.

    found? ─► stop ─► rename aside ─► run ─► wait until healthy ─► ps, df ─► remove the old one ─► exit 0
                 └──────────┴───────────┴────────────┴── any failure, Ctrl-C ──► remove the new one, rename back,
                                                                                start the old one ─► exit 1

Every word is quoted, so that no value can become code. `DOCKER=podman sh FILE` takes another command.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import urlencode

from keepfed.recreate.commit import checked_reference
from keepfed.recreate.environment import RunEnvironment
from keepfed.recreate.flags import RunWords, run_words
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec
from keepfed.text import say

SETTLE_S = 5
"""A container without any health check counts as well when it has stayed up for so long."""


@dataclass(frozen=True, slots=True)
class Health:
    """When the new container counts as healthy."""

    url: str = ""
    """What has to answer with success; empty for none."""
    expect: str = ""
    """JSON that the answer's body has to contain; empty for any body."""
    timeout_s: int = 180
    """How long that may take."""


def script(spec: ContainerSpec, environment: RunEnvironment, stem: str, health: Health, commit: str = "") -> str:
    """The text of the script.

    `stem`.env and `stem`.exports lie beside it where `environment` has text for them. `commit` names the image as which the
    old container is kept first, and which the new one is made of.
    """
    words = run_words(spec)
    parts = [
        _head(spec, health),
        _files(environment, stem),
        _back(spec),
        _run(words, environment, stem, commit or spec.image),
        _healthy(spec, health),
        _course(spec, commit),
    ]
    return "\n".join(part for part in parts if part)


def _head(spec: ContainerSpec, health: Health) -> str:
    lines = [
        "#!/bin/sh",
        f"# {say('recreate.script_header', name=spec.name, size=size_word(spec.shm_bytes))}",
        "# DOCKER=podman sh FILE; LIMIT_S=600 sh FILE",
        "set -u",
        "DOCKER=${DOCKER:-docker}",
        f"LIMIT_S=${{LIMIT_S:-{health.timeout_s}}}",
        f"name={shlex.quote(spec.name)}",
        f"old={shlex.quote(aside_name(spec.name))}",
        f"described={shlex.quote(spec.identity)}",
        'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1',
        "step=found",
        "tell() { printf '%s\\n' \"$*\" >&2; }",
        *_needs_python(health),
        'of() { $DOCKER inspect --type container --format "$1" "$name" 2>/dev/null; }',
    ]
    return "\n".join([*lines, ""])


def _needs_python(health: Health) -> list[str]:
    """Comparing JSON is more than a shell can do."""
    if not health.expect:
        return []
    return [f"command -v python3 >/dev/null || {{ tell {_said('script_no_python')}; exit 2; }}"]


def _files(environment: RunEnvironment, stem: str) -> str:
    lines = []
    for text, suffix in ((environment.env_file, "env"), (environment.exports, "exports")):
        if text:
            file = f'"$here"/{shlex.quote(f"{stem}.{suffix}")}'
            lines.append(f"[ -r {file} ] || {{ tell {_said('script_no_file', file=f'{stem}.{suffix}')}; exit 2; }}")
    return "\n".join([*lines, ""]) if lines else ""


def _back(spec: ContainerSpec) -> str:
    """The function that undoes: it looks at what is there, since it may be called between any two steps."""
    by_hand = _said("script_by_hand", name=spec.name, old=aside_name(spec.name))
    return f"""\
# Whatever happened: the old container, under its name, running.
back() {{
    trap '' INT TERM HUP
    [ "$step" = found ] && return
    tell {_said("script_going_back", name=spec.name)}
    if $DOCKER inspect --type container "$old" >/dev/null 2>&1; then
        $DOCKER rm --force "$name" >/dev/null 2>&1
        $DOCKER rename "$old" "$name" || tell {by_hand}
    fi
    [ -z "$now" ] || $DOCKER start "$name" >/dev/null || tell {by_hand}
}}
"""


def aside_name(name: str) -> str:
    """What the old container is called while the new one has its name."""
    return f"{name}.keepfed-old"


def _run(words: RunWords, environment: RunEnvironment, stem: str, image: str) -> str:
    """The function that makes the new container; further networks are joined before it starts."""
    options = [shlex.join(option) for option in words.options]
    if environment.env_file:
        options.append(f'--env-file "$here"/{shlex.quote(f"{stem}.env")}')
    options += [shlex.join(["--env", name]) for name in environment.exported]
    verb = "create" if words.joins else "run --detach"
    behind = shlex.join([image, *words.command])
    lines = ["# The container as it was, but for the size of its shared memory.", "make() {"]
    if environment.exports:
        lines.append(f'    . "$here"/{shlex.quote(f"{stem}.exports")} || return 1')
    lines.append(f'    $DOCKER {verb} --name "$name" \\')
    lines += [f"        {option} \\" for option in options]
    lines.append(f"        {behind} >/dev/null || return 1")
    for join in words.joins:
        lines.append(f'    $DOCKER network connect {shlex.join(join)} "$name" || return 1')
    if words.joins:
        lines.append('    $DOCKER start "$name" >/dev/null || return 1')
    return "\n".join([*lines, "}", ""])


def _healthy(spec: ContainerSpec, health: Health) -> str:
    """The function that says whether the new container is well now."""
    lines = ["# Whether the new container is well by now.", "healthy() {"]
    if spec.check:
        lines.append(f"    {_engine_check(spec)} || return 1")
    if health.url:
        lines += [f"    {line}" for line in _url_check(health)]
    if not spec.check and not health.url:
        lines.append(f'    [ "$waited" -ge {SETTLE_S} ]')
    else:
        lines.append("    return 0")
    return "\n".join([*lines, "}", ""])


def _engine_check(spec: ContainerSpec) -> str:
    """Docker runs checks by itself; Podman leaves that to systemd, which not every machine has."""
    if not spec.podman:
        return "[ \"$(of '{{.State.Health.Status}}')\" = healthy ]"
    kind, *words = spec.check
    argv = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
    return f'$DOCKER exec "$name" {shlex.join(argv)} >/dev/null 2>&1'


def _url_check(health: Health) -> list[str]:
    url = shlex.quote(health.url)
    fetch = (
        f"if command -v curl >/dev/null 2>&1; then curl -fsS --max-time 5 --max-filesize 1048576 -- {url};"
        f" else wget -q -T 5 -O - -- {url}; fi 2>/dev/null"
    )
    if not health.expect:
        return [f"( {fetch} ) >/dev/null || return 1"]
    return [
        f"body=$({fetch}) || return 1",
        f'printf %s "$body" | python3 -c {shlex.quote(SUBSET)} {shlex.quote(health.expect)} || return 1',
    ]


SUBSET = """\
import json, sys
def within(part, whole):
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and within(v, whole[k]) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(within, part, whole))
    return part == whole and isinstance(part, bool) == isinstance(whole, bool)
try:
    sys.exit(not within(json.loads(sys.argv[1]), json.load(sys.stdin)))
except ValueError:
    sys.exit(1)
"""


def _course(spec: ContainerSpec, commit: str) -> str:
    """What happens, in order."""
    lines = [
        'now=$(of "{{.Id}}")',
        'if [ -n "$now" ] && [ "$now" != "$described" ] && [ -z "${FORCE:-}" ]; then',
        f"    tell {_said('script_another', name=spec.name)}; exit 2",
        "fi",
        f'if $DOCKER inspect --type container "$old" >/dev/null 2>&1; then tell {_said("script_left_over", old=aside_name(spec.name))}; exit 2; fi',
        "trap 'code=$?; [ \"$step\" = done ] || back; exit $code' EXIT",
        "trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP",
        'if [ -n "$now" ]; then',
    ]
    lines += [f"    {line}" for line in _commit(spec, commit)] if commit else []
    lines += [
        "    step=stopped",
        '    $DOCKER stop "$name" >/dev/null || exit 1',
        '    $DOCKER rename "$name" "$old" || exit 1',
        "fi",
        "step=aside",
        f"make || {{ tell {_said('script_not_made')}; exit 1; }}",
        "waited=0",
        "while :; do",
        "    if [ \"$(of '{{.State.Running}}')\" != true ]; then",
        f'        tell {_said("script_ended")}; $DOCKER logs --tail 20 "$name" >&2; exit 1',
        "    fi",
        "    healthy && break",
        f'    [ "$waited" -lt "$LIMIT_S" ] || {{ tell {_said("script_not_healthy")} "${{LIMIT_S}} s"; exit 1; }}',
        "    sleep 1; waited=$((waited + 1))",
        "done",
        f"[ \"$(of '{{{{.HostConfig.ShmSize}}}}')\" = {spec.shm_bytes} ] || {{ tell {_said('script_wrong_size')}; exit 1; }}",
        "step=done",
        '[ -z "$now" ] || $DOCKER rm "$old" >/dev/null',
        "$DOCKER ps --filter \"id=$(of '{{.Id}}')\"",
        f'$DOCKER exec "$name" df -h /dev/shm || tell {_said("script_no_df")}',
        "exit 0",
    ]
    return "\n".join([*lines, ""])


def _commit(spec: ContainerSpec, name: str) -> list[str]:
    """Keep the old one as an image, its variables emptied. Podman's service wants a body, which `docker commit` does not send."""
    repository, tag = checked_reference(name)
    changes = [f"ENV {entry.partition('=')[0]}=" for entry in spec.environment]
    words = shlex.join([word for change in changes for word in ("--change", change)])
    command = " ".join(word for word in ("$DOCKER commit", words, '"$name"', shlex.quote(name)) if word)
    if not spec.podman:
        return [f"{command} >/dev/null || exit 1"]
    query = urlencode(
        [("container", spec.name), ("repo", repository), ("tag", tag), *(("changes", one) for one in changes)]
    )
    post = "curl -fsS --unix-socket \"${DOCKER_HOST#unix://}\" -H 'Content-Type: application/json' -d '{}'"
    return [
        f"{command} >/dev/null 2>&1 ||",
        f"    {post} {shlex.quote(f'http://localhost/commit?{query}')} >/dev/null || exit 1",
    ]


def _said(key: str, **facts: str) -> str:
    """A sentence as one word of the shell."""
    return shlex.quote(say(f"recreate.{key}", **facts))
