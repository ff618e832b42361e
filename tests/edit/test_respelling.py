"""New values in the style of the old ones."""

from __future__ import annotations

from typing import Any

import pytest

from keepfed.edit.replacement import EditRefused
from keepfed.edit.respelling import respelled, says_the_same, unit_changes
from keepfed.knobs.knob import wish
from keepfed.knobs.site import Form
from tests.edit.sites import a_site


@pytest.mark.parametrize(
    ("form", "old", "asked", "new"),
    [
        (Form.PYTHON, "False", "true", "True"),
        (Form.PYTHON, "None", "true", "True"),
        (Form.PYTHON, "1", "false", "0"),
        (Form.JSON, "false", "true", "true"),
        (Form.YAML, "False", "yes", "True"),
        (Form.YAML, "yes", "false", "no"),
        (Form.YAML, "ON", "0", "OFF"),
        (Form.YAML, "null", "true", "true"),
        (Form.TOML, "true", "false", "false"),
        (Form.SHELL, "True", "false", "False"),
        (Form.INI, "Off", "on", "On"),
    ],
)
def test_a_yes_or_no_is_said_in_the_words_of_the_old_one(form: Form, old: str, asked: str, new: str) -> None:
    assert respelled(a_site(form=form, knob="pin_memory"), old, wish("pin_memory", asked)) == new


@pytest.mark.parametrize(
    ("old", "asked", "new"),
    [
        ("64gb", "2g", "2gb"),
        ("512g", "2048m", "2g"),
        ("16G", "2g", "2G"),
        ("16 GB", "2g", "2 GB"),
        ("30.00gb", "2g", "2gb"),
        ("4Gi", "1536m", "1536Mi"),
        ("2GiB", "512m", "512MiB"),
        ("8589934592", "2g", "2147483648"),
        ("512m", "2g", "2048m"),
        ("2g", "1000", "1000"),
    ],
)
def test_a_size_keeps_the_unit_of_the_old_one_where_it_is_whole_in_it(old: str, asked: str, new: str) -> None:
    assert respelled(a_site(knob="shm_size", form=Form.YAML), old, wish("shm_size", asked)) == new


@pytest.mark.parametrize(("old", "new"), [("4Gi", "2Gi"), ("4G", "2Gi"), ("4096Mi", "2048Mi"), ("1000000000", "2Gi")])
def test_a_size_of_kubernetes_is_in_its_binary_units(old: str, new: str) -> None:
    site = a_site(knob="shm_size", spelling="sizeLimit", form=Form.YAML)
    assert respelled(site, old, wish("shm_size", "2g")) == new


def test_a_change_of_the_style_of_units_is_noticed() -> None:
    assert unit_changes("4G", "2Gi")
    assert unit_changes("2g", "1000")
    assert not unit_changes("4Gi", "512Mi")


@pytest.mark.parametrize(
    ("knob", "old", "asked", "same"),
    [
        ("num_workers", "4", "4", True),
        ("num_workers", "04", "4", True),
        ("num_workers", "None", "0", False),
        ("pin_memory", "True", "true", True),
        ("pin_memory", "yes", "true", True),
        ("pin_memory", "None", "false", False),
        ("shm_size", "2048M", "2g", True),
        ("shm_size", "2gb", "2g", True),
        ("shm_size", "${SHM}", "2g", False),
    ],
)
def test_what_already_means_what_is_asked_for_is_recognised(knob: str, old: str, asked: str, same: bool) -> None:
    assert says_the_same(a_site(knob=knob), old, wish(knob, asked)) is same


@pytest.mark.parametrize(("form", "new"), [(Form.PYTHON, "None"), (Form.JSON, "null"), (Form.YAML, "null")])
def test_no_prefetching_is_said_in_the_words_of_the_language(form: Form, new: str) -> None:
    site = a_site(form=form, knob="prefetch_factor")
    assert respelled(site, "2", wish("prefetch_factor", "None")) == new
    assert says_the_same(site, new, wish("prefetch_factor", "null"))


@pytest.mark.parametrize("others", [{"form": Form.TOML}, {"form": Form.SHELL}, {"form": Form.YAML, "quoted": True}])
def test_where_a_language_has_no_none_it_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(EditRefused, match="cannot be none"):
        respelled(a_site(knob="prefetch_factor", **others), "2", wish("prefetch_factor", "none"))


def test_half_a_gigabyte_is_a_size() -> None:
    assert respelled(a_site(knob="shm_size", form=Form.YAML), "64gb", wish("shm_size", "1.5g")) == "1536mb"


def test_a_gigabyte_of_kubernetes_is_not_a_gibibyte() -> None:
    site = a_site(knob="shm_size", spelling="sizeLimit")
    assert not says_the_same(site, "2G", wish("shm_size", "2g"))
    assert says_the_same(site, "2Gi", wish("shm_size", "2g"))
