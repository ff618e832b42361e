from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keepfed.knobs.precedence.decided import decided
from keepfed.knobs.precedence.files import MOST_BYTES_EACH, Files
from keepfed.knobs.site import Kind, KnobSite, Original, Role
from tests.knobs.places import Places

TRAIN = """
import argparse
from torch.utils.data import DataLoader
parser = argparse.ArgumentParser()
parser.add_argument('-j', '--workers', default=⟨4⟩, type=int)
args = parser.parse_args()
loader = DataLoader(data, num_workers=⟨args.workers⟩)
"""


def judged(places: Places) -> list[KnobSite]:
    return decided(places.sites, places.sources)


def trainer(**files: str) -> Places:
    places = Places({"train.py": TRAIN} | {name.replace("__", "."): text for name, text in files.items()})
    places.site("train.py", Role.OPTION, "--workers", setting="workers")
    places.site("train.py", Role.CALL, mark=1, owner="DataLoader")
    return places


def test_a_value_in_the_call_counts() -> None:
    places = Places({"a.py": "DataLoader(data, num_workers=⟨4⟩)\nDataLoader(data, num_workers=⟨0⟩)\n"})
    places.site("a.py", Role.CALL)
    places.site("a.py", Role.CALL, mark=1)
    assert [site.wins for site in judged(places)] == [True, True]


def test_an_options_default_counts_where_nothing_else_is_given_and_the_call_points_to_it() -> None:
    option, call = judged(trainer())
    assert (option.wins, option.kind) == (True, Kind.LITERAL)
    assert (call.wins, call.kind, call.counts_at) == (False, Kind.REFERENCE, "train.py:5")


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --workers ⟨8⟩\n",
        "torchrun --nproc_per_node 4 \\\n  train.py \\\n  --workers=⟨8⟩ \\\n  --lr 1\n",
        "cd x && CUDA_VISIBLE_DEVICES=0 python3 -u ./train.py --workers ⟨8⟩\n",
        "srun python -m torch.distributed.launch --nproc_per_node=2 train.py --workers ⟨8⟩\n",
        "python -m train --workers ⟨8⟩\n",
        "$PYTHON train.py --workers ⟨8⟩\n",
        "python /workspace/project/train.py --workers ⟨8⟩\n",
        "python $HOME/code/train.py --workers ⟨8⟩\n",
    ],
)
def test_a_flag_of_the_script_that_starts_the_program_beats_the_default(command: str) -> None:
    places = trainer(run__sh=command)
    places.site("run.sh", Role.FLAG, "--workers", setting="workers")
    option, call, flag = judged(places)
    assert flag.wins is True
    assert (option.wins, option.kind) == (False, Kind.OVERRIDDEN)
    assert option.counts_at == f"run.sh:{flag.line}"
    assert flag.original == Original("4", "default")
    assert call.wins is False


def test_a_short_option_is_led_to_the_same_default() -> None:
    places = trainer(run__sh="python train.py -j ⟨8⟩\n")
    places.site("run.sh", Role.FLAG, "-j")
    assert [site.wins for site in judged(places)] == [False, False, True]


def test_a_default_still_counts_where_another_command_does_not_give_the_option() -> None:
    places = trainer(run__sh="python train.py --workers ⟨8⟩\n", debug__sh="# tiny\npython train.py --debug\n")
    places.site("run.sh", Role.FLAG, "--workers")
    option, _, flag = judged(places)
    assert (option.wins, option.kind, flag.wins) == (True, Kind.LITERAL, True)


def test_a_flag_for_another_program_says_nothing_about_this_one() -> None:
    places = trainer(run__sh="python evaluate.py --workers ⟨8⟩\n")
    places.site("run.sh", Role.FLAG, "--workers")
    option, _, flag = judged(places)
    assert (option.wins, option.kind, flag.wins) == (True, Kind.LITERAL, True)


def test_a_command_whose_program_cannot_be_told_leaves_the_default_open() -> None:
    places = trainer(run__sh="$LAUNCHER $SCRIPT --workers ⟨8⟩\n")
    places.site("run.sh", Role.FLAG, "--workers")
    assert [site.wins for site in judged(places)] == [None, False, True]


