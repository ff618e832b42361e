"""The hook: what it does to torch's DataLoader, and that it does nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.launch.scratch import HERE, SITE_FOLDER, SOURCE, Interpreter, environment, events_of, run

PROGRAM = """
from torch.utils.data import DataLoader
loader = DataLoader([1, 2, 3])
print(list(loader), list(loader))
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder, as a launcher that was started in tmp_path makes it."""
    from keepfed.feed import RunConfig, RunFolder

    return RunFolder.create(tmp_path, RunConfig()).path


def armed(
    interpreter: Interpreter, code: str, run_folder: Path, arm: str = "works", **changes: str | None
) -> tuple[str, str]:
    """stdout and stderr of `code` in an armed interpreter, whose exit code must be 0."""
    environ = environment(KEEPFED_RUN=str(run_folder), KEEPFED_TEST_ARM=arm, **changes)
    (run_folder.parents[2] / "program.py").write_text(code, encoding="utf-8")
    ended = run([interpreter.python, "program.py"], run_folder.parents[2], environ)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def test_the_first_iteration_arms_and_later_ones_use_what_was_installed(
    equipped: Interpreter, run_folder: Path
) -> None:
    assert armed(equipped, PROGRAM, run_folder) == ("[101, 102, 103] [101, 102, 103]\n", "")


def test_arming_adds_one_finder_and_nothing_else(equipped: Interpreter, run_folder: Path) -> None:
    """No output, no file, no module beyond the package and the hook: this happens in every Python that a program starts."""
    code = """
import sys
print([type(finder).__name__ for finder in sys.meta_path].count("TorchWatch"))
print(sorted(name for name in sys.modules if name.startswith("keepfed") and "fake" not in name and "loader" not in name))
"""
    out, err = armed(equipped, code, run_folder)
    assert out == "1\n['keepfed', 'keepfed._site', 'keepfed._site.hook']\n"
    assert err == ""
    assert sorted(path.name for path in run_folder.iterdir()) == ["config.json"]


def test_arming_costs_less_than_a_millisecond(equipped: Interpreter, run_folder: Path) -> None:
    """The best of several measurements inside one process, each with the hook's module executed anew."""
    code = """
import sys, time
times = []
for _ in range(20):
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "TorchWatch"]
    sys.modules.pop("keepfed._site.hook")
    start = time.perf_counter()
    from keepfed._site import hook
    del sys.modules["keepfed._site"].hook
    from keepfed._site import hook
    hook.arm()
    times.append(time.perf_counter() - start)
print(min(times))
"""
    out, _ = armed(equipped, code, run_folder)
    assert float(out) < 1e-3


def test_the_finder_goes_when_torch_is_imported(equipped: Interpreter, run_folder: Path) -> None:
    code = """
import sys, torch
print([type(finder).__name__ for finder in sys.meta_path].count("TorchWatch"))
from keepfed._site import hook
hook.arm()
print([type(finder).__name__ for finder in sys.meta_path].count("TorchWatch"))
from torch.utils.data import DataLoader
print(DataLoader.__init__.__wrapped__.__qualname__, hasattr(DataLoader.__init__.__wrapped__, "__wrapped__"))
"""
    out, _ = armed(equipped, code, run_folder)
    assert out == "0\n0\nDataLoader.__init__ False\n"


def test_torch_is_not_needed_while_it_is_half_made(equipped: Interpreter, run_folder: Path) -> None:
    """The fake imports its loader early, as torch does, and arming still comes after it is complete."""
    code = "import torch.utils.data.dataloader as module\nprint(module.COMPLETE_TORCH)\n" + PROGRAM
    assert armed(equipped, code, run_folder)[0] == "False\n[101, 102, 103] [101, 102, 103]\n"


@pytest.mark.parametrize("changes", [{"KEEPFED_WORKER": "1"}, {"KEEPFED_DISABLE": "1"}, {"KEEPFED_RUN": None}])
def test_workers_the_switch_and_other_programs_are_left_alone(
    equipped: Interpreter, run_folder: Path, changes: dict[str, str | None]
) -> None:
    environ = environment(**{"KEEPFED_RUN": str(run_folder), "KEEPFED_TEST_ARM": "works"} | changes)
    code = "import sys\nprint('keepfed' in sys.modules, [type(finder).__name__ for finder in sys.meta_path])"
    ended = run([equipped.python, "-c", code], run_folder)
    with_keepfed = run([equipped.python, "-c", code + PROGRAM], run_folder, environ)
    assert "TorchWatch" not in with_keepfed.stdout
    assert "[1, 2, 3] [1, 2, 3]" in with_keepfed.stdout
    assert ended.stdout.startswith("False")


