"""The machine on which was measured, a line per fact. The same words as elsewhere where the document has their facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepfed.host.words import amount, number
from keepfed.text import say
from keepfed.tuning.numbers import percent
from keepfed.tuning.report.reading import Facts


def machine(raw: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Label and words of each fact that is known."""
    host = Facts(raw)
    known = {
        "report.cores": _cores(host),
        "report.host_memory": _memory(host),
        "report.gpus": _gpus(host),
        "report.cpu": host.text("cpu_model"),
        "report.load": _load(host),
        "report.system": host.text("kernel"),
        "report.container": host.text("container"),
        "report.python": host.text("python"),
        "report.fingerprint": host.text("fingerprint"),
    }
    return tuple((say(key), text) for key, text in known.items() if text)


def busy(raw: Mapping[str, Any]) -> str:
    """What to know where others had the cores: how many were wanted before the program started; empty if few enough."""
    host = Facts(raw)
    load, cores = host.amount("load_1m"), host.amount("cores_machine")
    if not load or not cores or load < cores:
        return ""
    return say("report.busy", load=number(round(load)), cores=number(cores))


def _cores(host: Facts) -> str:
    cores, cause = host.amount("cores"), host.text("cores_cause")
    if cores is None:
        return ""
    machine, pool, ranks = (host.amount(key) for key in ("cores_machine", "cores_pool", "ranks"))
    facts = {"cores": number(cores), "machine": number(machine), "pool": number(pool), "ranks": number(ranks)}
    said = say(f"host.cores.{cause}", source=host.text("cores_source"), **facts)
    return number(cores) if said.startswith("host.") else said


def _memory(host: Facts) -> str:
    memory, available = host.amount("memory_bytes"), host.amount("memory_available_bytes")
    if memory is None:
        return ""
    if available is None:
        return amount(memory)
    return say("report.memory_free", memory=amount(memory), available=amount(available))


def _gpus(host: Facts) -> str:
    names = [gpu.text("name") or "?" for gpu in host.many("gpus")]
    return say("report.list").join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def _load(host: Facts) -> str:
    load, pressure = host.amount("load_1m"), host.share("cpu_pressure")
    parts = [
        "" if load is None else say("report.load_average", load=number(load)),
        "" if pressure is None else say("report.cpu_pressure", share=percent(pressure)),
    ]
    return say("report.list").join(part for part in parts if part)
