"""Lets the trainer's tools look at where a worker stands.

Where Yama restricts tracing (`kernel.yama.ptrace_scope` 1, Ubuntu's default), a process may be looked at by its ancestors
and by nobody else of the same user. The trainer is one, but py-spy, which it starts to get a worker's stack, is only a
sibling, and is refused. A process may name one other that is to count as an ancestor, and with it all that this one starts
(PR_SET_PTRACER(2const); task_is_descendant in the kernel's security/yama/yama_lsm.c). It is not inherited by fork(2).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import sys

_PR_SET_PTRACER = 0x59616D61  # linux/prctl.h: "Yama"


def let_trainer_look() -> None:
    """Let the process that this worker belongs to trace it, and what that one starts. Without Yama it changes nothing."""
    trainer = multiprocessing.parent_process()
    if trainer is None or trainer.pid is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(trainer.pid), 0, 0, 0)