def test_a_command_that_copies_or_lints_a_program_does_not_start_it() -> None:
    places = trainer(run__sh="cp train.py /tmp\nruff check train.py\npython train.py --workers ⟨8⟩\n")
    places.site("run.sh", Role.FLAG, "--workers")
    assert [site.wins for site in judged(places)] == [False, False, True]


def test_a_script_in_a_folder_starts_a_program_of_the_folder_above() -> None:
    places = Places({"README.md": "", "train.py": TRAIN, "scripts/run.sh": "python train.py --workers ⟨8⟩\n"})
    places.site("train.py", Role.OPTION, "--workers", setting="workers")
    places.site("scripts/run.sh", Role.FLAG, "--workers")
    assert [site.wins for site in judged(places)] == [False, True]


def test_an_option_in_an_imported_file_is_beaten_by_the_flag_of_the_script_that_imports_it() -> None:
    places = Places(
        {
            "setup.py": "",
            "train.py": "from options.base import Options\nopt = Options().parse()\n",
            "options/base.py": "p.add_argument('--nThreads', default=⟨2⟩, type=int)\n",
            "run.sh": "python train.py --nThreads ⟨8⟩\n",
        }
    )
    places.site("options/base.py", Role.OPTION, "--nThreads", setting="nThreads")
    places.site("run.sh", Role.FLAG, "--nThreads")
    assert [site.wins for site in judged(places)] == [False, True]


def test_the_later_of_two_equal_flags_of_one_command_counts() -> None:
    places = trainer(run__sh="python train.py --workers ⟨8⟩ --workers ⟨6⟩\n")
    places.site("run.sh", Role.FLAG, "--workers", setting="workers")
    places.site("run.sh", Role.FLAG, "--workers", mark=1, setting="workers")
    _, _, first, second = judged(places)
    assert (first.wins, first.kind, second.wins) == (False, Kind.OVERRIDDEN, True)


def test_a_flag_with_a_variable_points_to_its_last_assignment() -> None:
    places = trainer(run__sh="WORKERS=⟨8⟩\npython train.py --workers ⟨$WORKERS⟩\n")
    places.site("run.sh", Role.VARIABLE, "WORKERS", setting="WORKERS")
    places.site("run.sh", Role.FLAG, "--workers", mark=1)
    option, _, variable, flag = judged(places)
    assert (option.wins, variable.wins, flag.wins, flag.counts_at) == (False, True, False, "run.sh:1")


def test_scripts_with_the_same_option_in_one_folder_are_not_mixed_up() -> None:
    places = Places({"a.py": TRAIN, "b.py": TRAIN})
    for name in ("a.py", "b.py"):
        places.site(name, Role.OPTION, "--workers", setting="workers")
        places.site(name, Role.CALL, mark=1)
    assert [site.counts_at for site in judged(places)] == ["", "a.py:5", "", "b.py:5"]


def test_a_reference_into_another_file_is_followed_only_where_one_option_can_be_meant() -> None:
    files = {"main.py": "loader = DataLoader(d, num_workers=⟨opt.workers⟩)\n", "one.py": TRAIN}
    places = Places(files)
    places.site("main.py", Role.CALL)
    places.site("one.py", Role.OPTION, "--workers", setting="workers")
    assert judged(places)[0].counts_at == "one.py:5"
    places = Places(files | {"two.py": TRAIN})
    places.site("main.py", Role.CALL)
    for name in ("one.py", "two.py"):
        places.site(name, Role.OPTION, "--workers", setting="workers")
    assert (judged(places)[0].wins, judged(places)[0].counts_at) == (None, "")


def test_the_imported_options_are_meant_where_several_would_do() -> None:
    places = Places(
        {
            "main.py": "from two import parser\nloader = DataLoader(d, num_workers=⟨opt.workers⟩)\n",
            "one.py": TRAIN,
            "two.py": TRAIN,
        }
    )
    places.site("main.py", Role.CALL)
    for name in ("one.py", "two.py"):
        places.site(name, Role.OPTION, "--workers", setting="workers")
    assert judged(places)[0].counts_at == "two.py:5"


