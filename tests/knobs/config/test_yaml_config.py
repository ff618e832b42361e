from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs.config import yaml_lines, yaml_tree
from keepfed.knobs.config.entry import Homes, Shape
from keepfed.knobs.config.json_config import Scanner
from keepfed.knobs.site import Kind, Role
from keepfed.knobs.source import Source
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

HYDRA = """# num_workers: 3
defaults:
  - base
data:
  batch_size: 64
  num_workers: 8   # 每张卡 16
  pin_memory: False
  prefetch_factor: ~
"""


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_values_are_found_however_the_file_lies_on_disk(written: Encode) -> None:
    found = sites("configs/mnist.yaml", written(HYDRA))
    assert [(site.spelling, site.value, site.line) for site in found] == [
        ("num_workers", "8", 6),
        ("pin_memory", "False", 7),
        ("prefetch_factor", "~", 8),
    ]
    assert [site.setting for site in found] == ["data.num_workers", "data.pin_memory", "data.prefetch_factor"]


def test_an_alias_is_a_reference_and_its_anchor_the_setting() -> None:
    found = sites("c.yaml", "shared: &count 4\ntrain: {num_workers: *count, batch_size: 2}\n")
    assert [(site.spelling, site.value, site.kind, site.refers_to) for site in found] == [
        ("shared", "4", Kind.LITERAL, ""),
        ("num_workers", "*count", Kind.REFERENCE, "shared"),
    ]
    assert found[1].target is None


def test_the_hole_of_a_template_is_a_reference_where_the_grammar_sees_a_mapping() -> None:
    (site,) = sites("c.yaml", "data:\n  num_workers: {{ .Values.n }}\n")
    assert (site.value, site.kind, site.refusal) == ("{{ .Values.n }}", Kind.REFERENCE, "knobs.refuse_template")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("${data.num_workers}", "data.num_workers"),
        ("${..workers}", "..workers"),
        ('"${NUM_WORKERS}"', "NUM_WORKERS"),
        ("!ref <num_workers>", "num_workers"),
        ("${oc.env:NW}", "NW"),
    ],
)
def test_an_interpolation_is_a_reference(value: str, name: str) -> None:
    (site,) = sites("c.yaml", f"loader:\n  num_workers: {value}\n")
    assert (site.kind, site.refers_to, site.target) == (Kind.REFERENCE, name, None)


@pytest.mark.parametrize(
    "value", ["${oc.env:NW,4}", "'${oc.env:NW, 4}'", "${NW:-4}", "${NW:4}", "${oc.decode:${oc.env:NW,4}}"]
)
def test_of_a_variable_with_a_fallback_only_the_fallback_is_replaced(value: str) -> None:
    (site,) = sites("c.yaml", f"loader:\n  num_workers: {value}\n")
    assert (site.value, site.kind, site.role, site.refers_to) == ("4", Kind.LITERAL, Role.DEFAULT, "NW")


def test_the_workers_that_an_interpolation_names_are_found_under_their_own_key() -> None:
    assert literals("c.yaml", "parallel: 6\nloader:\n  num_workers: ${parallel}\n") == [("parallel", "6")]


@pytest.mark.parametrize(
    "text",
    [
        "distributed: {world_size: 8}\njob:\n  cpus_per_task: ${distributed.world_size}\n",
        "batch_size: &n 4\ndata: {num_workers: *n}\n",
        "num_gpus: 4\ndata: {num_workers: '${num_gpus}'}\n",
        "limit: 4\ndata: {num_workers: '${limit}'}\n",
    ],
)
def test_what_is_there_for_something_else_is_not_changed_for_a_setting(text: str) -> None:
    (site,) = sites("c.yaml", text)
    assert site.kind is Kind.REFERENCE


def test_arithmetic_is_an_expression_that_nobody_changes() -> None:
    (site,) = sites("c.yaml", "loader:\n  num_workers: !ref <cores> // 2\n")
    assert (site.kind, site.target, site.refusal) == (Kind.EXPRESSION, None, "knobs.refuse_expression")


def test_of_two_equal_keys_the_later_one_wins() -> None:
    found = sites("c.yaml", "data:\n  num_workers: 1\n  num_workers: 2\nother:\n  num_workers: 3\n")
    assert [site.kind for site in found] == [Kind.OVERRIDDEN, Kind.LITERAL, Kind.LITERAL]


def test_the_same_key_stands_once_in_each_item_of_a_list() -> None:
    text = "stages:\n- batch_size: 1\n  num_workers: 2\n- batch_size: 4\n  num_workers: 6\n---\nnum_workers: 8\n"
    found = sites("c.yml", text)
    assert [(site.value, site.kind, site.setting) for site in found] == [
        ("2", Kind.LITERAL, "stages.0.num_workers"),
        ("6", Kind.LITERAL, "stages.1.num_workers"),
        ("8", Kind.LITERAL, "num_workers"),
    ]


