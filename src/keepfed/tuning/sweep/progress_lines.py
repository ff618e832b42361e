r"""One drawn piece → how far which bar is, and what rate it says.

Rates are said in a dozen forms, and half of them upside down when steps are slow. Where a bar also counts ("52/1000"), the
count and the time at which it was drawn are worth more than the rate that is printed: tqdm smooths it, Lightning rounds it,
keras gives whole milliseconds. The bars were recorded from the programs (tqdm 4.70, Lightning 2.6, keras 3.15); keras 2 and
the lines of logs follow the sources of those that write them:

    tqdm        Epoch 3:  5%|▌   | 52/1000 [00:05<01:30, 10.53it/s, loss=2.1]     12.0kimg [00:00, 25.2kimg/s]
                                                     1.45s/batch, ?it/s before the first step
    Lightning   Epoch 0/4 ━━━━╸━━━━ 12/100 0:00:01 • 0:00:10 8.11it/s loss: 0.3   (rich; its other bar is tqdm's)
    keras       13/75 ━━━━━━━━━━━━━━━━━━━━ 0s 4ms/step - loss: 0.19               45/100 [===>.....] - ETA: 5s
    log lines   Epoch: [0][ 10/5004]  Time 0.250 (0.300)                          step 40/900, loss 2.1
                step 40: 812.5 samples/s       throughput: 35.2 img/sec

Sources: tqdm/std.py (format_meter, format_sizeof), lightning/pytorch/callbacks/progress/rich_progress.py,
keras/src/utils/progbar.py; examples/imagenet/main.py of pytorch, references/classification/utils.py of torchvision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepfed.errors import UsageError
from keepfed.text import say

_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6}
_SMALLER = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_UNITS = (
    "it|its|iter|iters|iteration|iterations|batch|batches|step|steps|sample|samples|img|imgs|image|images|ex|example|"
    "examples|seq|seqs|sequence|sequences|tok|token|tokens|frame|frames|clip|clips|row|rows|record|records|item|items"
)
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_TQDM = re.compile(
    rf"(?P<head>.*?)(?<![\d.])(?P<done>{_NUMBER})(?P<prefix>[kM]?)(?P<counted>[^\s\d/\[\]]*)"
    rf"(?:/(?P<total>{_NUMBER})(?P<total_prefix>[kM]?)[^\s\d/\[\]]*)? "
    r"\[[\d:]+(?:<[\d:?]+)?, +(?P<rate>[^\],]+)"
)
_FAST = re.compile(rf"(?P<number>{_NUMBER})(?P<prefix>[kM]?) ?(?P<unit>[^\s\d/,\]][^\s/,\]]*)/s$")
_SLOW = re.compile(rf"(?P<number>{_NUMBER})(?P<time>s|ms|us)/(?P<unit>[^\s,\]]+)$")
_COUNTED = re.compile(r"(?<![\d./])(?P<done>\d+)/(?P<total>\d+)(?![\d/])")
_DRAWN = re.compile(r"[━╸╺]{3}|\[[=>.]{5,}\]")
_LOGGED = re.compile(
    r"(?P<head>.*?)(?:\[ *|\b(?:it|iter|iteration|step|batch)(?:es|s)?[ :=\[]+)(?P<done>\d+) ?/ ?(?P<total>\d+)(?![\d/.])",
    re.IGNORECASE,
)
_LOOSE_FAST = re.compile(
    rf"(?<![\w.])(?P<number>{_NUMBER}) ?(?P<prefix>(?-i:[kKM]?)) ?(?P<unit>{_UNITS}) ?(?:/|per) ?(?:s|sec|second)\b",
    re.IGNORECASE,
)
_LOOSE_SLOW = re.compile(
    rf"(?<![\w.])(?P<number>{_NUMBER}) ?(?P<time>s|sec|ms|us|µs) ?(?:/|per) ?(?P<unit>{_UNITS})\b", re.IGNORECASE
)
_NAMED_FAST = re.compile(
    rf"(?<![\w.])(?P<unit>{_UNITS}) ?(?:/|per) ?(?:s|sec|second)\b['\"]?\s*[:=]\s*['\"]?(?P<number>{_NUMBER})(?P<prefix>)",
    re.IGNORECASE,
)
_LONGEST = 1000
"""No bar is longer; a dump of an array is, and is not worth searching."""
_HINT = re.compile(rf"/ ?(?:\d|s|{_UNITS})|\bper ", re.IGNORECASE)
"""What every form has somewhere: programs write thousands of other lines, and reading them takes time from their cores."""
# What Hugging Face's hub, datasets and transformers draw, torchvision's downloads, and Lightning before its first epoch.
_PREPARING = re.compile(
    r"(?:Map|Filter|Flatten|Cast|Generating|Download|Fetching|Resolving|Loading|Extract|Tokeniz|Creating|Saving|Sanity)",
    re.IGNORECASE,
)
_BYTES = re.compile(r"i?B(?:ytes?)?$")


@dataclass(frozen=True, slots=True)
class BarId:
    """What tells the bars of a program apart: the same words (but for numbers in them), length and unit."""

    words: str
    """Text before the bar, without numbers; empty where there is none."""

    total: float | None
    """What it counts to; None when it does not say."""

    unit: str
    """What it counts: "it", "batch", "step"; empty where nothing is named."""

    @property
    def prepares(self) -> bool:
        """Whether it is about what comes before training: a download, a data set that is tokenized, Lightning's sanity check."""
        return bool(_BYTES.search(self.unit) or _PREPARING.match(self.words))


