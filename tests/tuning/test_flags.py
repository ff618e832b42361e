"""Which words of a command line set the worker count."""

from __future__ import annotations

import pytest

from keepfed.tuning.flags import prefetch_flag, worker_flag


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python train.py --num-workers 4", ("--num-workers 4", "--num-workers 6")),
        ("python train.py --num_workers=4 --lr 4", ("--num_workers=4", "--num_workers=6")),
        ("python train.py --workers 4", ("--workers 4", "--workers 6")),
        ("torchrun --nproc-per-node 4 main.py -j 4", ("-j 4", "-j 6")),
        ("python main.py -j4", ("-j4", "-j6")),
        ("python train.py --nw 4", ("--nw 4", "--nw 6")),
        ("python run.py --dataloader_num_workers 4", ("--dataloader_num_workers 4", "--dataloader_num_workers 6")),
        ("python cli.py fit --data.init_args.num_workers=4", ("--data.init_args.num_workers=4", "--data.init_args.num_workers=6")),
        ("python train.py model=vit loader.num_workers=4", ("loader.num_workers=4", "loader.num_workers=6")),
        ("python train.py +data.loader.num_workers=4", ("+data.loader.num_workers=4", "+data.loader.num_workers=6")),
        ("yolo train workers=4", ("workers=4", "workers=6")),
        ("python train.py", None),
        ("python train.py --num-workers 8", None),
        ("python train.py --num-workers auto", None),
        ("python train.py --num-workers", None),
        ("python train.py --batch-size 4 --epochs 4", None),
        ("make -j4 train", None),
        ("make -j 4 train", None),
    ],
)  # fmt: skip
def test_the_word_with_the_value_of_the_loader_is_found(command: str, found: tuple[str, str] | None) -> None:
    assert worker_flag(command.split(), 4, 6) == found


def test_an_empty_command_has_no_flag() -> None:
    assert worker_flag([], 4, 6) is None


def test_the_prefetch_factor_is_found_too() -> None:
    command = ["python", "train.py", "--prefetch-factor", "2", "--workers", "2"]
    assert prefetch_flag(command, 2, 4) == ("--prefetch-factor 2", "--prefetch-factor 4")