def test_names_of_all_families_are_found() -> None:
    text = """TrainReader: {batch_size: 8, worker_num: 2}
datasets: {train: {num_worker_per_gpu: 6, prefetch_mode: ~}}
DATALOADER: {NUM_WORKERS: 8}
data_stages: [{data: {num_loading_workers: 1}}]
data.dataloader_num_workers: 3
hydra: {launcher: {cpus_per_task: 10}}
training: {dataloader_num_workers: 4, dataloader_pin_memory: true}
WORKERS: 4
BATCH_SIZE: 2
dm: {class_path: x.DataModule, init_args: {workers: 3, train_workers: 2, test_workers: 1, batch_size: 1}}
"""
    assert literals("c.yaml", text) == [
        ("worker_num", "2"),
        ("num_worker_per_gpu", "6"),
        ("NUM_WORKERS", "8"),
        ("num_loading_workers", "1"),
        ("dataloader_num_workers", "3"),
        ("cpus_per_task", "10"),
        ("dataloader_num_workers", "4"),
        ("dataloader_pin_memory", "true"),
        ("WORKERS", "4"),
        ("workers", "3"),
        ("train_workers", "2"),
        ("test_workers", "1"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "gunicorn: {workers: 4}\n",
        "ray: {num_workers: 4}\n",
        "rollout:\n  agent:\n    num_workers: 8\n",
        "workers: 4\nbind: 0.0.0.0\n",
        "num_workers: 4\nworker_class: gevent\n",
        "num_threads: 4\nmodel: resnet.onnx\n",
        "worker-type: gpu\nbatch_size: 3\n",
        "nodes:\n- {key: worker-type, values: [gpu]}\n",
        "description: use num_workers 4\n",
        "on: push\njobs: {test: {env: {OMP_NUM_THREADS: 1}}}\n",
        "data:\n# workers: 4\n",
        "strategy:\n  class_path: ray_lightning.RayStrategy\n  init_args:\n    num_workers: 4\n",
        "ppo:\n  run: PPO\n  env: CartPole-v1\n  config:\n    num_workers: 4\n    train_batch_size: 64\n",
        "num_workers: 4\nnum_envs_per_worker: 2\ntrain_batch_size: 64\n",
        "writer:\n  _target_: ffcv.writer.DatasetWriter\n  num_workers: 16\n",
    ],
)
def test_workers_of_others_are_no_sites(text: str) -> None:
    assert sites("config.yaml", text) == []


def test_a_setting_may_have_a_value_for_each_part_of_the_data() -> None:
    found = sites("c.yaml", "num_workers:\n  training: 4\n  validation: 2\nbatch_size: {training: 8}\n")
    assert [(site.spelling, site.value, site.setting) for site in found] == [
        ("num_workers", "4", "num_workers.training"),
        ("num_workers", "2", "num_workers.validation"),
    ]


def test_an_empty_value_is_shown_and_not_written_over() -> None:
    (site,) = sites("c.yaml", "data:\n  num_workers:\n  pin: 1\n")
    assert (site.value, site.target, site.refusal) == ("", None, "knobs.refuse_empty")


def test_what_hydra_wrote_down_of_a_run_is_a_record() -> None:
    found = sites("outputs/1/.hydra/config.yaml", "data:\n  num_workers: 4\n")
    assert [site.kind for site in found] == [Kind.RECORD]


def test_overrides_in_a_list_are_settings() -> None:
    found = sites("sweep.yaml", "overrides:\n  - data.num_workers=4\n  - +trainer.prefetch_factor=2\n")
    assert [(site.spelling, site.value, site.setting) for site in found] == [
        ("data.num_workers", "4", "data.num_workers"),
        ("trainer.prefetch_factor", "2", "trainer.prefetch_factor"),
    ]


TEMPLATED = """{{- if .Values.train }}
data:
{{ include "x" . | indent 2 }}
  num_workers: 4 # 8
  sizes: [1, 2,
    3]
  loader: {num_workers: 6, pin_memory: true}
  holes: {{ .Values.n }}
  stages:
  - name: a
    batch_size: 1
    workers: 3
  - name: b
    workers: "{{ .Values.n }}"
    batch_size: 2
  text: |
    num_workers: 5
  val:
    num_workers: {{ .Values.n }}
{{- end }}
"""


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_a_template_is_read_by_its_indentation(written: Encode) -> None:
    found = sites("chart/templates/job.yaml", written(TEMPLATED.replace("# 8", "# 八")))
    assert [(site.setting, site.value, site.kind) for site in found] == [
        ("data.num_workers", "4", Kind.LITERAL),
        ("data.loader.num_workers", "6", Kind.LITERAL),
        ("data.loader.pin_memory", "true", Kind.LITERAL),
        ("data.stages.0.workers", "3", Kind.LITERAL),
        ("data.stages.1.workers", "{{ .Values.n }}", Kind.REFERENCE),
        ("data.val.num_workers", "{{ .Values.n }}", Kind.REFERENCE),
    ]
    assert found[-1].refusal == "knobs.refuse_template"