def test_a_field_of_a_class_in_a_far_folder_is_not_what_an_attribute_stands_for() -> None:
    files = {
        "setup.py": "",
        "a/args.py": "class Arguments:\n    pin_memory: bool = ⟨True⟩\n",
        "b/main.py": "DataLoader(d, pin_memory=⟨self.args.pin_memory⟩)\n",
    }
    for line, at in (("", ""), ("from a.args import Arguments\n", "a/args.py:2")):
        places = Places(files | {"b/main.py": line + files["b/main.py"]})
        places.site("a/args.py", Role.DEFAULT, setting="pin_memory", kind=Kind.LITERAL)
        places.site("b/main.py", Role.CALL)
        assert judged(places)[1].counts_at == at


def test_neighbouring_projects_are_never_tied_together() -> None:
    places = Places({"a/main.py": "DataLoader(d, num_workers=⟨opt.workers⟩)\n", "b/opts.py": TRAIN})
    places.site("a/main.py", Role.CALL)
    places.site("b/opts.py", Role.OPTION, "--workers", setting="workers")
    reference, option = judged(places)
    assert (reference.wins, option.wins) == (None, True)


def test_a_constant_counts_for_the_call_that_takes_it_also_from_another_file() -> None:
    places = Places(
        {
            "config.py": "NUM_WORKERS = ⟨4⟩\n",
            "main.py": "from config import *\nDataLoader(d, num_workers=⟨NUM_WORKERS⟩)\n",
        }
    )
    places.site("config.py", Role.NAME, "NUM_WORKERS", setting="NUM_WORKERS")
    places.site("main.py", Role.CALL)
    constant, call = judged(places)
    assert (constant.wins, call.wins, call.counts_at) == (True, False, "config.py:1")


def test_an_attribute_leads_to_what_its_own_class_was_given() -> None:
    text = (
        "class {}:\n    def __init__(\n        self,\n        num_workers: int = ⟨4⟩,\n    ):\n"
        "        self.num_workers = ⟨num_workers⟩\n\n    def train(self):\n        return DataLoader(\n"
        "            d,\n            num_workers=⟨self.num_workers⟩,\n        )\n\n\n"
    )
    places = Places({"data.py": text.format("A") + text.format("B")})
    for at, name in enumerate("AB"):
        places.site("data.py", Role.DEFAULT, mark=3 * at, setting="num_workers", owner=name)
        places.site("data.py", Role.NAME, mark=3 * at + 1, setting="num_workers", owner="self")
        places.site("data.py", Role.CALL, mark=3 * at + 2, owner="DataLoader")
    assert [(site.wins, site.counts_at) for site in judged(places)] == [
        (True, ""),
        (False, "data.py:4"),
        (False, "data.py:4"),
        (True, ""),
        (False, "data.py:18"),
        (False, "data.py:18"),
    ]


def test_a_field_of_a_class_counts_for_its_methods() -> None:
    places = Places(
        {
            "data.py": "@dataclass\nclass A:\n    num_workers: int = ⟨4⟩\n\n    def train(self):\n"
            "        return DataLoader(d, num_workers=⟨self.num_workers⟩)\n"
        }
    )
    places.site("data.py", Role.DEFAULT, setting="num_workers", owner="A")
    places.site("data.py", Role.CALL, mark=1)
    assert [(site.wins, site.counts_at) for site in judged(places)] == [(True, ""), (False, "data.py:3")]


def test_an_option_that_was_assigned_anew_has_that_value_as_far_as_the_block_goes() -> None:
    text = (
        "parser.add_argument('--num_workers', default=⟨8⟩)\nargs = parser.parse_args()\nif small:\n    args.num_workers = ⟨0⟩\n"
        "    a = DataLoader(d, num_workers=⟨args.num_workers⟩)\nb = DataLoader(d, num_workers=⟨args.num_workers⟩)\n"
    )
    places = Places({"a.py": text})
    places.site("a.py", Role.OPTION, "--num_workers", setting="num_workers")
    places.site("a.py", Role.CONFIG, mark=1, setting="num_workers", owner="args")
    places.site("a.py", Role.CALL, mark=2)
    places.site("a.py", Role.CALL, mark=3)
    _, _, inside, behind = judged(places)
    assert (inside.counts_at, behind.wins, behind.counts_at) == ("a.py:4", None, "")


