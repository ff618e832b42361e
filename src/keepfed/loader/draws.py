"""Where the random streams of this process stand, and putting them there.

The global generators of torch, Python and NumPy are what datasets draw from. Their states travel as bytes: a tuple of 625
integers takes four times as long to pickle.
"""

from __future__ import annotations

import array
import random
from typing import Any, NamedTuple

import torch
from numpy import random as numpy_random


class States(NamedTuple):
    """The random states of one process."""

    torch: bytes
    """torch's default generator."""
    python: Any
    """random.getstate(), its long tuple as bytes."""
    numpy: Any
    """np.random.get_state()."""


def states() -> States:
    """Where the global generators of this process stand."""
    version, words, gauss = random.getstate()
    return States(
        torch.get_rng_state().numpy().tobytes(),
        (version, array.array("I", words).tobytes(), gauss),
        numpy_random.get_state(),  # noqa: NPY002  # the generator that datasets draw from
    )


def restore(noted: States) -> None:
    """Draw from here on what the process of these states would have drawn."""
    torch.set_rng_state(torch.frombuffer(bytearray(noted.torch), dtype=torch.uint8))
    version, words, gauss = noted.python
    random.setstate((version, tuple(array.array("I", words)), gauss))
    numpy_random.set_state(noted.numpy)  # noqa: NPY002  # the generator that datasets draw from
