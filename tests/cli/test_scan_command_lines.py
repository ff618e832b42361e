"""`keepfed scan` over a project that is started by scripts of every kind: the exact table, and what counts in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepfed.cli.main import main

_FILES = {
    "train.py": """\
import argparse
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=2)
args = parser.parse_args()
loader = DataLoader([], num_workers=args.workers)
""",
    "scripts/run.sh": """\
#!/bin/bash
# python train.py --workers 9
export OMP_NUM_THREADS=4 MKL_NUM_THREADS="2"
NUM_WORKERS=${NUM_WORKERS:-8}
torchrun --nproc_per_node 8 ../train.py \\
    --batch-size 64 \\
    --workers $NUM_WORKERS \\
    --name "with --workers 3"
gunicorn --workers 4 app:app
make -j8""",
    "scripts/job.slurm": """\
#!/bin/bash
#SBATCH --cpus-per-task=16   # 8 were too few
#SBATCH --mem=4G
srun -c 8 python train.py data.num_workers=6
#SBATCH --cpus-per-task=2
""",
    "scripts/start_docker.sh": """\
docker build --shm-size 1g -t image .
docker run --rm --gpus all --shm-size="16g" -e OMP_NUM_THREADS=1 image python train.py --workers=5
docker run --ipc=host --shm-size 8g image
""",
    "Makefile": """\
WORKERS ?= 3
train:
\t@python train.py --batch-size 2 --workers $(WORKERS)
test:
\tpytest -n 4 --workers 4
""",
    "Dockerfile": """\
FROM pytorch
ENV OMP_NUM_THREADS=1 \\
    # not more
    MKL_NUM_THREADS=1
RUN make -j8
CMD ["python", "train.py", "--workers", "7"]
""",
    ".env": 'OMP_NUM_THREADS="3"\nWEB_CONCURRENCY=4\n',
}

_TABLE = [
    (".env", 1, 18, "threads_env", "3", "literal"),
    ("Dockerfile", 2, 21, "threads_env", "1", "literal"),
    ("Dockerfile", 4, 21, "threads_env", "1", "literal"),
    ("Dockerfile", 6, 42, "num_workers", "7", "literal"),
    ("Makefile", 1, 12, "num_workers", "3", "literal"),
    ("Makefile", 3, 44, "num_workers", "$(WORKERS)", "reference"),
    ("scripts/job.slurm", 2, 25, "cpus_per_task", "16", "literal"),
    ("scripts/job.slurm", 4, 9, "cpus_per_task", "8", "literal"),
    ("scripts/job.slurm", 4, 44, "num_workers", "6", "literal"),
    ("scripts/job.slurm", 5, 25, "cpus_per_task", "2", "dead"),
    ("scripts/run.sh", 3, 24, "threads_env", "4", "literal"),
    ("scripts/run.sh", 3, 43, "threads_env", "2", "literal"),
    ("scripts/run.sh", 4, 28, "num_workers", "8", "literal"),
    ("scripts/run.sh", 7, 15, "num_workers", "$NUM_WORKERS", "reference"),
    ("scripts/start_docker.sh", 2, 40, "shm_size", "16g", "literal"),
    ("scripts/start_docker.sh", 2, 64, "threads_env", "1", "literal"),
    ("scripts/start_docker.sh", 2, 98, "num_workers", "5", "literal"),
    ("scripts/start_docker.sh", 3, 34, "shm_size", "8g", "overridden"),
    ("train.py", 5, 52, "num_workers", "2", "literal"),
    ("train.py", 7, 37, "num_workers", "args.workers", "reference"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_project_of_scripts_gives_exactly_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    for name, text in _FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.replace("\n", end).encode())
    monkeypatch.chdir(tmp_path)
    assert main(["scan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["sites"]
    told = [tuple(site[key] for key in ("file", "line", "column", "knob", "value", "kind")) for site in found]
    assert sorted(told) == _TABLE
    for site in found:
        data = (tmp_path / site["file"]).read_bytes()
        assert data[site["start"] : site["end"]].decode() == site["value"]