def test_modules_of_libraries_are_not_files_of_the_same_name() -> None:
    for line, at in (
        ("from lightning.pytorch import Trainer\n", ""),
        ("from core.pytorch import Config\n", "core/pytorch.py:2"),
    ):
        places = Places(
            {
                "setup.py": "",
                "core/pytorch.py": "class Config:\n    num_workers: int = ⟨4⟩\n",
                "tts/main.py": f"{line}DataLoader(d, num_workers=⟨cfg.num_workers⟩)\n",
            }
        )
        places.site("core/pytorch.py", Role.DEFAULT, setting="num_workers")
        places.site("tts/main.py", Role.CALL)
        assert judged(places)[1].counts_at == at


def test_an_assignment_in_a_branch_may_or_may_not_count() -> None:
    branches = "if fast:\n    nw = ⟨8⟩\nelse:\n    nw = ⟨0⟩\nDataLoader(d, num_workers=⟨nw⟩)\n"
    main = "if __name__ == '__main__':\n    nw = ⟨8⟩\n    DataLoader(d, num_workers=⟨nw⟩)\n"
    for text, marks, wins in ((branches, 2, [None, None, None]), (main, 1, [True, False])):
        places = Places({"a.py": text})
        for mark in range(marks):
            places.site("a.py", Role.NAME, "nw", mark=mark, setting="nw")
        places.site("a.py", Role.CALL, mark=marks)
        assert [site.wins for site in judged(places)] == wins


def test_the_only_place_of_all_counts_in_a_branch_too() -> None:
    places = Places({"main.py": "if cuda:\n    kwargs.update({'num_workers': ⟨1⟩})\nDataLoader(d, **kwargs)\n"})
    places.site("main.py", Role.CONFIG, setting="num_workers")
    assert [site.wins for site in judged(places)] == [True]


def test_a_parameter_is_tied_to_the_call_in_its_own_function_only() -> None:
    places = Places(
        {
            "data.py": "def train(d, num_workers=⟨4⟩):\n    return DataLoader(d, num_workers=⟨num_workers⟩)\n\n\n"
            "def test(d, num_workers):\n    return DataLoader(d, num_workers=⟨num_workers⟩)\n"
        }
    )
    places.site("data.py", Role.DEFAULT, setting="num_workers", owner="train")
    places.site("data.py", Role.CALL, mark=1)
    places.site("data.py", Role.CALL, mark=2)
    default, inside, outside = judged(places)
    assert (default.wins, inside.counts_at, outside.wins) == (True, "data.py:1", None)


def test_a_parameter_that_a_caller_gives_is_left_open() -> None:
    places = Places(
        {
            "data.py": "def train(d, num_workers=⟨4⟩):\n    return DataLoader(d, num_workers=⟨num_workers⟩)\n",
            "main.py": "from data import train\ntrain(d, num_workers=⟨8⟩)\ntrain(e)\n",
        }
    )
    places.site("data.py", Role.DEFAULT, setting="num_workers", owner="train")
    places.site("data.py", Role.CALL, mark=1, owner="DataLoader")
    places.site("main.py", Role.CALL, owner="train")
    assert [site.wins for site in judged(places)] == [None, False, True]


# ------------------------------------------------------------------------------------------------------------------ overlays

COMPOSE = "services:\n  train:\n    shm_size: ⟨8gb⟩\n  other:\n    shm_size: ⟨1gb⟩\n"


@pytest.mark.parametrize("base", ["docker-compose.yml", "compose.yaml"])
def test_an_override_file_of_compose_beats_the_same_service_only(base: str) -> None:
    override = base.replace(".y", ".override.y")
    places = Places({base: COMPOSE, override: "services:\n  train:\n    shm_size: ⟨2gb⟩\n"})
    facts: dict[str, Any] = {"knob": "shm_size", "kind": Kind.LITERAL}
    places.site(base, Role.LIMIT, "shm_size", setting="services.train.shm_size", **facts)
    places.site(base, Role.LIMIT, "shm_size", mark=1, setting="services.other.shm_size", **facts)
    places.site(override, Role.LIMIT, "shm_size", setting="services.train.shm_size", **facts)
    train, other, over = judged(places)
    assert (train.wins, train.kind, train.counts_at) == (False, Kind.OVERRIDDEN, f"{override}:3")
    assert (other.wins, over.wins) == (True, True)


