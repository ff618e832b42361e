"""Documents of `tune --json` as searches leave them, made of a small model: throughput grows with workers up to the step."""

from __future__ import annotations

import random
from typing import Any

HOST: dict[str, Any] = {
    "cores": 8,
    "cores_cause": "machine",
    "cores_source": "",
    "cores_pool": 8,
    "cores_machine": 8,
    "ranks": 1,
    "memory_bytes": 33285996544,
    "memory_available_bytes": 28285996544,
    "gpus": [{"name": "NVIDIA H200"}, {"name": "NVIDIA H200"}],
    "container": "docker",
    "kernel": "6.1.0",
    "cpu_model": "AMD EPYC 9654",
    "load_1m": 1.25,
    "cpu_pressure": 0.02,
    "python": "3.11.7",
    "fingerprint": "8c-31g-9f2c01ab",
}


def per_s(workers: int) -> float:
    """5.5 batches/s per worker, the step takes 40 ms."""
    return min(25.0, 5.5 * workers) if workers else 4.6


def plan(workers: int, prefetch: int = 2) -> dict[str, Any]:
    rate = per_s(workers)
    return {
        "num_workers": workers,
        "prefetch_factor": prefetch,
        "batches_per_s": round(rate, 4),
        "wait_share": round(1 - rate / 26, 4),
    }


def point(workers: int, prefetch: int = 2, *, windows: int = 4, predicted: float | None = None) -> dict[str, Any]:
    found = plan(workers, prefetch)
    spread = 0.04 * found["batches_per_s"]
    return {
        **found,
        "low": found["batches_per_s"] - spread if windows > 1 else None,
        "high": found["batches_per_s"] + spread if windows > 1 else None,
        "windows": windows,
        "seconds": 3.0 * windows,
        "memory_bytes": 90_000_000 * workers,
        "cpu_s_per_batch": 0.18,
        "predicted_batches_per_s": predicted,
    }


def move(workers: int, at_s: float, *, kept: bool = True, predicted: float | None = None) -> dict[str, Any]:
    return {
        **plan(workers),
        "kept": kept,
        "reason": f"{workers} workers should feed the step, which takes 40 ms",
        "at_s": at_s,
        "predicted_batches_per_s": predicted,
    }


def loader(site: str = "train.py:41", dataset: str = "__main__.PhotoFolder", *, windows: int = 12) -> dict[str, Any]:
    """A finished search: from 1 worker over 4 to 5; 6 were tried and not kept. `windows` of 3 s each."""
    noise = random.Random(7)
    stages = (1, 4, 5, 6, 5)
    timeline = []
    for number in range(windows):
        workers = stages[number * len(stages) // windows]
        found = plan(workers)
        found["batches_per_s"] *= noise.uniform(0.95, 1.05)
        timeline.append({"at_s": 3.0 * (number + 1), **found})
    unit = 3.0 * windows / len(stages)
    return {
        "dataset": dataset,
        "site": site,
        "batch_size": 8,
        "before": plan(1),
        "after": plan(5),
        "limited_by": "step",
        "settled": True,
        "stall_share": 0.012,
        "seconds": 3.0 * windows,
        "moves": [
            move(4, unit, predicted=20.1),
            move(5, 2 * unit, predicted=25.0),
            move(6, 3 * unit, kept=False, predicted=25.0),
        ],
        "points": [point(1), point(4, predicted=20.1), point(5, predicted=25.0), point(6, windows=1, predicted=25.0)],
        "timeline": timeline,
        "phases": {
            "fetch_s": 0.129,
            "decode_s": None,
            "transform_s": 0.031,
            "collate_s": 0.012,
            "copy_s": 0.003,
            "cpu_s": 0.150,
            "queued_s": None,
            "batches": 240,
        },
        "what_if": [
            {"key": "step", "factor": None, "text": "The step is the limit: more workers change nothing."},
            {"key": "decode", "factor": 1.9, "text": "A faster decoder would save up to 1.9× of a worker's time."},
        ],
    }


def tuned(*loaders: dict[str, Any], search: str = "online") -> dict[str, Any]:
    return {"schema": "keepfed.tune/1", "search": search, "host": HOST, "loaders": list(loaders or [loader()])}


def old() -> dict[str, Any]:
    """As documents were before points, timeline and predictions."""
    one = loader()
    for key in ("points", "timeline", "phases", "what_if"):
        del one[key]
    one["moves"] = [
        {key: value for key, value in each.items() if "at_s" not in key and "pred" not in key} for each in one["moves"]
    ]
    return {"schema": "keepfed.tune/1", "host": HOST, "loaders": [one]}


def exhaustive() -> dict[str, Any]:
    one = loader()
    one["moves"], one["timeline"] = [], []
    one["points"] = [
        {**point(workers, prefetch), "batches_per_s": per_s(workers) * (1 + prefetch / 40)}
        for workers in (1, 2, 3, 4, 6, 8)
        for prefetch in (1, 2, 4)
    ]
    one["after"] = plan(4)
    return tuned(one, search="exhaustive")


def finals() -> dict[str, Any]:
    """An exhaustive search of a dataset without a step, its best plans and two changes in fresh processes."""
    document = exhaustive()
    document["step"] = False
    document["loaders"][0] |= {
        "site": "mydata:make",
        "finals": [
            {**plan(4), "factor": 1.0, "low": 1.0, "high": 1.0, "rounds": 4},
            {**plan(6), "factor": 1.08, "low": 1.05, "high": 1.11, "rounds": 4},
        ],
        "offers": [
            {
                "key": "threads",
                "factor": 1.42,
                "low": 1.36,
                "high": 1.49,
                "faster": True,
                "text": "cv2.setNumThreads(0)",
            },
            {"key": "pin", "factor": 0.99, "low": 0.96, "high": 1.02, "faster": False, "text": "pin_memory=True"},
        ],
    }
    return document


def swept(*rates: float | None, **more: Any) -> dict[str, Any]:
    """A sweep whose values are 0, 2, 4, 8, 16 …; None: the run failed. `more` goes into the object "sweep"."""
    known = rates or (8.1, 15.5, 27.9, 31.2, 29.8)
    names = [str(0 if number == 0 else 2**number) for number in range(len(known))]
    values = [
        {
            "value": name,
            "how": "failed" if rate is None else "measured",
            "exit": 1 if rate is None else 130,
            "runs": 1,
            "batches_per_s": rate,
            "low": None,
            "high": None,
            "unit": "it",
            "epoch_s": None,
            "seconds": 30.0 + number,
            "cpu_s": 12.5 * (number + 1),
            "cpu_s_per_batch": 0.05 * (number + 1),
            "peak_pss_bytes": 400_000_000 * (number + 1),
            "memory_kind": "pss",
            "gpu_busy": None,
        }
        for number, (name, rate) in enumerate(zip(names, known, strict=True))
    ]
    fastest = names[max(range(len(known)), key=lambda number: known[number] or 0.0)]
    choice = {"compared_by": "rate", "band": 0.05, "best": fastest, "fastest": fastest, "equal": [fastest], **more}
    sweep = {"each_s": 60.0, "repeat": 1, **choice, "values": values}
    return {"schema": "keepfed.tune/1", "search": "sweep", "host": HOST, "loaders": [], "sweep": sweep}