def test_a_worker_of_torchs_own_does_not_arm(equipped: Interpreter, run_folder: Path) -> None:
    """A dataset that iterates a loader of its own, in a worker, stays with torch."""
    code = "import torch.utils.data._utils.worker as worker\nworker._worker_info = object()\n" + PROGRAM
    assert armed(equipped, code, run_folder)[0] == "[1, 2, 3] [1, 2, 3]\n"


@pytest.mark.parametrize(
    ("arm", "error"), [("fails", "RuntimeError: no such thing"), ("missing", "ModuleNotFoundError")]
)
def test_a_failure_leaves_torchs_own_loader_and_one_line(
    equipped: Interpreter, run_folder: Path, arm: str, error: str
) -> None:
    code = (
        PROGRAM + "print(hasattr(DataLoader.__init__, '__wrapped__'), hasattr(DataLoader._get_iterator, '__wrapped__'))"
    )
    out, err = armed(equipped, code, run_folder, arm=arm)
    assert out == "[1, 2, 3] [1, 2, 3]\nFalse False\n"
    assert err.count("\n") == 1
    assert err.startswith("keepfed: not active in this process")
    assert error in err
    (line,) = (run_folder / "unarmed.jsonl").read_text().splitlines()
    assert error in json.loads(line)["error"]


def test_an_arm_that_declines_leaves_torchs_own_loader_without_a_word(equipped: Interpreter, run_folder: Path) -> None:
    assert armed(equipped, PROGRAM, run_folder, arm="declines") == ("[1, 2, 3] [1, 2, 3]\n", "")


def test_signature_and_name_of_the_stubs_are_those_of_torch(equipped: Interpreter, run_folder: Path) -> None:
    """Lightning and Accelerate rebuild loaders from what inspect tells them."""
    code = """
import inspect
from torch.utils.data import DataLoader
print(inspect.signature(DataLoader.__init__))
print(inspect.signature(DataLoader))
print(DataLoader.__init__.__qualname__, DataLoader._get_iterator.__doc__, inspect.signature(DataLoader._get_iterator))
print(inspect.getsource(DataLoader)[:16], inspect.getsourcefile(DataLoader)[-13:])
"""
    out, _ = armed(equipped, code, run_folder)
    plain = run([equipped.python, "-c", code], run_folder)
    assert out == plain.stdout
    assert plain.stderr == ""


def test_the_site_is_the_line_that_builds_the_loader(equipped: Interpreter, run_folder: Path) -> None:
    """Relative to the folder of the run, also from below it, and past frameworks and subclasses."""
    folder = run_folder.parents[2]
    (folder / "data").mkdir()
    (folder / "data" / "loaders.py").write_text(
        "from torch.utils.data import DataLoader\n"
        "class Ours(DataLoader):\n"
        "    def __init__(self, folder, *, speed):\n"
        "        super().__init__(folder)\n"
        "        self.speed = speed\n"
        "def build():\n"
        "    return Ours([1], speed=2)\n",
        encoding="utf-8",
    )
    (folder / "lightning").mkdir()
    (folder / "lightning" / "__init__.py").write_text("def fit(make):\n    return make()\n", encoding="utf-8")
    code = """
import os, sys
os.chdir("data")
sys.path.insert(0, os.getcwd())
from torch.utils.data import DataLoader
import lightning, loaders
print(DataLoader([1])._keepfed_site)
print(loaders.build()._keepfed_site, loaders.build().speed)
print(lightning.fit(lambda: DataLoader([1]))._keepfed_site)
exec(compile("loader = DataLoader([1])", "<string>", "exec"))
print(loader._keepfed_site)
namespace = {"DataLoader": DataLoader, "__name__": "lightning.pytorch.loops"}
exec(compile("def rebuild():\\n    return DataLoader([1])", "loops.py", "exec"), namespace)
print(namespace["rebuild"]()._keepfed_site)
"""
    out, _ = armed(equipped, code, run_folder)
    assert out.splitlines() == [
        "program.py:7",
        "data/loaders.py:7 2",
        "program.py:9",
        "<string>:1",
        "program.py:14",
    ]


def test_a_site_outside_the_folder_of_the_run_is_absolute(
    equipped: Interpreter, run_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "build.py").write_text(
        "from torch.utils.data import DataLoader\ndef build():\n    return DataLoader([1])\n", encoding="utf-8"
    )
    code = f"import sys\nsys.path.insert(0, {str(elsewhere)!r})\nimport build\nprint(build.build()._keepfed_site)"
    assert armed(equipped, code, run_folder)[0] == f"{elsewhere.as_posix()}/build.py:3\n"