HYDRA = {
    "README.md": "",
    "conf/train.yaml": "defaults:\n  - _self_\n  - data: mnist\n  - override hydra/launcher: joblib  # many\n  - debug: null\nseed: 1\n",
    "conf/data/mnist.yaml": "_target_: src.data.MNISTDataModule\nnum_workers: ⟨4⟩\n",
    "conf/data/cifar.yaml": "num_workers: ⟨4⟩\n",
    "conf/debug/default.yaml": "# @package _global_\ndata:\n  num_workers: ⟨0⟩\n",
    "src/data.py": "class MNISTDataModule:\n    def __init__(self, num_workers: int = ⟨0⟩):\n        pass\n",
}


def hydra(**files: str) -> Places:
    places = Places(HYDRA | {name.replace("__", "."): text for name, text in files.items()})
    places.site("conf/data/mnist.yaml", Role.CONFIG, setting="num_workers")
    places.site("conf/data/cifar.yaml", Role.CONFIG, setting="num_workers")
    places.site("conf/debug/default.yaml", Role.CONFIG, setting="data.num_workers")
    places.site("src/data.py", Role.DEFAULT, setting="num_workers", owner="MNISTDataModule.__init__")
    return places


def test_the_defaults_list_says_which_file_counts_and_its_class_default_does_not() -> None:
    mnist, cifar, debug, default = judged(hydra())
    assert (mnist.wins, cifar.wins, debug.wins) == (True, None, None)
    assert mnist.original == Original("0", "default")
    assert (default.wins, default.kind, default.counts_at) == (False, Kind.OVERRIDDEN, "conf/data/mnist.yaml:2")


def test_an_override_on_the_command_line_beats_the_file_of_its_group() -> None:
    places = hydra(**{"run__sh": "python src/train.py data.num_workers=⟨8⟩\n", "src/train__py": "import hydra\n"})
    places.site("run.sh", Role.FLAG, "num_workers", setting="data.num_workers")
    mnist, _, debug, _, flag = judged(places)
    assert (mnist.wins, mnist.kind, flag.wins) == (False, Kind.OVERRIDDEN, True)
    assert debug.wins is not True


def test_an_override_of_a_program_that_was_not_scanned_leaves_the_file_open() -> None:
    places = hydra(run__sh="python train.py data.num_workers=⟨8⟩\n")
    places.site("run.sh", Role.FLAG, "num_workers", setting="data.num_workers")
    assert [judged(places)[at].wins for at in (0, 4)] == [None, True]


def test_a_group_that_a_command_selects_counts_too() -> None:
    places = hydra(**{"run__sh": "python src/train.py debug=default\n", "src/train__py": "import hydra\n"})
    _, cifar, debug, _ = judged(places)
    assert (cifar.wins, debug.wins) == (None, True)


def test_the_later_of_two_equal_keys_counts_but_two_items_of_a_list_are_two_places() -> None:
    places = Places({"a.yaml": "data:\n  num_workers: ⟨4⟩\n  x: 1\n  num_workers: ⟨8⟩\n"})
    first: dict[str, Any] = {"setting": "data.num_workers"}
    places.site("a.yaml", Role.CONFIG, **first)
    places.site("a.yaml", Role.CONFIG, mark=1, **first)
    first_of_two, _ = judged(places)
    assert (first_of_two.wins, first_of_two.kind) == (False, Kind.OVERRIDDEN)
    places = Places({"a.yaml": "data:\n  - num_workers: ⟨4⟩\n    x: 1\n  - num_workers: ⟨8⟩\n"})
    places.site("a.yaml", Role.CONFIG, **first)
    places.site("a.yaml", Role.CONFIG, mark=1, **first)
    assert [site.kind for site in judged(places)] == [Kind.LITERAL, Kind.LITERAL]


def test_equal_keys_in_json_are_one_place_and_in_two_objects_two() -> None:
    for text, kind in (
        ('{"num_workers": ⟨4⟩, "a": {"b": "}"}, "num_workers": ⟨8⟩}', Kind.OVERRIDDEN),
        ('{"data": [{"num_workers": ⟨4⟩}, {"num_workers": ⟨8⟩}]}', Kind.LITERAL),
    ):
        places = Places({"a.json": text})
        places.site("a.json", Role.CONFIG, setting="num_workers")
        places.site("a.json", Role.CONFIG, mark=1, setting="num_workers")
        assert judged(places)[0].kind is kind


