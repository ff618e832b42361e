"""What can be said of the GPU's benchmarks without a GPU: they refuse clearly, and their ResNet-50 is one."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # they import from each other


def benchmark(name: str) -> Any:
    spec = spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["gpu", "gpu_safety"])
def test_without_a_gpu_it_refuses_and_says_why(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark(name).main([]) == 2
    assert f"torch {torch.__version__} sees none" in capsys.readouterr().err


def test_the_step_is_resnet_50s() -> None:
    with torch.device("meta"):
        model = benchmark("gpu").resnet50()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert sum(weight.numel() for weight in model.parameters()) == 25_557_032, "as torchvision counts them"


def test_a_wrong_gate_must_corrupt_and_the_right_one_must_not() -> None:
    safety = benchmark("gpu_safety")
    row = safety.Row(gate="right", program="thread", batches=60, wrong=0, passed=True)
    assert "0 of 60 batches wrong: ok" in safety.line(row)
    with safety.gate_of("no event"):
        from keepfed.loader.device import CudaDevice

        assert CudaDevice.mark(None).passed()  # type: ignore[arg-type, union-attr]  # the wrong one asks for nothing
    assert CudaDevice.mark.__name__ == "mark"
