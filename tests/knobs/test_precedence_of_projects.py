"""Whole projects on disk, read by the real readers: which place counts, and where the others get their value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keepfed.knobs.scan import scan_files, scan_paths
from keepfed.knobs.site import Kind, KnobSite
from keepfed.knobs.walk import Bytes

OPTIONS = (
    "import argparse\n\n\nclass BaseOptions:\n    def initialize(self, parser):\n"
    "        parser.add_argument('--nThreads', default=2, type=int, help='# threads for loading data (default: 2)')\n"
    "        return parser\n\n    def print_options(self, opt):\n"
    "        file_name = os.path.join(opt.checkpoints_dir, 'opt.txt')\n"
    "        with open(file_name, 'wt') as opt_file:\n            opt_file.write(message)\n"
)
OPTION = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--workers', type=int, default=4)\nargs = p.parse_args()\n"
LOADER = (
    "import torch\n\n\nclass CustomLoader:\n    def initialize(self, opt):\n"
    "        self.dataloader = torch.utils.data.DataLoader(\n            self.dataset,\n            batch_size=opt.batchSize,\n"
    "            num_workers=int(opt.nThreads))\n"
)

Scan = Callable[..., dict[str, KnobSite]]


@pytest.fixture
def scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scan:
    def scan(files: Mapping[str, str], *paths: str) -> dict[str, KnobSite]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        return {f"{site.file}:{site.line}:{site.spelling}": site for site in scan_paths(paths or ["."]).sites}

    return scan


def verdicts(found: Mapping[str, KnobSite]) -> dict[str, tuple[str, bool | None, str]]:
    return {place: (site.kind.value, site.wins, site.counts_at) for place, site in found.items()}


def test_options_printouts_and_scripts_of_an_image_translation_project(scanned: Scan) -> None:
    found = scanned(
        {
            "options/base_options.py": OPTIONS,
            "data/custom_loader.py": LOADER,
            "train.py": "from options.base_options import BaseOptions\nopt = BaseOptions().parse()\n",
            "scripts/train.sh": "#!/bin/bash\npython train.py --name x --nThreads 8\n",
            "checkpoints/x/opt.txt": "------------ Options -------------\nbatchSize: 1\nnThreads: 4\n-------------- End ----------------\n",
            "checkpoints/y/opt.txt": "batchSize: 1\nnThreads: 6\n",
        }
    )
    assert verdicts(found) == {
        "checkpoints/x/opt.txt:3:nThreads": ("record", False, "options/base_options.py:6"),
        "checkpoints/y/opt.txt:2:nThreads": ("record", False, "options/base_options.py:6"),
        "data/custom_loader.py:9:num_workers": ("expression", True, ""),
        "options/base_options.py:6:--nThreads": ("overridden", False, "scripts/train.sh:2"),
        "scripts/train.sh:2:--nThreads": ("literal", True, ""),
    }


def test_a_hydra_project_with_overlays(scanned: Scan) -> None:
    files = {
        "configs/train.yaml": "defaults:\n  - _self_\n  - data: mnist.yaml\n  - trainer: default\n  - debug: null\n\ntags: [dev]\n",
        "configs/data/mnist.yaml": "_target_: src.data.mnist.MNISTDataModule\nbatch_size: 128\nnum_workers: 4\npin_memory: False\n",
        "configs/debug/default.yaml": "# @package _global_\ntrainer:\n  max_epochs: 1\ndata:\n  num_workers: 0 # debuggers don't like it\n",
        "src/data/mnist.py": "from torch.utils.data import DataLoader\n\n\nclass MNISTDataModule:\n"
        "    def __init__(self, num_workers: int = 0, pin_memory: bool = False):\n        self.save_hyperparameters()\n\n"
        "    def train_dataloader(self):\n        return DataLoader(\n            self.data,\n            num_workers=self.hparams.num_workers,\n        )\n",
        "src/train.py": "import hydra\n",
    }
    found = scanned(files)
    assert found["configs/data/mnist.yaml:3:num_workers"].wins is True
    assert found["configs/debug/default.yaml:5:num_workers"].wins is None
    default = found["src/data/mnist.py:5:num_workers"]
    assert (default.kind.value, default.wins, default.counts_at) == ("overridden", False, "configs/data/mnist.yaml:3")
    assert found["src/data/mnist.py:11:num_workers"].wins is not True
    found = scanned({"scripts/run.sh": "python src/train.py data.num_workers=8 trainer.max_epochs=10\n"})
    assert verdicts(found)["configs/data/mnist.yaml:3:num_workers"] == ("overridden", False, "scripts/run.sh:1")
    assert found["scripts/run.sh:1:data.num_workers"].wins is True


@pytest.mark.parametrize(
    ("listed", "base", "group"),
    [
        ("  - _self_\n  - experiment: big\n", False, True),
        ("  - experiment: big\n  - _self_\n", True, False),
        ("  - experiment: big\n", None, None),
        ("  - _self_\n  - experiment: null\n", True, None),
    ],
)
def test_of_two_files_that_hydra_composes_the_later_one_counts(
    scanned: Scan, listed: str, base: bool | None, group: bool | None
) -> None:
    found = scanned(
        {
            "conf/config.yaml": f"defaults:\n{listed}data:\n  num_workers: 4\n",
            "conf/other.yaml": "defaults:\n  - _self_\ndata:\n  num_workers: 3\n",
            "conf/experiment/big.yaml": "# @package _global_\ndata:\n  num_workers: 16\n",
        }
    )
    line = 3 + listed.count("\n")
    assert found[f"conf/config.yaml:{line}:num_workers"].wins is base
    assert found["conf/experiment/big.yaml:3:num_workers"].wins is group
    assert found["conf/other.yaml:4:num_workers"].wins is True


def test_compose_and_its_override(scanned: Scan) -> None:
    found = scanned(
        {
            "docker-compose.yml": "services:\n  train:\n    build:\n      context: .\n      shm_size: 1gb\n    shm_size: 8gb\n"
            "    environment:\n      - OMP_NUM_THREADS=1\n  web:\n    shm_size: '64m'\n",
            "docker-compose.override.yml": "services:\n  train:\n    shm_size: 2gb\n    environment:\n      OMP_NUM_THREADS: 4\n",
        }
    )
    assert verdicts(found) == {
        "docker-compose.override.yml:3:shm_size": ("literal", True, ""),
        "docker-compose.override.yml:5:OMP_NUM_THREADS": ("literal", True, ""),
        "docker-compose.yml:6:shm_size": ("overridden", False, "docker-compose.override.yml:3"),
        "docker-compose.yml:8:OMP_NUM_THREADS": ("overridden", False, "docker-compose.override.yml:5"),
        "docker-compose.yml:10:shm_size": ("literal", True, ""),
    }


def test_environment_variables_of_an_image_its_service_and_the_program_itself(scanned: Scan) -> None:
    docker = 'FROM python:3.12\nENV OMP_NUM_THREADS=1\nENV MKL_NUM_THREADS=2\nCMD ["python", "t.py"]\n'
    compose = "services:\n  t:\n    build: .\n    environment:\n      OMP_NUM_THREADS: 4\n"
    found = scanned({"Dockerfile": docker, "compose.yaml": compose})
    assert {place: site.wins for place, site in found.items()} == {
        "Dockerfile:2:OMP_NUM_THREADS": None,
        "Dockerfile:3:MKL_NUM_THREADS": True,
        "compose.yaml:5:OMP_NUM_THREADS": True,
    }
    found = scanned(
        {"t.py": "import os\nos.environ['MKL_NUM_THREADS'] = '8'\nos.environ.setdefault('OMP_NUM_THREADS', '8')\n"}
    )
    assert found["Dockerfile:3:MKL_NUM_THREADS"].wins is None
    assert found["t.py:2:MKL_NUM_THREADS"].wins is True
    assert found["t.py:3:OMP_NUM_THREADS"].wins is None


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("Makefile", "train:\n\tpython train.py --workers 8\n", "Makefile:2"),
        ("Dockerfile", 'FROM x\nCMD ["python", "train.py", "--workers", "8"]\n', "Dockerfile:2"),
        ("Dockerfile", 'FROM x\nENTRYPOINT ["python", "train.py"]\nCMD ["--workers", "8"]\n', "Dockerfile:3"),
        ("compose.yaml", "services:\n  t:\n    command: python train.py --workers 8\n", "compose.yaml:3"),
        (
            "compose.yaml",
            "services:\n  t:\n    command:\n      - python\n      - train.py\n      - --workers\n      - '8'\n",
            "compose.yaml:7",
        ),
        ("run.bat", "@echo off\r\npython train.py ^\r\n  --workers 8\r\n", "run.bat:3"),
        ("job.slurm", "#!/bin/bash\n#SBATCH -c 9\nsrun python -u train.py --workers=8\n", "job.slurm:3"),
    ],
)
def test_commands_of_every_kind_of_file_beat_the_programs_default(
    scanned: Scan, name: str, text: str, place: str
) -> None:
    found = scanned({"train.py": f"{OPTION}loader = DataLoader([], num_workers=args.workers)\n", name: text})
    option = found["train.py:3:--workers"]
    assert (option.kind.value, option.wins, option.counts_at) == ("overridden", False, place)


def test_a_lightning_cli_configuration_named_in_a_script(scanned: Scan) -> None:
    found = scanned(
        {
            "train.py": "from lightning.pytorch.cli import LightningCLI\nfrom dm import DM\ncli = LightningCLI(M, DM)\n",
            "dm.py": "from torch.utils.data import DataLoader\n\n\nclass DM:\n    def __init__(self, num_workers: int = 0):\n"
            "        self.num_workers = num_workers\n\n    def train_dataloader(self):\n"
            "        return DataLoader(self.d, num_workers=self.num_workers)\n",
            "configs/pretrain.yaml": "trainer:\n  max_epochs: 2\ndata:\n  batch_size: 16\n  num_workers: 1\n",
            "run.sh": "python train.py fit --config configs/pretrain.yaml\n",
        }
    )
    assert found["configs/pretrain.yaml:5:num_workers"].wins is True
    assert found["dm.py:5:num_workers"].wins is None


def test_a_duplicate_key_and_a_slurm_script(scanned: Scan) -> None:
    found = scanned(
        {
            "default_config.yaml": "data:\n  num_workers: 12\n  batch_size: 4\n  num_workers: 16\n",
            "job.sh": "#!/bin/bash\n#SBATCH --cpus-per-task=8  # 8 of 64\nexport OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK\nsrun python t.py\n",
        }
    )
    assert verdicts(found)["default_config.yaml:2:num_workers"] == ("overridden", False, "default_config.yaml:4")
    assert found["default_config.yaml:4:num_workers"].wins is True
    assert found["job.sh:2:--cpus-per-task"].wins is True


def test_one_file_by_itself_counts(scanned: Scan) -> None:
    for name, text in {
        "a.py": "DataLoader(d, num_workers=4)\n",
        "b.json": '{"num_workers": 4}',
        "c.yaml": "train:\n  num_workers: 4\n",
        "d.toml": "[data]\nnum_workers = 4\n",
        "e.ini": "[data]\nnum_workers = 4\n",
        "f.sh": "python train.py --num_workers 4\n",
    }.items():
        assert [site.wins for site in scanned({name: text}, name).values()] == [True], name


PIECES = (
    "num_workers: 4",
    "  num_workers: 4",
    "- num_workers: ${x.y}",
    "num_workers=args.num_workers,",
    "defaults:",
    "  - data: a",
    "  - debug: null",
    "import argparse",
    "from a import b",
    "class A:",
    "    def f(self, num_workers=4):",
    "        return DataLoader(d, num_workers=self.num_workers)",
    "    num_workers: int = 0",
    "parser.add_argument('-j', '--num_workers', default=2)",
    "args = parser.parse_args()",
    "NUM_WORKERS = 3",
    "if x:",
    "    args.num_workers = 0",
    "DataLoader(d, num_workers=NUM_WORKERS)",
    "python a.py --num_workers 8 \\",
    "  -j $NUM_WORKERS",
    "NUM_WORKERS=${1:-4}",
    "export OMP_NUM_THREADS=2",
    "os.environ['OMP_NUM_THREADS'] = '1'",
    "services:",
    "  a:",
    "    shm_size: 2g",
    "_base_ = ['./a.py']",
    '{"num_workers": 4,',
    '"num_workers": 8}',
    "_target_: a.A",
    "# @package _global_",
    'CMD ["python", "a.py", "--num_workers", "4"]',
    "ENV OMP_NUM_THREADS 4",
    "",
    "\t",
    "})",
)
NAMES = (
    "a.py",
    "b.py",
    "x/a.yaml",
    "a.yaml",
    "data/a.yaml",
    "run.sh",
    "opt.txt",
    "a.json",
    "Dockerfile",
    "compose.yaml",
    "compose.override.yaml",
    "a.ipynb",
)


@settings(deadline=None, max_examples=60)
@example({"x/a.yaml": 'num_workers: 4\n"num_workers": 8}'})
@given(
    st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(PIECES), max_size=8).map("\n".join), max_size=6)
)
def test_whatever_stands_in_the_files_every_place_gets_an_answer(files: dict[str, str]) -> None:
    found = scan_files(Bytes(name, text.encode()) for name, text in files.items())
    for site in found.sites:
        assert not (site.wins and site.counts_at), site
        assert not (site.wins and site.kind in (Kind.RECORD, Kind.DEAD, Kind.OVERRIDDEN, Kind.REFERENCE)), site
        assert site.value.encode() == files[site.file].encode()[site.span.start : site.span.end]
    places = {f"{site.file}:{site.line}" for site in found.sites}
    assert {site.counts_at for site in found.sites} - {""} <= places
