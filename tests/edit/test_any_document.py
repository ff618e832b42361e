"""Whatever the file: an edit changes the bytes of one value, nothing else, says what was asked for, and can be taken back."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import event, given, settings
from hypothesis import strategies as st

from keepfed.edit.choosing import Place
from keepfed.edit.planning import planned
from keepfed.edit.replacement import applied, reversed_edits
from keepfed.edit.respelling import says_the_same
from keepfed.knobs.knob import Wish, wish
from keepfed.knobs.origin.journal import journals_about, read_changes
from keepfed.knobs.scan import scan_files
from keepfed.knobs.site import Kind, KnobSite
from keepfed.knobs.walk import Bytes
from keepfed.write.carrying_out import FileEdits, carry_out
from keepfed.write.taking_back import select, take_back
from tests.edit.documents import Document, documents


def sites_in(document: Document, data: bytes) -> list[KnobSite]:
    return list(scan_files([Bytes(document.name, data, named=True)]).sites)


def asked(data: st.DataObject, site: KnobSite) -> Wish:
    if site.knob in {"pin_memory", "persistent_workers"}:
        return wish(site.knob, data.draw(st.sampled_from(["true", "false"])))
    number = data.draw(st.integers(1, 1024))
    if site.knob == "shm_size":
        return wish(site.knob, f"{number}{data.draw(st.sampled_from(['g', 'm']))}")
    return wish(site.spelling, str(number))


@settings(max_examples=200)
@given(documents(), st.data())
def test_an_edit_changes_one_value_and_leads_back(document: Document, data: st.DataObject) -> None:
    before = sites_in(document, document.data)
    editable = [site for site in before if site.target is not None and site.kind is not Kind.REFERENCE]
    if not editable:
        return
    event(document.name)
    event(document.encoding)
    site = data.draw(st.sampled_from(editable))
    assert site.target is not None
    wished = asked(data, site)
    scanned = scan_files([Bytes(document.name, document.data, named=True)])
    plan = planned([wished], scanned.sites, scanned.files, place=Place(site.file, site.line, site.column))
    if not plan.edits:
        assert says_the_same(site, site.value, wished)
        return
    (edit,) = plan.edits
    after = applied(document.data, plan.edits)
    start, end = site.target.start, site.target.end
    assert (edit.span.start, edit.span.end) == (start, end)
    assert after[:start] == document.data[:start]
    assert after[start + len(edit.new) :] == document.data[end:]
    assert applied(after, reversed_edits(plan.edits)) == document.data
    found = sites_in(document, after)
    assert len(found) == len(before)
    for one, other in zip(before, found, strict=True):
        if one.span == site.span:
            assert says_the_same(other, other.value, wished)
        else:
            assert one.value == other.value
        assert (one.quoted, one.spelling, one.kind) == (other.quoted, other.spelling, other.kind)


@settings(max_examples=15)
@given(documents(), st.data())
def test_on_the_disk_too(document: Document, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        (where / ".git").mkdir()
        file = where / document.name
        file.write_bytes(document.data)
        file.chmod(data.draw(st.sampled_from([0o644, 0o755, 0o600])))
        mode = os.stat(file).st_mode
        for site in sites_in(document, document.data)[:3]:
            now = file.read_bytes()
            scanned = scan_files([Bytes(document.name, now, named=True)])
            place = next(one for one in scanned.sites if one.line == site.line and one.spelling == site.spelling)
            at = Place(place.file, place.line, place.column)
            plan = planned([asked(data, place)], scanned.sites, scanned.files, place=at)
            if plan.edits:
                carry_out([FileEdits(file, now, tuple(plan.edits), {})], where=where, command=[])
                assert file.read_bytes() == applied(now, plan.edits)
        journals = journals_about([where])[:1]
        while file.read_bytes() != document.data:
            changes = read_changes(journals)
            back = take_back(select(changes, None, where), changes, journals)
            carry_out(back.files, where=where, command=[], verb="undo", settled=back.already)
        assert os.stat(file).st_mode == mode
