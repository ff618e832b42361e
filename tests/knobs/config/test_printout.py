from __future__ import annotations

import pytest

from keepfed.knobs.site import Form, Kind, Role
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

ALIGNED = (
    "----------------- Options ---------------\n"
    + "".join(
        f"{name:>25}: {value:<30}{default}\n"
        for name, value, default in [
            ("batch_size", "4", "\t[default: 1]"),
            ("cv_num_threads", "4", ""),
            ("name", "实验 8", ""),
            ("num_threads", "8", "\t[default: 4]"),
            ("pin_memory", "False", ""),
            ("suffix", "", ""),
        ]
    )
    + "----------------- End -------------------\n"
)
PLAIN = "------------ Options -------------\nbatchSize: 1\nlabel: ''\nnThreads: 2\nniter: 100\n-------------- End ----------------\n"


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_a_printout_shows_what_was_in_effect_and_the_default(written: Encode) -> None:
    found = sites("checkpoints/exp/train_opt.txt", written(ALIGNED))
    assert [(site.spelling, site.value, site.line, site.printed_default) for site in found] == [
        ("num_threads", "8", 5, "4"),
        ("pin_memory", "False", 6, ""),
    ]
    assert {(site.kind, site.form, site.role) for site in found} == {(Kind.RECORD, Form.PRINTOUT, Role.PRINTED)}


def test_the_old_layout_is_a_printout_as_well() -> None:
    (site,) = sites("opt.txt", PLAIN)
    assert (site.spelling, site.value, site.kind) == ("nThreads", "2", Kind.RECORD)


def test_of_several_runs_in_one_file_the_last_one_counts() -> None:
    block = "------------ Options -------------\nmanualSeed: 1111\nworkers: {}\nbatch_size: 32\n---------------------------------------\n"
    found = sites("opt.txt", "".join(block.format(count) for count in (6, 6, 2)))
    assert [(site.value, site.kind, site.wins) for site in found] == [
        ("6", Kind.RECORD, False),
        ("6", Kind.RECORD, False),
        ("2", Kind.RECORD, None),
    ]


@pytest.mark.parametrize("header", ["----Options----", "====== Arguments ======", "---------- options -----------"])
def test_headers_come_with_and_without_blanks(header: str) -> None:
    (site,) = sites("opt.txt", f"{header}\nnum_workers: 4\nbatch_size: 2")
    assert site.kind is Kind.RECORD


def test_a_printed_namespace_is_a_record() -> None:
    found = sites("args.txt", "namespace(batch_size=4,\n          workers=8, name='num_workers=3', pin_mem=True)\n")
    assert [(site.spelling, site.value, site.kind) for site in found] == [
        ("workers", "8", Kind.RECORD),
        ("pin_mem", "True", Kind.RECORD),
    ]


def test_without_a_header_it_may_be_read_and_is_a_setting() -> None:
    (site,) = sites("opt.txt", "batch_size: 4\nworkers: 4\ncv_num_threads: 4\n")
    assert (site.spelling, site.value, site.kind, site.form) == ("workers", "4", Kind.LITERAL, Form.INI)


def test_a_file_of_options_is_a_command_line() -> None:
    text = "--batch-size 8\n--workers 4\n--num-workers=6\n--pin-memory\n--prefetch-factor\n2\n"
    assert literals("args.txt", text) == [("--workers", "4"), ("--num-workers", "6"), ("--prefetch-factor", "2")]


@pytest.mark.parametrize(
    "text",
    [
        "Set num_workers: 4 in the configuration.\nOther lines tell why.\nAnd more of them.\n",
        "---- Options ----\nnum_workers: 4\n---- End ----\n" + "epoch 1 loss 0.3\n" * 50,
        "torch==2.1\nnumpy\n",
    ],
)
def test_prose_logs_and_requirements_are_no_settings(text: str) -> None:
    assert sites("options.txt", text) == []


def test_a_text_that_holds_json_is_read_as_json() -> None:
    (site,) = sites("params.txt", "{'num_workers': 4,\n 'lr': 0.1}\n")
    assert (site.value, site.kind, site.form) == ("4", Kind.LITERAL, Form.JSON)


def test_threads_are_the_loaders_among_options_that_name_data() -> None:
    (site,) = sites("opt.txt", "------------ Options -------------\ndataroot: ./x\nnThreads: 0\nname: y\n")
    assert site.value == "0"
    assert sites("run.txt", "------------ Options -------------\nname: y\nnThreads: 0\n") == []


@pytest.mark.parametrize(("header", "kind"), [("", Kind.LITERAL), ("--- Options ---\n", Kind.RECORD)])
def test_in_a_file_that_is_called_opt_txt_threads_are_the_loaders(header: str, kind: Kind) -> None:
    (site,) = sites("ckpt/opt.txt", f"{header}num_threads: 4\ncv_num_threads: 4\n")
    assert (site.spelling, site.kind) == ("num_threads", kind)
