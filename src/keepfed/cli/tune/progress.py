"""What `keepfed tune` says while the program runs: whole lines, at most one per plan that was tried.

Nothing is drawn live. The program shares our terminal, and a progress bar of its own may stand in the very line that we
would redraw.
"""

from __future__ import annotations

import re

from keepfed.cli.run import loader_line
from keepfed.events import Event, LoaderSeen, Moved, Note, Settled
from keepfed.text import say
from keepfed.tuning.numbers import per_s, percent, plan_text, rate, seconds_text


def progress(event: Event, *, sweeping: bool = False) -> str | None:
    """The line that an event is worth, if any. `sweeping`: every plan is measured, none is kept or dropped at once."""
    match event:
        case LoaderSeen():
            return re.sub(r"^keepfed\s*[:：]\s*", "", loader_line(event))
        case Moved() if sweeping:
            numbers = {"rate": rate(event.batches_per_s), "wait": percent(event.wait_share)}
            return say("tune_report.swept", loader=event.loader, plan=plan_text(event.plan), **numbers)
        case Moved() if event.batches_per_s > 0:
            key = "tune_report.move_kept" if event.kept else "tune_report.move_dropped"
            brought = per_s(event.batches_per_s, event.predicted_batches_per_s, "tune_report.batches_per_s")
            numbers = {"rate": brought, "wait": percent(event.wait_share)}
            return say(key, loader=event.loader, plan=plan_text(event.plan), **numbers)
        case Settled():
            seconds = seconds_text(event.seconds)
            return say("tune_report.settled", loader=event.loader, plan=plan_text(event.plan), seconds=seconds)
        case Note():
            return event.text
    return None
