"""Whose a place is: a loader's, or that of something else which uses the same words.

Asked in this order, because the first answer is the surest:

    who takes the value in the end?       a loader → yes;  Ray, a pool, range() → no
    what do help text and class say?      "ray workers", class RayStrategy, Tensor → no
    who takes it under the loader's word? make(num_workers=n), cfg.num_workers = n → yes
    does the name say it alone?           num_workers → yes, unless it counts ranks
    what stands beside it, and around?    workers beside batch_size, among epochs and lr → yes
"""

from __future__ import annotations

import re
from dataclasses import replace

from keepfed.knobs.python.facts import (
    ASSUMED,
    ELSEWHERE,
    ENVIRONMENT,
    FOREIGN,
    LOADER,
    LOADERS,
    NEUTRAL,
    Facts,
    Place,
    Scope,
)
from keepfed.knobs.python.flow import Flow
from keepfed.knobs.python.foreign import is_foreign, pins_something_else, prepares_data, tells_workers
from keepfed.knobs.python.parsing import Parsed
from keepfed.knobs.python.surroundings import Surroundings
from keepfed.knobs.python.value import is_literal
from keepfed.knobs.site import Role

_COUNTS_RANKS = re.compile(
    rb"(?i)world_size|num_ranks|ranks_per_node|num_nodes|hvd\.size|comm\.(?:size|get_size)|num_replicas|^len\(|\bkv\.|kvstore"
)
_OF_WORKERS = re.compile(rb"(?i)workers|num_worker")
_OF_A_WORKER = re.compile(rb"worker_info|^info\.|\b_?info\.num_workers")


class Ownership:
    """The judgement over one file's places."""

    def __init__(self, facts: Facts, parsed: Parsed) -> None:
        self._places = facts.places
        self._parsed = parsed
        self._flow = Flow(facts) if facts.places else None
        self._around = Surroundings(parsed.source.utf8)

    def of_loaders(self) -> list[Place]:
        """The places that are a loader's settings, or variables and limits."""
        return [place for each in self._places if self._counts(place := self._as_used(each))]

    def _as_used(self, place: Place) -> Place:
        """The same place; as threads where an environment variable is what it goes into: `NUM_THREADS = 4` and `str(NUM_THREADS)`."""
        if place.sure or place.knob != "num_workers" or place.role is Role.VARIABLE or self._flow is None:
            return place
        ends = self._flow.ends(place.key)
        into_loaders = {LOADER, LOADERS, ASSUMED} & ends or (place.hop and ELSEWHERE in ends)
        return place if ENVIRONMENT not in ends or into_loaders else replace(place, knob="threads_env", hop=False)

    def _counts(self, place: Place) -> bool:
        assert self._flow is not None
        if place.role is Role.VARIABLE:
            return place.sure
        ends = self._flow.ends(place.key)
        if place.knob == "threads_env":
            return place.sure or ENVIRONMENT in ends
        if place.knob in {"shm_size", "cpus_per_task"}:
            return place.sure and (place.knob == "cpus_per_task" or is_literal(place.knob, place.value))
        if is_foreign(place.owner.rpartition(".")[2]) or self._is_torchs_own(place):
            return False
        if place.hop:
            return bool({LOADER, ASSUMED} & ends) and self._flow.only_for_loaders(place.key)
        if LOADER in ends or (LOADERS in ends and place.knob != "num_workers"):
            return True
        if FOREIGN in ends or place.denied or _inside_foreign(place.scope) or _shards(place) or _is_about_others(place):
            return False
        around = self._around
        if around.belong_to_others or (place.knob == "num_workers" and around.speak_of_nothing):
            return False
        return self._is_believed(place, assumed=ASSUMED in ends)

    def _is_believed(self, place: Place, *, assumed: bool) -> bool:
        """Whether a name, with what stands around it, is enough: nobody that is known takes the value."""
        if place.knob == "pin_memory" and place.spelling == "pin_memory" and place.role in {Role.CALL, Role.DEFAULT}:
            around = self._around
            return place.reasoned or (place.key[0] == "field" and (around.loads or around.has_batches))
        if place.knob == "num_workers" and _counts_ranks(self._parsed.text(place.value)):
            return False
        if place.sure or (assumed and place.role is not Role.CALL):
            return True
        return place.reasoned or self._stands_among_settings(place)

    def _is_torchs_own(self, place: Place) -> bool:
        """Whether it takes up what torch says about the worker that it runs in: `worker_info.num_workers` is read, not set."""
        if place.knob != "num_workers":
            return False
        sharding = place.scope is not None and place.scope.sharding and place.key[0] == "name"
        return sharding or _OF_A_WORKER.search(self._parsed.text(place.value)) is not None

    def _stands_among_settings(self, place: Place) -> bool:
        """Whether a name that is not sure is set where a training program has its settings."""
        if place.role is Role.NAME and not place.spelling.isupper() and not self._is_for_others_to_read(place):
            return False
        if place.role is Role.CALL or (place.role is Role.DEFAULT and place.key[0] == "name"):
            return False  # an argument, or the parameter of some function
        if place.role is not Role.OPTION and not is_literal(place.knob, place.value):
            return False
        return self._around.settle(place.spelling)

    def _is_for_others_to_read(self, place: Place) -> bool:
        """Whether it is a variable of the module that nothing in the file uses: `workers = 4` in config.py."""
        assert self._flow is not None
        at_top = place.scope is not None and place.scope.kind == "module"
        return at_top and self._flow.ends(place.key) <= {NEUTRAL}


def _counts_ranks(value: bytes) -> bool:
    """Whether a value is the number of processes of a job, and not a share of some number of workers."""
    return _COUNTS_RANKS.search(value) is not None and not _OF_WORKERS.search(value)


def _inside_foreign(scope: Scope | None) -> bool:
    """Whether a class round it is Ray's, Dask's or a pool."""
    while scope is not None:
        if scope.kind == "class" and is_foreign(scope.name):
            return True
        scope = scope.parent
    return False


def _shards(place: Place) -> bool:
    """Whether it is kept by an object that cuts its data into shares for the workers: a dataset's, not a loader's."""
    holder = place.scope.parent if place.scope is not None else None
    return place.key[:2] == ("attr", "self") and holder is not None and holder.kind == "class" and holder.sharding


def _is_about_others(place: Place) -> bool:
    """Whether the call, class or function pins tensors, tells workers how many they are, or prepares data before any training."""
    names = [*place.owner.split("."), place.scope.name if place.scope is not None else ""]
    if place.knob == "pin_memory":
        return place.role is not Role.OPTION and any(pins_something_else(name) for name in names)
    return tells_workers(place.owner) or prepares_data(place.owner)