def test_noting_the_site_never_raises(equipped: Interpreter, run_folder: Path) -> None:
    """A subclass may refuse attributes, or have no room for them."""
    code = """
from torch.utils.data import DataLoader
class Guarded(DataLoader):
    def __setattr__(self, name, value):
        if name.startswith("_keepfed"):
            raise AttributeError(name)
        super().__setattr__(name, value)
    def __getattribute__(self, name):
        if name == "__dict__":
            raise AttributeError(name)
        return super().__getattribute__(name)
print(list(Guarded([1])))
"""
    assert armed(equipped, code, run_folder) == ("[101]\n", "")


def test_an_error_in_the_program_reaches_it_unchanged(equipped: Interpreter, run_folder: Path) -> None:
    code = """
from torch.utils.data import DataLoader
try:
    DataLoader()
except TypeError as error:
    print(error)
"""
    out, _ = armed(equipped, code, run_folder)
    assert out == run([equipped.python, "-c", code], run_folder).stdout


def test_a_subclass_with_its_own_iterator_keeps_it_and_is_not_wrapped_twice(
    equipped: Interpreter, run_folder: Path
) -> None:
    code = """
from torch.utils.data import DataLoader
class Own(DataLoader):
    def _get_iterator(self):
        return iter("own")
class Wrapped(DataLoader):
    def _get_iterator(self):
        return (-item for item in super()._get_iterator())
print(list(Own([1])), DataLoader._get_iterator.__qualname__)
print(list(Wrapped([1])), list(Wrapped([1])))
"""
    out, _ = armed(equipped, code, run_folder)
    assert out == "['o', 'w', 'n'] DataLoader._get_iterator\n[-101] [-101]\n"


def test_threads_that_iterate_at_once_arm_once(equipped: Interpreter, run_folder: Path) -> None:
    code = """
import threading
from torch.utils.data import DataLoader
found = []
threads = [threading.Thread(target=lambda: found.append(list(DataLoader([1])))) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found == [[101]] * 8)
"""
    assert armed(equipped, code, run_folder) == ("True\n", "")
    assert [type(event).__name__ for _, event in events_of(run_folder.parents[2])].count("Joined") == 1


def test_another_import_hook_in_front_is_asked_too(equipped: Interpreter, run_folder: Path) -> None:
    """Type checkers at run time (beartype, typeguard) put finders of their own there, before or after ours."""
    code = (
        """
import sys, importlib.abc, importlib.machinery
class Counting(importlib.abc.MetaPathFinder):
    seen = []
    def find_spec(self, name, path, target=None):
        self.seen.append(name)
        return None
sys.meta_path.append(Counting())
sys.meta_path.insert(1, Counting())
"""
        + PROGRAM
        + "print('torch.utils.data.dataloader' in Counting.seen)"
    )
    assert armed(equipped, code, run_folder)[0] == "[101, 102, 103] [101, 102, 103]\nTrue\n"


def test_real_torch_is_armed_and_its_spawned_workers_are_not(run_folder: Path) -> None:
    """One process joins, although a dataset iterates a loader of its own inside a worker that imported torch anew."""
    folder = run_folder.parents[2]
    (folder / "program.py").write_text(
        """
import keepfed_fake_armed
import os
from torch.utils.data import DataLoader, Dataset

class Nested(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return [item.item() for item in DataLoader([index])]

if __name__ == "__main__":
    import inspect
    print(list(inspect.signature(DataLoader.__init__).parameters)[:3], len(inspect.signature(DataLoader).parameters) > 15)
    original = DataLoader._get_iterator.__wrapped__
    loader = DataLoader(Nested(), num_workers=1, multiprocessing_context="spawn", batch_size=None)
    print(loader._keepfed_site, list(original(loader)))
    print(list(DataLoader([1])))
""",
        encoding="utf-8",
    )
    path = [str(SITE_FOLDER), str(SOURCE), str(HERE / "fake_armed")]
    environ = environment(PYTHONPATH=":".join(path), KEEPFED_RUN=str(run_folder), KEEPFED_TEST_ARM="works")
    ended = run([sys.executable, "program.py"], folder, environ)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "['self', 'dataset', 'batch_size'] True",
        "program.py:16 [[0], [1]]",
        "[101]",
    ]
    assert [type(event).__name__ for _, event in events_of(folder)].count("Joined") == 1
