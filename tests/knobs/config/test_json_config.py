from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs.config.json_config import document_of
from keepfed.knobs.config.sites import may_state
from keepfed.knobs.site import Kind, Role
from keepfed.knobs.source import Source
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

LEADING_COMMAS = """{
  "task": "sr"  // root/task
  , "datasets": {
    "train": {
      "dataloader_shuffle": true
      , "dataloader_num_workers": 8     // 8 | 32 | 64  每张卡
      , "dataloader_batch_size": 4
    }
  }
}
"""


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_leading_commas_and_comments_with_digits_hide_nothing(written: Encode) -> None:
    (site,) = sites("options/train.json", written(LEADING_COMMAS))
    assert (site.spelling, site.value, site.line, site.column) == ("dataloader_num_workers", "8", 6, 35)
    assert (site.setting, site.owner) == ("datasets.train.dataloader_num_workers", "train")


def test_memory_that_is_pinned_for_offloading_is_no_loaders() -> None:
    zero = '{"zero_optimization": {"offload_optimizer": {"device": "cpu", "pin_memory": true}}, "data": {"pin_memory": true}}'
    (site,) = sites("zero3.json", zero)
    assert site.setting == "data.pin_memory"


def test_a_number_in_quotes_stays_in_its_quotes() -> None:
    (site,) = sites("preset.json", '{"max_data_loader_n_workers": "0", "mem_eff_attn": false}')
    assert (site.value, site.quoted, site.target) == ("0", True, site.span)


def test_the_comma_behind_a_value_is_not_part_of_it() -> None:
    assert literals("config.json", '{\n    "num_workers": 4,\n    "pin_memory":true\n}') == [
        ("num_workers", "4"),
        ("pin_memory", "true"),
    ]


def test_of_two_equal_keys_the_later_one_wins_and_both_are_shown() -> None:
    found = sites("c.json", '{"num_workers": 1, "x": {"num_workers": 5}, "num_workers": 2}')
    assert [(site.value, site.kind) for site in found] == [
        ("1", Kind.OVERRIDDEN),
        ("5", Kind.LITERAL),
        ("2", Kind.LITERAL),
    ]
    assert all(site.target for site in found)


def test_each_line_of_json_lines_is_a_document() -> None:
    found = sites("runs.json", '{"num_workers": 1}\n{"num_workers": 2}\n')
    assert [(site.value, site.kind) for site in found] == [("1", Kind.LITERAL), ("2", Kind.LITERAL)]


def test_jsonnet_shows_the_local_that_a_key_refers_to() -> None:
    text = 'local workers = 4;  // 8\nlocal f(x) = x + 1;\n{\n  data_loader: { "num_workers": workers, batch_size: 2 },\n}\n'
    found = sites("experiment.jsonnet", text)
    assert [(site.value, site.kind, site.refers_to) for site in found] == [
        ("4", Kind.LITERAL, ""),
        ("workers", Kind.REFERENCE, "workers"),
    ]
    assert found[1].target is None
    assert found[1].refusal == "knobs.refuse_reference"


def test_jsonnet_expressions_are_refused_and_objects_in_them_are_read() -> None:
    text = 'base + { "data_loader"+: { num_workers: std.parseInt(std.extVar("W")) }, a: if x then { num_workers: 2 } else {} }'
    assert [(site.value, site.kind) for site in sites("e.jsonnet", text)] == [
        ('std.parseInt(std.extVar("W"))', Kind.EXPRESSION),
        ("2", Kind.LITERAL),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"properties": {"num_workers": {"type": "integer", "description": "how many"}}}',
        '{"num_workers": "Number of worker processes"}',
        '{"workers": 4, "title": "crew"}',
        '{"workers": ["a", "b"], "batch_size": 3}',
        '{"cv_num_threads": 4, "batch_size": 3}',
        '{"rollout": {"num_workers": 4}}',
        '{"scaling_config": {"num_workers": 4, "use_gpu": true}}',
        '{"comment": "set num_workers: 4 here"}',
        '// {"num_workers": 4}\n{}',
    ],
)
def test_descriptions_schemas_lists_and_workers_of_others_are_no_sites(text: str) -> None:
    assert sites("config.json", text) == []