def test_a_configuration_that_lies_over_others_counts_with_its_own_value() -> None:
    own = "_base_ = [\n    '../_base_/coco.py',\n]\ntrain_dataloader = dict(batch_size=2, num_workers=⟨4⟩)\n"
    places = Places(
        {
            "configs/_base_/coco.py": "train_dataloader = dict(num_workers=⟨2⟩)\n",
            "configs/a/one.py": own,
            "configs/a/two.py": "_base_ = './one.py'\ntrain_dataloader = dict(num_workers=⟨8⟩)\n",
        }
    )
    for name in places.sources:
        places.site(name, Role.CONFIG, setting="train_dataloader.num_workers", owner="train_dataloader")
    assert [site.wins for site in judged(places)] == [None, None, True]


def test_one_of_several_configurations_counts_only_where_it_is_named() -> None:
    files = {"train.py": "import sys\n", "a.yaml": "num_workers: ⟨4⟩\n", "b.yaml": "num_workers: ⟨8⟩\n"}
    for extra, wins in (({}, [None, None]), ({"run.sh": "python train.py --cfg b.yaml\n"}, [None, True])):
        places = Places(files | extra)
        places.site("a.yaml", Role.CONFIG, setting="num_workers")
        places.site("b.yaml", Role.CONFIG, setting="num_workers")
        assert [site.wins for site in judged(places)] == wins


def test_a_configuration_is_named_by_its_path_where_several_have_its_name() -> None:
    places = Places(
        {
            "train.py": "import sys\n",
            "run.sh": "python train.py ./conf/small/train.yaml\n",
            "conf/small/train.yaml": "num_workers: ⟨4⟩\n",
            "conf/large/train.yaml": "num_workers: ⟨8⟩\n",
        }
    )
    for name in ("small", "large"):
        places.site(f"conf/{name}/train.yaml", Role.CONFIG, setting="num_workers")
    assert [site.wins for site in judged(places)] == [True, None]


def test_a_parameter_that_goes_into_a_dict_of_arguments_counts() -> None:
    places = Places(
        {"a.py": "def f(num_workers=⟨4⟩):\n    kw = {'num_workers': ⟨num_workers⟩}\n    return DataLoader(d, **kw)\n"}
    )
    places.site("a.py", Role.DEFAULT, setting="num_workers", owner="f")
    places.site("a.py", Role.CONFIG, mark=1, setting="kw.num_workers", owner="kw")
    assert [(site.wins, site.counts_at) for site in judged(places)] == [(True, ""), (False, "a.py:1")]


def test_a_parameter_of_a_method_is_no_attribute() -> None:
    text = (
        "class A:\n    def convert(\n        self,\n        num_workers: int = ⟨4⟩,\n    ):\n        pass\n\n"
        "    def load(self, cfg):\n        a = DataLoader(d, num_workers=⟨cfg.num_workers⟩)\n"
        "        b = DataLoader(d, num_workers=⟨self.num_workers⟩)\n"
    )
    places = Places({"a.py": text})
    places.site("a.py", Role.DEFAULT, setting="num_workers", owner="A")
    places.site("a.py", Role.CALL, mark=1)
    places.site("a.py", Role.CALL, mark=2)
    assert [site.counts_at for site in judged(places)] == ["", "", ""]


def test_an_attribute_is_no_entry_of_some_dict() -> None:
    places = Places({"a.py": "meta = {'num_workers': ⟨0⟩}\nDataLoader(d, num_workers=⟨args.num_workers⟩)\n"})
    places.site("a.py", Role.CONFIG, setting="meta.num_workers", owner="meta")
    places.site("a.py", Role.CALL, mark=1)
    assert judged(places)[1].counts_at == ""


def test_a_parameter_beside_a_dict_of_arguments_is_left_open() -> None:
    places = Places(
        {
            "build.py": "def from_config(cfg):\n    return {'num_workers': ⟨cfg.NUM_WORKERS⟩}\n\n\n"
            "@configurable(from_config=from_config)\ndef build(d, num_workers=⟨0⟩):\n"
            "    return DataLoader(d, num_workers=⟨num_workers⟩)\n"
        }
    )
    places.site("build.py", Role.CONFIG, setting="num_workers")
    places.site("build.py", Role.DEFAULT, mark=1, setting="num_workers", owner="build")
    places.site("build.py", Role.CALL, mark=2)
    assert [site.wins for site in judged(places)] == [None, None, False]


