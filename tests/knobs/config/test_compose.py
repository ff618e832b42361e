from __future__ import annotations

import pytest

from keepfed.knobs.site import Kind, Role
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

COMPOSE = """services:
  trainer:
    build:
      context: .
      shm_size: 1gb
    shm_size: "16gb"   # 共享 2
    environment:
      - OMP_NUM_THREADS=4
      - "MKL_NUM_THREADS=1"
      - NVIDIA_VISIBLE_DEVICES=0
    command: python train.py --num_workers 8 --epochs 90
  eval:
    shm_size: ${SHM:-8g}
    environment:
      OMP_NUM_THREADS: "3"
      LOADER_WORKERS: 2
    command: ["python", "eval.py", "--workers=6", "--num-workers", "5"]
"""


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_each_service_has_its_own_settings(written: Encode) -> None:
    found = sites("docker-compose.yml", written(COMPOSE))
    assert [(site.owner, site.spelling, site.value, site.role) for site in found] == [
        ("trainer", "shm_size", "16gb", Role.LIMIT),
        ("trainer", "OMP_NUM_THREADS", "4", Role.VARIABLE),
        ("trainer", "MKL_NUM_THREADS", "1", Role.VARIABLE),
        ("trainer", "--num_workers", "8", Role.FLAG),
        ("eval", "shm_size", "8g", Role.DEFAULT),
        ("eval", "OMP_NUM_THREADS", "3", Role.VARIABLE),
        ("eval", "LOADER_WORKERS", "2", Role.VARIABLE),
        ("eval", "--workers", "6", Role.FLAG),
        ("eval", "--num-workers", "5", Role.FLAG),
    ]


def test_what_the_build_gets_is_not_the_services() -> None:
    assert sites("compose.yaml", "services:\n  x:\n    build: {context: ., shm_size: 256m}\n") == []


def test_a_service_in_the_hosts_ipc_namespace_has_no_size_of_its_own() -> None:
    (site,) = sites("compose.yaml", "services:\n  x:\n    shm_size: 2g\n    ipc: host\n")
    assert (site.kind, site.counts_at) == (Kind.OVERRIDDEN, "compose.yaml:4")


def test_a_mount_over_dev_shm_takes_its_place_and_may_have_a_size() -> None:
    found = sites(
        "compose.yaml",
        "services:\n  x:\n    shm_size: 2g\n    tmpfs:\n      - /dev/shm:rw,size=8g\n      - /tmp:size=1g\n",
    )
    assert [(site.value, site.kind, site.owner) for site in found] == [
        ("2g", Kind.OVERRIDDEN, "x"),
        ("8g", Kind.LITERAL, "x"),
    ]
    (site,) = sites("compose.yaml", "services:\n  x:\n    shm_size: 2g\n    volumes: [/dev/shm:/dev/shm, /a:/b]\n")
    assert site.kind is Kind.OVERRIDDEN


@pytest.mark.parametrize("command", ["gunicorn app:app --workers 4", "celery -A x worker", "uvicorn a:b --workers 2"])
def test_workers_of_a_server_are_left_alone(command: str) -> None:
    text = f"services:\n  web:\n    command: {command}\n    environment:\n      NUM_WORKERS: 4\n"
    assert sites("compose.yaml", text) == []


def test_a_shared_fragment_is_a_setting_too() -> None:
    text = "x-gpu: &gpu\n  shm_size: 8gb\nservices:\n  a:\n    <<: *gpu\n    image: t\n"
    assert literals("compose.yaml", text) == [("shm_size", "8gb")]


def test_a_script_in_a_block_of_text_is_read_without_its_comments() -> None:
    text = "services:\n  a:\n    command:\n      - bash\n      - -c\n      - |\n        # python t.py --num_workers 3\n        export OMP_NUM_THREADS=2\n        python train.py --batch-size 4 \\\n          --workers 6\n"
    assert literals("compose.yaml", text) == [("OMP_NUM_THREADS", "2"), ("--workers", "6")]
