from __future__ import annotations

import pytest

from keepfed.knobs.exclusions import content_reason, document_or_log, path_reason

EVALUATION = b"""import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--num_workers", type=int, default=4)
def test_epoch(model, loader):
    pass
def test_all():
    pass
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test_loader.py", b"import pytest\n"),
        ("test.py", b"from unittest import TestCase\n"),
        ("check.py", b"import torch\nimport unittest\n"),
        ("test_loader.py", b"def test_it_loads():\n    assert len(DataLoader(d, num_workers=2)) == 3\n"),
        ("loader_test.py", b"class TestLoader(Base):\n    x = 1\n\n    def test_it(self):\n        assert self.x\n"),
    ],
)
def test_test_code_is_told_by_its_content(name: str, text: bytes) -> None:
    assert content_reason(f"src/{name}", text) == "knobs.skipped_tests"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test.py", EVALUATION),
        ("test_net.py", EVALUATION),
        ("Test5_resnet.py", b"def test_it(model, loader):\n    pass\n"),
        ("train.py", b"from unittest import mock\n"),
        ("test_model.py", b"class Net(LightningModule):\n    def test_step(self, batch):\n        pass\n"),
        (
            "test.py",
            b"def test_model():\n    DataLoader(d, num_workers=2)\n\nif __name__ == '__main__':\n    test_model()\n",
        ),
        ("test.py", b"def test_all():\n    assert DataLoader(d, num_workers=2)\n\ntest_all()\n"),
        ("test_x.py", b"def test_model():\n    DataLoader(d, num_workers=2)\n"),
        ("model.py", b"def test_shapes():\n    pass\n"),
    ],
)
def test_programs_that_evaluate_are_no_test_code(name: str, text: bytes) -> None:
    assert content_reason(name, text) == ""


@pytest.mark.parametrize(
    "path", ["tests/conf/a.yaml", "a/tests/train.py", ".github/workflows/a.yml", ".gitlab-ci.yml", "tox.ini"]
)
def test_tests_and_ci_are_told_by_their_place(path: str) -> None:
    assert path_reason(path) != ""


@pytest.mark.parametrize(
    "path", ["options/test/a.yml", "test.py", "contests/a.yaml", "ci/train.yaml", "checkpoints/a/opt.txt"]
)
def test_other_places_are_not(path: str) -> None:
    assert path_reason(path) == ""


def test_a_workflow_is_told_by_its_content_too() -> None:
    github = b"name: x\non: [push]\njobs:\n  a:\n    runs-on: x\n    env:\n      OMP_NUM_THREADS: 1\n"
    gitlab = b"stages:\n  - test\nunit:\n  stage: test\n  script:\n    - OMP_NUM_THREADS=1 pytest\n"
    travis = b"language: python\nenv:\n  - OMP_NUM_THREADS=1\nscript:\n  - pytest\n"
    assert content_reason("travis.yml", travis) == "knobs.skipped_ci"
    assert content_reason("a.yml", github) == content_reason("b.yml", gitlab) == "knobs.skipped_ci"
    training = b"stages:\n  num_workers: 4\nsteps: 10\ntrigger: loss\njobs: 3\n"
    assert content_reason("c.yml", training) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("README.md", "document"),
        ("a/INSTALL.rst", "document"),
        ("nohup.out", "log"),
        ("train.log", "log"),
        ("train_log.txt", "log"),
        ("catalogs.txt", ""),
        ("a.py", ""),
    ],
)
def test_documents_and_logs_only_speak_about_settings(name: str, reason: str) -> None:
    assert document_or_log(name).removeprefix("knobs.skipped_") == reason


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keepfed.toml", b'# measured\nschema = "keepfed.profile/1"\n\n[[loader]]\nnum_workers = 4\n'),
        ("report.json", b'{\n "schema": "keepfed.scan/1",\n "sites": []}\n'),
    ],
)
def test_what_keepfed_has_measured_is_no_setting_of_the_program(name: str, text: bytes) -> None:
    assert content_reason(name, text) == "knobs.skipped_ours"
    assert not content_reason(name, text.replace(b"keepfed.", b"other."))