def test_a_configuration_beats_the_default_of_the_code_that_opens_it() -> None:
    for opened, wins in (("'config.yaml'", False), ("sys.argv[1]", None)):
        places = Places(
            {
                "config.yaml": "num_workers: ⟨4⟩\n",
                "train.py": f"@dataclass\nclass Config:\n    num_workers: int = ⟨0⟩\ncfg = load({opened})\n",
            }
        )
        places.site("config.yaml", Role.CONFIG, setting="num_workers")
        places.site("train.py", Role.DEFAULT, setting="num_workers", owner="Config")
        assert judged(places)[1].wins is wins


# ----------------------------------------------------------------------------------------------------------------- printouts


def test_a_printout_never_counts_and_says_which_option_does() -> None:
    places = Places(
        {
            "options.py": TRAIN.replace("--workers", "--nThreads"),
            "checkpoints/x/opt.txt": "nThreads: ⟨4⟩\t[default: 2]\n",
        }
    )
    places.site("options.py", Role.OPTION, "--nThreads", setting="nThreads")
    places.site(
        "checkpoints/x/opt.txt", Role.PRINTED, "nThreads", setting="nThreads", kind=Kind.RECORD, printed_default="2"
    )
    option, record = judged(places)
    assert (option.wins, record.wins, record.kind, record.counts_at) == (True, False, Kind.RECORD, "options.py:5")
    assert record.original == Original("2", "printed")


def test_a_text_file_that_the_projects_own_code_writes_is_a_printout_without_any_header() -> None:
    writer = "file_name = os.path.join(d, 'opt.txt')\nwith open(file_name, 'wt') as f:\n    f.write(message)\n"
    for code, kind in ((writer, Kind.RECORD), ("lines = open('opt.txt').read()\n", Kind.LITERAL)):
        places = Places({"options.py": code, "runs/a/opt.txt": "num_workers: ⟨4⟩\n"})
        places.site("runs/a/opt.txt", Role.CONFIG, setting="num_workers")
        assert judged(places)[0].kind is kind


def test_what_a_reader_calls_dead_never_counts() -> None:
    places = Places({"train.py": TRAIN})
    places.site("train.py", Role.OPTION, "--workers", setting="workers", kind=Kind.DEAD)
    (option,) = judged(places)
    assert (option.wins, option.kind) == (False, Kind.DEAD)


def test_a_dead_option_that_another_file_imports_and_reads_is_alive() -> None:
    for reader, kind in (
        ("from train import args\nprint(args.workers)\n", Kind.LITERAL),
        ("print(args.workers)\n", Kind.DEAD),
    ):
        places = Places({"train.py": TRAIN, "main.py": reader})
        site = places.site("train.py", Role.OPTION, "--workers", setting="workers", kind=Kind.DEAD)
        places.sites[0] = replace(site, target=site.span)
        assert judged(places)[0].kind is kind


@pytest.mark.parametrize("name", ["'{}_opt.txt'.format(p)", "'%s_opt.txt' % p", "p + '_opt.txt'", "f'{p}_opt.txt'"])
def test_a_printouts_name_may_be_put_together(name: str) -> None:
    places = Places(
        {
            "options.py": f"with open(os.path.join(d, {name}), 'w') as f:\n    pass\n",
            "x/train_opt.txt": "num_workers: ⟨4⟩\n",
        }
    )
    places.site("x/train_opt.txt", Role.CONFIG, setting="num_workers")
    assert judged(places)[0].kind is Kind.RECORD


def test_a_text_that_was_not_kept_leaves_the_file_known_by_name() -> None:
    files = Files()
    files.add("a.sh", b"x" * (MOST_BYTES_EACH + 1))
    files.add("b.sh", b"y")
    assert list(files) == ["a.sh", "b.sh"]
    assert files["b.sh"].text == "y"
    with pytest.raises(KeyError):
        files["a.sh"]
