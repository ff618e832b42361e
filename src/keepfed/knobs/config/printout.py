r"""Printouts: what a program wrote down about one of its runs. And files of the same look that programs read.

The options of a run are printed into `opt.txt` beside its checkpoints. The next start overwrites it and nothing reads it back, so
changing it changes nothing; it tells what was in effect, and sometimes what the default is. Three layouts:

    ----------------- Options ---------------            ------------ Options -------------
                 batch_size: 4    \t[default: 1]          batchSize: 1
              num_threads: 8                              nThreads: 2
    ----------------- End -------------------            -------------- End ----------------

and the second one appended to the file at each run, of which the last counts. A file without such a header may be one that the
program reads (`key: value`, `key=value`, or options one per line): its values are settings until somebody sees the code write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from keepfed.knobs.commands.command_line import sites_of_words
from keepfed.knobs.config import ini_config, json_config
from keepfed.knobs.config.command_values import words_of_line
from keepfed.knobs.config.entry import Document, Entry, Homes, Shape
from keepfed.knobs.config.reason import OPTIONS_FILE, company, is_the_loaders
from keepfed.knobs.config.sites import sites_of
from keepfed.knobs.config.written_value import written
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.knobs.spelling import spelled

_HEADER = re.compile(
    rb"(?im)^[ \t]*[-=*#~_+]{3,}[ \t]*(?:\w+[ \t]+){0,2}"
    rb"(?:opt(?:ion)?s?|arg(?:ument)?s|config(?:uration)?s?|param(?:eter)?s|hyper-?param(?:eter)?s|settings|flags)"
    rb"[ \t]*:?[ \t]*[-=*#~_+]{3,}[ \t]*\r?$"
)
_END = re.compile(rb"(?im)^[ \t]*[-=*#~_+]{3,}[ \t]*(?:end[ \t]*[-=*#~_+]{3,}|[-=*#~_+]*)[ \t]*\r?$")
_NAMESPACE = re.compile(rb"(?i)\s*(?:args?:?\s*)?namespace\(")
_FIELD = re.compile(rb"(?P<key>\w+)=(?P<plain>'[^'\n]*'|\"[^\"\n]*\"|[^,()\n]+|\([^)\n]*\))(?=,|\)|\s)")
_PAIR = re.compile(
    rb"(?m)^[ \t]*(?P<key>[A-Za-z_][\w.-]*)[ \t]*[:=][ \t]*(?P<plain>[^\t\r\n]*?)[ \t]*"
    rb"(?:\t?[ \t]*\[default: (?P<default>[^\]\n]*)\])?[ \t]*\r?$"
)
_OPTION_LINE = re.compile(rb"(?m)^[ \t]*--[\w.-]+")
_SETTING_LINE = re.compile(rb"(?m)^[ \t]*[\w.-]+[ \t]*[:=]")
_LINE_WITH_TEXT = re.compile(rb"(?m)^[ \t]*(?P<text>[^\s#](?:[^\n]*[^\s])?)")
_SHARE, _SHARE_OF_OPTIONS = 0.8, 0.4
"""How many of a file's lines have to be settings for it not to be prose; options may have their values on lines of their own."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One block of a printout."""

    start: int
    """The byte behind its header."""
    end: int
    """The first byte of its footer."""
    last: bool
    """Whether no later run was appended."""


def read(source: Source) -> Iterator[KnobSite]:
    """The values of a printout as records; of a file without header, of nothing but settings, as settings."""
    runs = list(_runs(source.utf8))
    if runs:
        if _is_a_log(source.utf8, runs):
            return
        for run in runs:
            yield from _records(source, run, _PAIR)
    elif _NAMESPACE.match(source.utf8):
        yield from _records(source, _Run(0, len(source.utf8), last=True), _FIELD)
    elif source.utf8.lstrip().startswith(b"{"):
        yield from json_config.read(source)
    elif _mostly(source.utf8, _OPTION_LINE, _SHARE_OF_OPTIONS):
        yield from _options(source)
    elif _mostly(source.utf8, _SETTING_LINE, _SHARE):
        yield from sites_of(ini_config.document_of(source, Form.INI))


def _runs(utf8: bytes) -> Iterator[_Run]:
    headers = list(_HEADER.finditer(utf8))
    for number, header in enumerate(headers, 1):
        last = number == len(headers)
        end = len(utf8) if last else headers[number].start()
        footer = _END.search(utf8, header.end(), end)
        yield _Run(header.end(), footer.start() if footer else end, last=last)


def _records(source: Source, run: _Run, pair: re.Pattern[bytes]) -> Iterator[KnobSite]:
    """What one run printed. Of several runs the last one counts."""
    homes = Homes()
    home = homes.open()
    found = list(pair.finditer(source.utf8, run.start, run.end))
    entries = [_entry(match, home) for match in found]
    homes.keys[home] += [entry.key for entry in entries]
    document = Document(source, Form.PRINTOUT, entries, homes)
    for match, entry in zip(found, entries, strict=True):
        site = _record(document, entry)
        if site:
            default = (match.groupdict().get("default") or b"").decode("utf-8", "replace")
            yield replace(site, printed_default=default, wins=None if run.last else False)


def _entry(match: re.Match[bytes], home: int) -> Entry:
    start, end = match.span("plain")
    quotes = 1 if match["plain"][:1] in {b'"', b"'"} else 0
    start, end = start + quotes, end - quotes
    text = match.string[start:end].decode("utf-8", "surrogatepass")
    shape = Shape.TEXT if quotes else Shape.PLAIN if text else Shape.EMPTY
    return Entry((match["key"].decode(),), home, start, end, text, shape)


def _record(document: Document, entry: Entry) -> KnobSite | None:
    meaning = spelled(entry.key)
    if meaning is None or entry.shape is Shape.EMPTY:
        return None
    # Among the options of a program that trains on batches, threads are the loader's as well.
    trains = company(document.keys_beside(entry)) >= 2 or OPTIONS_FILE.search(document.source.name)
    if not ((trains and meaning.knob == "num_workers") or is_the_loaders(document, entry, meaning, ())):
        return None
    value = written(meaning.knob, entry.text, entry.shape)
    if value is None or value.kind is not Kind.LITERAL:
        return None
    source = document.source
    line, column = source.place(entry.start)
    span = source.span(entry.start, entry.end)
    return KnobSite(
        file=source.name,
        line=line,
        column=column,
        span=span,
        knob=meaning.knob,
        spelling=entry.key,
        value=entry.text,
        kind=Kind.RECORD,
        form=Form.PRINTOUT,
        role=Role.PRINTED,
        quoted=entry.quoted,
        target=span,
        setting=entry.key,
    )


def _options(source: Source) -> Iterator[KnobSite]:
    """A file of options that `@args.txt` on a command line stands for (argparse's `fromfile_prefix_chars`)."""
    yield from sites_of_words(source, words_of_line(source.text, 0), Form.TEXT)


def _is_a_log(utf8: bytes, runs: list[_Run]) -> bool:
    """Whether more stands round the printed options than in them: the output of a program that printed them first."""
    printed = sum(utf8.count(b"\n", run.start, run.end) for run in runs)
    return utf8.count(b"\n") > 2 * printed + 5


def _mostly(utf8: bytes, line: re.Pattern[bytes], share: float) -> bool:
    lines = len(_LINE_WITH_TEXT.findall(utf8))
    return lines > 0 and len(line.findall(utf8)) >= share * lines
