"""The program that `keepfed tune module:make_dataset` starts: a training loop around the user's dataset, and nothing else.

    python -m keepfed.offline.program module:make_dataset --step-ms 40

Started as any program of a user's is, with the hook in it, so that events, table, JSON and history are the very same; it ends
when the launcher has heard enough and sends the signal that Ctrl-C would send.

Exit codes: 2 when the specification leads nowhere, 1 when the user's own code raised, 130 after the signal.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from keepfed.errors import KeepfedError
from keepfed.loader.api import stats
from keepfed.offline.loop import Step, loop, waiting_step
from keepfed.offline.spec import function_of, loader_over, subject_of
from keepfed.text import choose_language, say


def main(words: Sequence[str] | None = None) -> int:
    """Loop over the dataset until a signal comes; the exit code."""
    asked = options().parse_args(words)
    choose_language(asked.lang)
    return guarded(asked.spec, lambda: train(asked))


def options() -> argparse.ArgumentParser:
    """The command line, as `keepfed tune` writes it."""
    parser = argparse.ArgumentParser(prog="keepfed tune", allow_abbrev=False)
    parser.add_argument("spec")
    parser.add_argument("--step-ms", type=float, default=0.0)
    parser.add_argument("--step", default="")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--collate", default="")
    parser.add_argument("--lang")
    return parser


def train(asked: argparse.Namespace) -> int:
    """Build the loader and loop over it. Raises UsageError, and whatever the user's code raises."""
    loader, _ours = loader_of(asked)

    def left_to_torch() -> bool:
        return bool(stats(loader).fallback)

    def epoch() -> Iterator[Any]:
        return iter(loader)

    loop(epoch, step_of(asked), left_to_torch, asked.spec)
    return 0


def loader_of(asked: argparse.Namespace, **more: Any) -> tuple[Any, bool]:
    """The loader that is measured, and whether it was built here (and not by the user's code)."""
    folder = os.getcwd()
    if folder not in sys.path:  # python -P, PYTHONSAFEPATH
        sys.path.insert(0, folder)
    subject = subject_of(asked.spec)
    collate = function_of(asked.collate, "--collate") if asked.collate else None
    loader = loader_over(subject, asked.spec, batch_size=asked.batch_size, collate_fn=collate, **more)
    if loader is not subject:
        # No line of the user's builds it. Its dataset is known by the name that was given for it.
        object.__setattr__(loader, "_keepfed_site", asked.spec)
    return loader, loader is not subject


def step_of(asked: argparse.Namespace) -> Step:
    """What happens to every batch."""
    return function_of(asked.step, "--step") if asked.step else waiting_step(asked.step_ms / 1e3)


def guarded(spec: str, run: Callable[[], int]) -> int:
    """`run()`, with what it raises told in the user's own terms."""
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except KeepfedError as error:
        sys.stderr.write(f"keepfed: {error}\n")
        return 2
    except Exception as error:
        sys.stderr.write("".join(traceback.format_exception(type(error), error, _users_part(error))))
        sys.stderr.write(f"keepfed: {say('offline.raised', spec=spec, error=type(error).__name__)}\n")
        return 1


def _users_part(error: Exception) -> TracebackType | None:
    """The traceback from the first frame on that is not ours; none where the error's own words hold a worker's traceback."""
    rest = error.__traceback__
    while rest is not None:
        package = (rest.tb_frame.f_globals.get("__name__") or "").partition(".")[0]
        ours = rest.tb_frame.f_globals.get("__spec__")
        named = getattr(ours, "name", "") or ""
        if package not in {"keepfed", "importlib", "torch"} and not named.startswith("keepfed."):
            return rest
        rest = rest.tb_next
    return None if "Original Traceback" in str(error) else error.__traceback__


if __name__ == "__main__":
    sys.exit(main())