@dataclass(frozen=True, slots=True)
class Reading:
    """What one piece says."""

    bar: BarId
    """Whose state it is."""

    done: float | None
    """How far it is, in units; None for a line that only names a rate."""

    rate: float | None
    """Units per second, as said; None where none is said yet."""


def read_progress(piece: str) -> Reading | None:
    """The progress that a piece shows; None for any other text."""
    if len(piece) > _LONGEST or not _HINT.search(piece):
        return None
    return _tqdm(piece) or _drawn(piece) or _logged(piece) or _loose(piece)


def _tqdm(piece: str) -> Reading | None:
    found = _TQDM.match(piece)
    if found is None:
        return None
    rate, unit = _rate(found["rate"].strip())
    if rate is None and not found["rate"].strip().startswith("?"):
        return None
    total = None if found["total"] is None else float(found["total"]) * _PREFIXES[found["total_prefix"]]
    done = float(found["done"]) * _PREFIXES[found["prefix"]]
    return Reading(BarId(_words(found["head"]), total, unit), done, rate)


def _rate(text: str) -> tuple[float | None, str]:
    """The rate inside tqdm's brackets, where the unit may be any word: "10.5it/s", "1.45s/it", "?it/s"."""
    if fast := _FAST.match(text):
        return float(fast["number"]) * _PREFIXES[fast["prefix"]], fast["unit"]
    if (slow := _SLOW.match(text)) and float(slow["number"]) > 0:
        return 1 / (float(slow["number"]) * _SMALLER[slow["time"]]), slow["unit"]
    return None, text.removeprefix("?").removesuffix("/s")


def _drawn(piece: str) -> Reading | None:
    """Bars of rich and keras: a count beside drawn lines, and perhaps a rate behind them."""
    bar = _DRAWN.search(piece)
    if bar is None:
        return None
    before, behind = piece[: bar.start()], piece[bar.start() :]
    # "Epoch 0/4 ━━━━ 12/100" counts epochs before the bar and batches behind it; "13/75 ━━━━ 4ms/step" has only one count.
    counts = _COUNTED.search(behind) or _COUNTED.search(before)
    if counts is None:
        return None
    loose = _loose(behind)
    rate = loose.rate if loose and loose.rate else None  # Lightning says 0.00it/s before it knows
    bar_id = BarId(_words(before), float(counts["total"]), loose.bar.unit if loose else "")
    return Reading(bar_id, float(counts["done"]), rate)


def _logged(piece: str) -> Reading | None:
    """A count in a line of a log, as torchvision's and timm's scripts and mmengine write it: the clock gives the rate."""
    found = _LOGGED.match(piece)
    if found is None:
        return None
    return Reading(BarId(_words(found["head"][-60:]), float(found["total"]), "it"), float(found["done"]), None)


def _loose(piece: str) -> Reading | None:
    """A rate named in a line of a log."""
    for form in (_LOOSE_FAST, _NAMED_FAST):
        if fast := form.search(piece):
            rate = float(fast["number"]) * _PREFIXES[fast["prefix"]]
            return Reading(BarId("", None, fast["unit"].lower()), None, rate)
    if (slow := _LOOSE_SLOW.search(piece)) and float(slow["number"]) > 0:
        rate = 1 / (float(slow["number"]) * _SMALLER[slow["time"].lower()])
        return Reading(BarId("", None, slow["unit"].lower()), None, rate)
    return None


def _words(head: str) -> str:
    """The description of a bar without its numbers and its percentage: "Epoch 3:  5%|▌   |" is "Epoch"."""
    described = re.sub(r"\s*\d+%\|.*$", "", head)
    return " ".join(re.sub(r"[\d./]+|[━╸╺:|\[\]()]+", " ", described).split())


# ---------------------------------------------------------------------------------------------------------------- --metric


class Metric:
    r"""The user's own regular expression: its one group is the number.

    The group may be called `seconds` or `ms` (`time: (?P<seconds>[\d.]+)`): then it is the time of one step, and less is better.
    """

    def __init__(self, pattern: str) -> None:
        """Raises UsageError when it is no regular expression or has not exactly one group."""
        try:
            self._regex = re.compile(pattern)
        except re.error as error:
            message = say("sweep.bad_metric", pattern=pattern, reason=error)
            raise UsageError(message, next_step=say("sweep.bad_metric_next")) from error
        names = list(self._regex.groupindex)
        if self._regex.groups != 1 or any(name not in {"seconds", "ms"} for name in names):
            key = "sweep.metric_name" if names and self._regex.groups == 1 else "sweep.metric_groups"
            message = say(key, pattern=pattern, count=self._regex.groups, name=names[0] if names else "")
            raise UsageError(message, next_step=say("sweep.bad_metric_next"))
        self._second = {"seconds": 1.0, "ms": 1e-3}[names[0]] if names else None
        self.bar = BarId("", None, "/s" if names else "")

    def read(self, piece: str) -> Reading | None:
        """The number in this piece, if it is there."""
        found = self._regex.search(piece)
        try:
            number = float(found.group(1).replace(",", "")) if found is not None and found.group(1) else None
        except ValueError:
            return None
        if number is None or not 0 <= number < float("inf"):
            return None
        if self._second is not None:
            return Reading(self.bar, None, 1 / (number * self._second)) if number > 0 else None
        return Reading(self.bar, None, number)
