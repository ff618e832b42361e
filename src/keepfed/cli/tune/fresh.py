"""What fresh processes have said, below the table: the finalists of an exhaustive search, and what else was tried."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keepfed.offline.finals import Final
from keepfed.offline.offers import Offer
from keepfed.offline.pairs import Ratio
from keepfed.plan import Plan
from keepfed.text import say
from keepfed.tuning.numbers import percent, plan_text, rate


def finals_table(finals: Sequence[Final], chosen: Plan | None) -> RenderableType:
    """One row per plan, fewest workers first."""
    table = _grid("left", "right", "right", "left", "left")
    for final in finals:
        style = "bold green" if final.plan == chosen else ""
        table.add_row(
            Text(plan_text(final.plan), style),
            Text(say("offline.batches_per_s", rate=rate(final.batches_per_s)), style),
            Text(percent(final.wait_share), style),
            Text(factor_text(final.ratio), style),
            Text(say("tune_report.chosen") if style else "", style),
        )
    head = Text(say("offline.finals_head", rounds=max(final.rounds for final in finals)))
    return Group("", head, "", Padding(table, (0, 0, 0, 2)))


def offers_table(offers: Sequence[Offer]) -> RenderableType:
    """One row per change: what would be written, and what it brought."""
    table = _grid("left", "right")
    for offer in offers:
        style = "bold green" if offer.ratio.faster else ""
        verdict = say("offline.faster" if offer.ratio.faster else "offline.no_faster")
        table.add_row(Text(offer.change.code, style), Text(f"{verdict}  {factor_text(offer.ratio)}", style))
    return Group("", Text(say("offline.offers_head")), "", Padding(table, (0, 0, 0, 2)))


def factor_text(ratio: Ratio) -> str:
    """A factor with its interval: "1.42× (1.36–1.49)"."""
    return say("offline.factor", factor=f"{ratio.factor:.2f}", low=f"{ratio.low:.2f}", high=f"{ratio.high:.2f}")


def _grid(*justify: str) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for one in justify:
        table.add_column(justify="right" if one == "right" else "left")
    return table
