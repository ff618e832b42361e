"""The program's random states, put aside while a batch is made in its process from a random state of the batch's own.

A batch must come out the same wherever it is made, and the program's own draws must not notice. Saving and restoring is
cheap for torch (2 µs) and bearable for Python (20 µs), but takes 130 µs for NumPy, longer than a small batch takes to make. So
NumPy's global generator is exchanged instead (`numpy.random.set_bit_generator`, NumPy 1.24): 1 µs.

    program's MT19937 ──┐                                   one thing is lost on the way: the second half of a pair of
                        ├── numpy.random.* draws from it     normal draws, which NumPy keeps beside the generator.
    the batches' own  ──┘                                    Where there is one, states are copied after all.

Whether there is one is known without copying while the program has not drawn: no kept half last time, and the same place in
the same words of its generator. Python's state, too, is copied again only where the program has drawn meanwhile, which the same
look at CPython's own words tells (`RandomObject` in Modules/_randommodule.c: a counter and 624 words behind the object's header).

The number of threads is put aside too: torch's workers compute with one, and sums in another order end in other bits.
"""

from __future__ import annotations

import ctypes
import random
import sys
from functools import cache
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy import random as numpy_random
from numpy.random import mtrand

from keepfed.loader import draws

_WORDS = 624
_looked_at = itemgetter(0, 1, 396, 397)
"""Words of the generator that are compared: all change when it makes its next 624."""


class _Words(ctypes.Structure):
    """`mt19937_state` of NumPy: the words, and how many were used."""

    _fields_ = (("key", ctypes.c_uint32 * _WORDS), ("position", ctypes.c_int))


class Aside:
    """Puts the program's random states aside, and back."""

    def __init__(self) -> None:
        self._own: Any = None
        self._clean: tuple[Any, tuple[int, ...]] | None = None
        self._torch: Any = None
        self._python: Any = None
        self._drawn = _PythonState()
        self._numpy: Any = None  # the program's generator, or a copy of its state
        self._threads = 0

    def seed(self, seed: int) -> None:
        """Until `put_back`, this process draws what a worker would for the batch of this seed."""
        self.put_back()  # Ctrl-C may have come between a batch and that
        self._threads = torch.get_num_threads()
        self._numpy = self._exchanged()
        self._python = self._drawn.state()
        self._torch = torch.get_rng_state()
        torch.set_num_threads(1)
        draws.reseed(seed)

    def put_back(self) -> None:
        """As if nothing had been drawn. Nothing where nothing was put aside."""
        if self._torch is not None:
            torch.set_rng_state(self._torch)
            self._torch = None
        if self._python is not None:
            random.setstate(self._python)
            self._python = None
        if self._numpy is not None:
            if isinstance(self._numpy, dict):
                numpy_random.set_state(self._numpy)  # noqa: NPY002  # the generator that programs draw from
            else:
                mtrand.set_bit_generator(self._numpy)
            self._numpy = None
        if self._threads:
            torch.set_num_threads(self._threads)
            self._threads = 0

    def _exchanged(self) -> Any:
        """The program's generator, which is no longer the global one; a copy of its state where it has to be that."""
        present = mtrand.get_bit_generator()
        if not isinstance(present, np.random.MT19937):
            return numpy_random.get_state(legacy=False)  # noqa: NPY002  # as above
        place = _place(present)
        if self._clean is None or self._clean[0] is not present or self._clean[1] != place:
            state: Any = numpy_random.get_state(legacy=False)  # noqa: NPY002  # as above
            if state["has_gauss"]:
                self._clean = None
                return state
            self._clean = present, place
        if self._own is None:
            self._own = np.random.MT19937(0)
        self._numpy = present  # first: Ctrl-C must not leave the program with ours
        mtrand.set_bit_generator(self._own)
        return present


class _PythonWords(ctypes.Structure):
    """What CPython keeps of a generator behind the object's header."""

    _fields_ = (("position", ctypes.c_int), ("key", ctypes.c_uint32 * _WORDS))


class _PythonState:
    """`random.getstate()`, called again only where something was drawn since."""

    def __init__(self) -> None:
        self._words = _words_of(random._inst) if _words_are_known() else None
        self._copy: Any = None
        self._at: Any = None

    def state(self) -> Any:
        """The state as it is now."""
        if self._words is None:
            return random.getstate()
        kept = random._inst.gauss_next  # type: ignore[attr-defined]  # typeshed leaves it out
        at = self._words.position, *_looked_at(self._words.key), kept
        if at != self._at or self._copy is None:
            self._copy, self._at = random.getstate(), at
        return self._copy


def _words_of(generator: random.Random) -> _PythonWords:
    return _PythonWords.from_address(id(generator) + object.__basicsize__)


@cache
def _words_are_known() -> bool:
    """Whether the words stand where they are looked for; another interpreter, or a later one, may keep them elsewhere."""
    room = random.Random.__basicsize__ - object.__basicsize__
    if sys.implementation.name != "cpython" or room < ctypes.sizeof(_PythonWords):
        return False
    probe = random.Random(0)
    for _ in range(2):
        words, state = _words_of(probe), probe.getstate()[1]
        if (*words.key, words.position) != state:
            return False
        probe.random()
    return True


def _place(generator: np.random.MT19937) -> tuple[int, ...]:
    words = _Words.from_address(generator.ctypes.state_address)
    return (words.position, *_looked_at(words.key))
