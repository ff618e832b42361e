from __future__ import annotations

import pytest

from keepfed.knobs.site import Role
from tests.knobs.marked import compare


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --num_workers=⟨8⟩",
        "python train.py --num-workers ⟨8⟩ --batch-size 32",
        "python train.py --num_workers '⟨8⟩'",
        'python train.py --num_workers="⟨8⟩" --pin_memory ⟨true⟩ --prefetch-factor=⟨4⟩ --persistent_workers ⟨False⟩',
        "python main.py -a resnet50 -j ⟨8⟩ --dist-url tcp://localhost:2345 /data/imagenet",
        "python main.py -a resnet50 -j⟨8⟩ --gpu 0",
        "torchrun --nproc_per_node 8 -m open_project.main --workers=⟨6⟩ --precision amp",
        "python -m torch.distributed.launch --nproc_per_node=2 main.py --workers '⟨4⟩'",
        "accelerate launch --num_cpu_threads_per_process ⟨8⟩ train.py dataset.params.num_workers=⟨8⟩ num_workers=⟨6⟩",
        "deepspeed --num_gpus 8 x/train_mem.py --dataloader_num_workers ⟨4⟩ --report_to none",
        "python train.py ++data.num_workers=⟨8⟩ +trainer.loader.num_workers=⟨2⟩ 'data.workers=⟨3⟩'",
        "python train.py --data.init_args.num_workers=⟨4⟩",
        "python tools/train.py --cfg x.yaml --opts DATALOADER.NUM_WORKERS ⟨4⟩ SOLVER.LR 0.1",
        "python tools/train.py cfg.py --cfg-options data.workers_per_gpu=⟨4⟩",
        "bash tools/dist_train.sh cfg.py 8 --cfg-options data.workers_per_gpu=⟨4⟩",
        'python train.py --loader \'{"num_workers": ⟨4⟩, "pin_memory": ⟨true⟩}\'',
        "yolo.exe task=detect mode=train epochs=150 workers=⟨12⟩",
        "yolo detect train data=coco.yaml workers=⟨8⟩",
        "fairseq-train data --num-workers ⟨2⟩",
        "PYTHONPATH=. CUDA_VISIBLE_DEVICES=0 python -u train.py --nThreads ⟨4⟩ --gpu_ids 0",
        "nohup python train.py --n_cpu ⟨8⟩ > log.txt 2>&1 &",
        "mpirun -np 4 -x OMP_NUM_THREADS=⟨2⟩ python train.py --lr 1 -j ⟨4⟩",
        "env OMP_NUM_THREADS=⟨4⟩ python train.py",
        "parallel -j 8 python train.py --num_workers ⟨2⟩ ::: 1 2",
        'srun -c ⟨8⟩ bash -c "$TRAIN"',
        "srun -c ⟨4⟩ apptainer exec --nv image.sif python train.py --num_workers ⟨2⟩",
        "srun -p gpu -c ⟨8⟩ python train.py --workers ⟨4⟩",
        "srun --cpus-per-task=⟨8⟩ --gres=gpu:4 python -u test.py --num_workers ⟨$((N * 2))|expression⟩",
        "srun --export=ALL,OMP_NUM_THREADS=⟨4⟩,X=1 python train.py",
        "docker run --gpus all --rm --shm-size=⟨64gb⟩ -e OMP_NUM_THREADS=⟨4⟩ -v a:b image python train.py --workers ⟨8⟩",
        "docker run -it --shm-size ⟨16G⟩ image",
        'docker run --shm-size="⟨512g⟩" image',
        "podman run --shm-size=⟨30.00gb⟩ image",
        "$DOCKER run --shm-size ⟨8g⟩ image",
        "docker run --ipc=host --shm-size ⟨8g|overridden⟩ image",
        "docker run --shm-size ⟨8g|overridden⟩ -v /dev/shm:/dev/shm image",
        "python train.py --num_workers ⟨4|overridden⟩ --lr 1 --num_workers ⟨8⟩",
        "uv run train.py --num_workers ⟨4⟩",
        "./train_debug.sh --num_workers ⟨4⟩",
        "python sample/generate.py --num_workers ⟨4⟩",
        "docker run --gpus '\"device=0,1\"' --rm --shm-size=⟨64gb⟩ -v /a/:/a/:ro debug_workers /bin/bash -c 'python -m x.y'",
        '"${PYTHON}" "${SCRIPT}" --workers ⟨6⟩ --gpus 1',
        "conda run -n env python train.py --num_workers ⟨4⟩",
        "singularity exec --nv image.sif python train.py --num_workers ⟨4⟩",
        "ssh host 'cd /x && python train.py --num_workers ⟨4⟩'",
        'bash -c "python train.py --workers ⟨8⟩"',
        'sbatch --cpus-per-task=⟨4⟩ --wrap="python train.py --num_workers=⟨2⟩"',
        "python train.py --train_num_workers ⟨8⟩ --val_num_workers ⟨2⟩",
    ],
)
def test_a_setting_on_a_command_line_is_found_at_its_bytes(line: str) -> None:
    compare("run.sh", line + "\n")


