from __future__ import annotations

import pytest

from keepfed.knobs.site import Role
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

POD = """apiVersion: v1
kind: Pod
metadata:
  name: train
spec:
  volumes:
  - name: dshm
    emptyDir:
      medium: Memory
      sizeLimit: "4Gi"   # 内存 8Gi
  - name: cache
    emptyDir: {medium: Memory, sizeLimit: 1Gi}
  - name: scratch
    emptyDir: {sizeLimit: 9Gi}
  containers:
  - name: main
    image: torch
    env:
    - name: OMP_NUM_THREADS
      value: "4"
    - name: MODE
      value: "num_workers"
    command: ["/bin/sh", "-c"]
    args: ["python -u train.py --num_workers 16 --tasks 0"]
    volumeMounts:
    - name: dshm
      mountPath: /dev/shm
    - {name: cache, mountPath: /cache}
"""
EXPECTED = [
    ("dshm", "sizeLimit", "4Gi", Role.LIMIT),
    ("main", "OMP_NUM_THREADS", "4", Role.VARIABLE),
    ("main", "--num_workers", "16", Role.FLAG),
]


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_the_volume_at_dev_shm_is_the_size_of_shared_memory(written: Encode) -> None:
    found = sites("pod.yaml", written(POD))
    assert [(site.owner, site.spelling, site.value, site.role) for site in found] == EXPECTED


@pytest.mark.parametrize("name", ["job.tpl", "pod.yaml.j2", "pod.m4", "templates/pod.yaml"])
def test_a_template_of_a_manifest_is_read_like_one(name: str) -> None:
    text = POD.replace("kind: Pod", "kind: Pod\n{{ if .gpu }}").replace(
        "    image: torch\n", "    image: {{ .image }}\n{{ end }}\n"
    )
    found = sites(name, text)
    assert [(site.owner, site.spelling, site.value, site.role) for site in found] == EXPECTED
    assert {site.file for site in found} == {name}


def test_a_volume_without_a_size_limit_is_no_site() -> None:
    assert literals("pod.yaml", POD.replace('      sizeLimit: "4Gi"   # 内存 8Gi\n', ""))[0][0] == "OMP_NUM_THREADS"


def test_a_volume_on_disk_is_not_shared_memory() -> None:
    assert literals("pod.yaml", POD.replace("      medium: Memory\n", ""))[0][0] == "OMP_NUM_THREADS"


def test_a_volume_that_is_mounted_elsewhere_is_no_site() -> None:
    assert literals("pod.yaml", POD.replace("mountPath: /dev/shm", "mountPath: /tmp"))[0][0] == "OMP_NUM_THREADS"


def test_a_mount_in_another_document_does_not_count() -> None:
    volumes, containers = POD.split("  containers:\n")
    assert (
        literals("pods.yaml", f"{volumes}---\nkind: Pod\nspec:\n  containers:\n{containers}")[0][0] == "OMP_NUM_THREADS"
    )


def test_files_in_a_config_map_are_read_as_what_they_are() -> None:
    text = """kind: ConfigMap
data:
  train.yaml: |
    # 数据
    data:
      num_workers: 8
  run.sh: |-
    #!/bin/bash
    # --workers 3
    python train.py --batch-size 4 --workers 6
  notes.md: |
    num_workers: 4
"""
    found = sites("map.yaml", text)
    assert [(site.spelling, site.value, site.line, site.column) for site in found] == [
        ("num_workers", "8", 6, 20),
        ("--workers", "6", 10, 46),
    ]


@pytest.mark.parametrize("name", ["map.yaml", "map.yaml.j2"])
def test_what_counts_instead_is_named_as_the_outer_file_has_it(name: str) -> None:
    text = "kind: ConfigMap\ndata:\n  train.yaml: |\n    num_workers: 8\n    num_workers: 2\n"
    found = sites(name, text)
    assert [(site.value, site.counts_at) for site in found] == [("8", f"{name}:5"), ("2", "")]


@pytest.mark.parametrize("section", ["shmVolume", "dshm", "sharedMemory"])
def test_the_values_of_a_chart_tell_by_their_section(section: str) -> None:
    (site,) = sites("values.yaml", f"{section}:\n  enabled: true\n  sizeLimit: 4Gi\nlogs:\n  sizeLimit: 1Gi\n")
    assert (site.knob, site.value, site.owner) == ("shm_size", "4Gi", section)


def test_the_words_of_args_are_options_of_what_command_names() -> None:
    text = "containers:\n- name: a\n  command: [python, train.py]\n  args: [--workers, '4', --name, x]\n- name: b\n  command: [gunicorn]\n  args: [--workers, '8']\n"
    assert literals("pod.yaml", text) == [("--workers", "4")]
