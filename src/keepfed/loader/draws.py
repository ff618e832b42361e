"""Where the random streams of this process stand, and putting them there.

The global generators of torch, Python and NumPy are what datasets draw from. Their states travel as bytes: a tuple of 625
integers takes four times as long to pickle.
"""

from __future__ import annotations

import array
import random
from typing import Any, NamedTuple

import torch
from numpy import random as numpy_random  # here, once: NumPy 2 loads it at first use, which would be in every worker

from keepfed.loader import torch_seam


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


def reseed(seed: int) -> None:
    """Give this process the random state of one batch.

    `torch.default_generator` is seeded directly: `torch.manual_seed` would also queue seeds for every accelerator, at 80
    times the cost (86 µs against 1.1 µs).
    """
    torch.default_generator.manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF)
    random.seed(seed)
    numpy_random.seed((seed ^ seed >> 32) & 0xFFFF_FFFF)  # noqa: NPY002  # the generator that datasets draw from
    torch_seam.set_worker_seed(seed)


def batch_seed(base_seed: int, epoch: int, number: int) -> int:
    """The seed of one batch: splitmix64 over base seed, epoch and batch number (Steele, Lea and Flood, 2014)."""
    state = base_seed & 0xFFFF_FFFF_FFFF_FFFF
    for part in (epoch, number):
        state = (state + 0x9E37_79B9_7F4A_7C15 * (part + 1)) & 0xFFFF_FFFF_FFFF_FFFF
        state = (state ^ state >> 30) * 0xBF58_476D_1CE4_E5B9 & 0xFFFF_FFFF_FFFF_FFFF
        state = (state ^ state >> 27) * 0x94D0_49BB_1331_11EB & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 31
    return state >> 1
