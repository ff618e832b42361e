"""Forms that a scan of published projects got wrong once: the loader's settings among those of everything else."""

from __future__ import annotations

import pytest

from keepfed.knobs.reading import read
from keepfed.knobs.source import Source


def values(name: str, text: str) -> list[str]:
    source = Source.of(name, text.encode())
    assert source is not None
    return [f"{site.spelling}={site.value}" for site in read(source)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "prepare.py",
            "from x import DataProcessor\nDataProcessor(input_dir=a, fast=False, num_workers=os.cpu_count()).run()\n",
        ),
        ("trainer.py", "init = partial(seed_worker, num_workers=self.args.dataloader_num_workers, rank=r)\n"),
        (
            "analyze.py",
            "worker_dataset = Subset(self.dataset, range(a, b))\nDataLoader(worker_dataset, batch_size=1)\n",
        ),
        ("zero3.json", '{"zero_optimization": {"offload_param": {"device": "cpu", "pin_memory": true}}}'),
        ("reward.yaml", "_target_: app.workers.RewardConfig\nnum_workers: 8\n"),
        ("run.sh", "python -m app.main rollout.agent.num_workers=8 trainer.n_gpus=8\n"),
    ],
)
def test_what_others_start_or_pin_is_not_a_loaders(name: str, text: str) -> None:
    assert values(name, text) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "run.sh",
            'N=8\nargs=(\n    task=pick\n    dataloader.num_workers=${N}\n    val_dataloader.num_workers=4\n)\npython t.py "${args[@]}"\n',
            ["N=8", "dataloader.num_workers=${N}", "val_dataloader.num_workers=4"],
        ),
        ("d.sh", 'a=(--gpus all --shm-size 8g\n  -p 80:80)\ndocker run "${a[@]}" image\n', ["--shm-size=8g"]),
        ("s.sh", "sbatch -c 8 --export=ALL,NUM_WORKERS=6 job.sh\n", ["-c=8", "NUM_WORKERS=6"]),
        (
            "f.sh",
            "torchrun t.py \\\n  --dataloader_num_workers 16 \\\n  --preprocessing_num_workers 16\n# --dataloader_num_workers 4 \\\n",
            ["--dataloader_num_workers=16"],
        ),
    ],
)
def test_a_loaders_settings_are_found_in_arrays_jobs_and_long_commands(name: str, text: str, found: list[str]) -> None:
    assert values(name, text) == found