@pytest.mark.parametrize(
    "line",
    [
        "make -j 8",
        "make -j8 NUM_WORKERS=4",
        "ninja -j 8 && cmake --build . -j 8",
        "gunicorn app:app --workers 4 --threads 2",
        "python -m gunicorn app:app --num-workers 4 --batch 3",
        "sudo -E gunicorn --num-workers 3",
        "uvicorn app:app --workers 4",
        "celery -A app worker -c 4",
        "ray start --head --num-cpus 8",
        "dask-worker --nthreads 4 --nworkers 2",
        "pytest -n 8 --workers 4",
        "python -m pytest --workers 4 --batch 2",
        "rsync -j 8 a b",
        "gcloud dataproc clusters create x --num-workers=2",
        "python tools/preprocess_data.py --num_workers 60 --workers 8 --dataset x",
        "fairseq-preprocess --workers 60 --trainpref data/train",
        "python $ROOT/fairseq_cli/preprocess.py --trainpref x --workers 10",
        "python train.py --workers ${workers[@]} --batch-size 4",
        "python train.py --batch-size 4 --workers host1,host2",
        "python train.py --cv_num_threads 4 --worker_init_fn x --bucket-prefetch-pools 3",
        "python ray_launch.py --num_workers 8",
        "docker build --shm-size 8g .",
        "python crawl.py --workers 8",
        "python tool.py --workers 8",
        "python pgn_to_parquet.py --out-dir x --workers 6 --batch-games 1000",
        "python tools/generate_answers.py --workers 8 --dataset x",
        "echo python train.py --num_workers 8",
        'printf "%s" "--num_workers 8"',
        'log_info "python train.py --num_workers 8"',
        "# python train.py --num_workers 8",
        "python train.py  # --num_workers 8",
        'grep "num_workers=8" log.txt',
        "sed -i 's/num_workers: 4/num_workers: 8/' conf.yaml",
        "python train.py --num_workers",
        "python train.py --num_workers --pin_memory",
        "taskset -c 8 python train.py",
        "python train.py -c 8",
    ],
)
def test_what_is_no_setting_of_a_loader_is_left_alone(line: str) -> None:
    compare("run.sh", line + "\n")


def test_a_site_knows_whose_it_is_and_what_it_does() -> None:
    line = "srun -c ⟨8⟩ env OMP_NUM_THREADS=⟨1⟩ torchrun train.py --num-workers ⟨4⟩ data.num_workers=⟨2⟩\n"
    found = [(site.owner, site.role, site.setting, site.spelling) for site in compare("run.sh", line)]
    assert found == [
        ("srun", Role.LIMIT, "cpus_per_task", "-c"),
        ("env", Role.VARIABLE, "OMP_NUM_THREADS", "OMP_NUM_THREADS"),
        ("train.py", Role.FLAG, "num_workers", "--num-workers"),
        ("train.py", Role.FLAG, "data.num_workers", "data.num_workers"),
    ]