Nested: TypeAlias = "list[Tree] | dict[str, Tree]"
Tree: TypeAlias = "str | Nested"


@pytest.mark.parametrize("depth", [50, 100, 120, 240, 260, 2000])
@pytest.mark.parametrize("level", ["- ", "? ", "-\t", "a:\n{}", "a:\n{}- "], ids=repr)
def test_no_depth_ends_the_process(depth: int, level: str) -> None:
    text = "".join(level.format(" " * column) for column in range(1, depth + 1)) + "num_workers: 4\n"
    assert len(sites("deep.yaml", text)) <= 1


KEYS = st.sampled_from(["a", "b c", "任务", "num_workers", "x-y", '"q: #"', "'s'"])
SCALARS = st.sampled_from(
    ["1", "true", "~", "text with blanks", "'it''s'", '"a\\"b # c"', "2024-01-01", "x#y", "-1", "a:b"]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(KEYS, inner, min_size=1, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=4), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans())
def test_lines_and_grammar_read_the_same_values_in_the_same_places(
    tree: dict[str, Tree], indent: int, comments: bool, dedented: bool
) -> None:
    text = "".join(emitted(tree, 0, indent, comments, dedented))
    source = Source.of("c.yaml", text.encode())
    assert source is not None
    by_grammar, by_lines = yaml_tree.document_of(source), yaml_lines.document_of(source)
    assert by_grammar is not None
    seen = [(entry.path, entry.start, entry.end, entry.text) for entry in by_grammar.entries]
    assert seen == [(entry.path, entry.start, entry.end, entry.text) for entry in by_lines.entries]
    assert len(seen) == leaves(tree)


def emitted(tree: Nested, column: int, indent: int, comments: bool, dedented: bool) -> Iterator[str]:
    """Lines of a document in block style; lists of a key may stand in the column of the key."""
    behind = "  # num_workers: 9\n" if comments else "\n"
    items: Iterable[tuple[str | None, Tree]] = (
        tree.items() if isinstance(tree, dict) else ((None, item) for item in tree)
    )
    for key, value in items:
        lead = " " * column + ("-" if key is None else f"{key}:")
        if isinstance(value, str):
            yield f"{lead} {value}{behind}"
            continue
        yield lead + behind
        same = dedented and key is not None and isinstance(value, list)
        yield from emitted(value, column if same else column + indent, indent, comments, dedented)


def leaves(tree: Tree) -> int:
    if isinstance(tree, str):
        return 1
    return sum(leaves(inner) for inner in (tree.values() if isinstance(tree, dict) else tree))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | st.text(st.sampled_from("ab: ,#[]{}\"\\'\n四"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c", "四"]), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), JSON, max_size=2), st.integers(0, 64), st.sampled_from([None, 1, 4])
)
def test_flow_style_is_changed_as_its_parser_reads_it(
    around: dict[str, object], count: int, indent: int | None
) -> None:
    """JSON is YAML, and has a parser that everybody has."""
    written = {**around, "num_workers": count, "data": [around, {"num_workers": count}]}
    wanted = {**around, "num_workers": 777, "data": [around, {"num_workers": 777}]}
    source = Source.of("c.yaml", json.dumps(written, indent=indent, ensure_ascii=False).encode())
    assert source is not None
    by_grammar = yaml_tree.document_of(source)
    assert by_grammar is not None
    scanner = Scanner(source.utf8, Homes(), flow=True)
    scanner.bracket(())
    for entries in (by_grammar.entries, scanner.entries):
        changed = source.utf8
        for entry in reversed(entries):
            if entry.key == "num_workers":
                changed = changed[: entry.start] + b"777" + changed[entry.end :]
        assert json.loads(changed) == wanted


@given(st.text(st.sampled_from("a:- \n\t{}[]#'\"|&*!,\r1"), max_size=60))
def test_no_text_makes_the_lines_fail(text: str) -> None:
    source = Source.of("c.yaml", text.encode())
    assert source is not None
    for entry in yaml_lines.document_of(source).entries:
        assert entry.shape is Shape.EMPTY or source.utf8[entry.start : entry.end].decode() == entry.text