@pytest.mark.parametrize("section", ["data", "dataset", "train", "data_loader"])
def test_plain_workers_are_the_loaders_in_a_section_that_loads(section: str) -> None:
    assert literals("config.json", f'{{"{section}": {{"workers": 4, "lr": 0.1}}}}') == [("workers", "4")]


def test_plain_workers_of_a_stage_alone_may_be_anybodys() -> None:
    assert sites("values.json", '{"trainer": {"workers": 4, "image": "x"}}') == []


def test_arguments_of_a_launch_configuration_are_read_over_two_items() -> None:
    text = """{ "configurations": [{
        "program": "train.py", // main
        "args": ["--num_workers", "8", "--batch-size", "4", "--pin-memory=true"],
        "env": {"OMP_NUM_THREADS": "2"},
    }]}"""
    found = sites(".vscode/launch.json", text)
    assert [(site.spelling, site.value, site.role, site.quoted) for site in found] == [
        ("--num_workers", "8", Role.FLAG, True),
        ("--pin-memory", "true", Role.FLAG, False),
        ("OMP_NUM_THREADS", "2", Role.VARIABLE, True),
    ]


def test_docker_options_of_a_development_container_are_limits() -> None:
    (site,) = sites(".devcontainer/devcontainer.json", '{"runArgs": ["--gpus", "all", "--shm-size=16g"]}')
    assert (site.knob, site.spelling, site.value, site.role) == ("shm_size", "--shm-size", "16g", Role.LIMIT)


@pytest.mark.parametrize(
    "text",
    [
        '{"num_workers": "四',
        "{" * 5000,
        "[" * 100000,
        '{"a": ' * 3000 + "1",
        '{"num_workers": 4, "x": "',
        "}}]],,::",
        "",
    ],
)
def test_broken_and_endless_documents_are_read_as_far_as_they_go(text: str) -> None:
    assert len(sites("broken.json", text)) <= 1


@pytest.mark.parametrize(
    "text",
    [
        '"{}": 4', "{} : 4", "{}=4", "'{}': '4'", "--{} 4", '"--{}", "4"', "{}::4", "{}+: 4", "data.{}=4", "? {}\n: 4",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name",
    [
        "num_workers", "numWorkers", "worker_num", "nThreads", "n_cpu", "reader_num", "nw", "num_procs", "n_jobs", "pin_memory",
        "pinMemory", "pin-mem", "prefetch_factor", "persistent_workers", "shm_size", "sizeLimit", "cpus_per_task", "OMP_NUM_THREADS",
        "num_workers_dataloader", "sharedMemorySize", "cpus-per-task",
    ],
)  # fmt: skip
def test_a_large_file_is_parsed_wherever_it_states_a_setting(text: str, name: str) -> None:
    assert may_state(b"x " * 50_000 + text.format(name).encode())


def test_a_large_file_that_only_talks_is_not_parsed() -> None:
    assert not may_state(
        b'{"caption": "workers on a roof", "thread": "of wool"}, '.replace(b'"thread":', b'"of":') * 5000
    )


def test_variables_by_name_are_stated() -> None:
    assert may_state(b"x " * 50_000 + b"- name: OMP_NUM_THREADS\n  value: '4'\n")
    assert may_state(b"x " * 50_000 + b'{"name": "NUM_WORKERS", "value": "4"}')


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b\\", "任务", 'q"']), VALUES, max_size=3), min_size=1, max_size=4),
    st.integers(0, 64),
    st.sampled_from([None, 1, 4]),
    st.booleans(),
)
def test_the_reported_span_is_what_the_parser_reads(
    around: list[dict[str, object]], count: int, indent: int | None, ascii_only: bool
) -> None:
    inner: dict[str, object] = {"num_workers": count}
    for layer in around:
        inner = {**layer, "data": inner, "num_workers": count}
    text = json.dumps(inner, indent=indent, ensure_ascii=ascii_only)
    source = Source.of("c.json", text.encode("utf-8", "surrogatepass"))
    assert source is not None
    found = [entry for entry in document_of(source).entries if entry.key == "num_workers"]
    assert len(found) == len(around) + 1
    changed = source.utf8
    for entry in reversed(found):
        changed = changed[: entry.start] + b"777" + changed[entry.end :]
    assert json.loads(changed) == replaced(inner)


def replaced(value: object) -> object:
    if isinstance(value, dict):
        return {key: 777 if key == "num_workers" else replaced(inner) for key, inner in value.items()}
    return value
