"""From chosen places to edits: the bytes that stand there, and the bytes that will.

Offsets were counted in the file as it was scanned. The bytes are therefore looked at once more here, and where they say something
else than the site does, nothing is made of them: somebody is working on that file.
"""

from __future__ import annotations

from keepfed.edit.replacement import Edit, EditRefused
from keepfed.edit.respelling import respelled, says_the_same
from keepfed.knobs.knob import Wish
from keepfed.knobs.site import KnobSite, Span
from keepfed.knobs.source import Source
from keepfed.text import say


def edit_of(site: KnobSite, wish: Wish, source: Source) -> Edit | None:
    """The edit that makes `site` say what is asked for; None where it says so already.

    Raises EditRefused where the site cannot be changed, or is no longer what it was.
    """
    if site.target is None:
        raise EditRefused(say(site.refusal or "edit.kept_untouchable"))
    span = site.target
    old = source.data[span.start : span.end]
    text, whole = _text(source, span), _text(source, site.span)
    if not text or whole.replace("\r\n", "\n") != site.value.replace("\r\n", "\n"):
        raise EditRefused(say("edit.moved", place=f"{site.file}:{site.line}"), next_step=say("edit.moved_next"))
    if says_the_same(site, text, wish):
        return None
    new = respelled(site, text, wish)
    return Edit(
        file=site.file,
        span=span,
        old=old,
        new=source.encoded(new),
        line=site.line,
        knob=site.knob,
        spelling=site.spelling,
        was=text,
        becomes=new,
    )


def _text(source: Source, span: Span) -> str:
    return source.data[span.start : span.end].decode(source.encoding, "replace")
