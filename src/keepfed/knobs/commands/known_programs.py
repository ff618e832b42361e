"""Programs by name: which start others, whose workers are not a loader's, and which words in a name say what a script does.

Tables only; `program.py` reads a command line with them. A name belongs here when a real script showed that options beside it
were taken wrongly.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LAUNCHERS = _names("""
    accelerate accelerate-launch colossalai composer coverage debugpy deepspeed horovodrun ipdb kernprof lightning
    pdb scalene torch.distributed.launch torch.distributed.run torchrun viztracer yolo
""")
"""Start a Python program that trains, and have options of their own."""

CONTAINERS = _names("""
    container docker docker.io nerdctl nvidia-docker podman podman-remote
""")
"""`docker run` and its kin."""

JOBS = _names("""
    salloc sbatch srun
""")
"""SLURM's commands."""

WRAPPERS = _names("""
    ! aim apptainer aprun bash bsub call catchsegv chrt command conda direnv do doas dotenv else env eval exec gdb
    hatch if infisical ionice jbsub jsrun mamba micromamba mpiexec mpiexec.hydra mpirun ncu nice nohup nsys
    numactl nvprof oarsub parallel pdm perf pipenv poetry pueue qsub rye screen script setsid sh singularity ssh
    start stdbuf strace sudo taskset then time timeout tmux ts tsp unbuffer uv wandb watch while xargs xvfb-run
    zsh
""")
"""Start what follows them: their options are no settings."""

INNER = _names("""
    apptainer bash conda env micromamba ncu nice nsys numactl parallel poetry sh singularity stdbuf taskset
    timeout uv xargs xvfb-run zsh
""")
"""Those of them that stand behind the options of another one: `srun -c 8 bash -c "..."`."""

FOREIGN = _names("""
    ab airflow aria2c arq aws az bazel bentoml black bowtie2 bwa cargo celery cmake ctest curl daphne dask
    dask-scheduler dask-worker databricks dramatiq eksctl fairseq-preprocess fastapi ffmpeg flake8 gcloud git
    gmake go gradio granian gs gsutil gunicorn helm hey huey hypercorn img2dataset isort java jest jupyter kubectl
    label-studio litellm locust luigi make meson mkdocs mlflow mypy nextflow nginx ninja node nox npm npx php pigz
    pip pip3 playwright pnpm pre-commit prefect prlimit puma py.test pylint pytest rails ray rclone redis-server
    rq rsync ruby ruff s5cmd samtools sanic sglang sidekiq snakemake sort spark-submit sphinx-build streamlit
    stress stress-ng superset tar taskiq terraform text-generation-launcher torchserve tox tritonserver
    trtllm-serve unzip uvicorn uwsgi vitest vllm waitress-serve wget wrk xz yarn zip zstd
""")
"""Their workers are web processes, compilers, machines: not a loader's."""

FOREIGN_SCRIPTS = _names("""
    conftest manage scons setup waf
""")
"""The same of Python scripts, without their suffix."""

SILENT = _names("""
    : :: [ [[ awk cat cowsay die echo egrep false fatal fgrep find grep help logger ls man notify-send print
    printf read rem rg say sed tee test true usage Write-Host Write-Output
""")
"""Print, search or test their words."""

TALKS = _names("""
    banner debug die echo err error help info log logs message msg print title usage warn warning
""")
"""Of the name of a shell's function: it prints its words."""

ELSEWHERE = _names("""
    agent agents api app beam build clean client compress conversion convert converter crawl crawler crop dask
    dataflow decompress dedup download downloader extractor filter install litellm openai pack prep prepare
    preprocess preprocessing ray resize rllib scrape serve server serving sglang shard sweagent tokenize tokenizer
    transcode unzip upload vllm webui
""")
"""Of the name of a script or module: its plain num_workers is not a training step's loading."""

DOUBTFUL = _names("""
    analyze annotate burn collect export fetch frames generate generator index ingest match merge mesh migrate
    onnx openvino ort parquet play process processing render search selfplay simulate split stats stress tensorrt
    tflite trt voxelize
""")
"""The same of less weight: many of them load data too, but their plain `--workers` is a pool of processes as often as not."""

SURELY_TRAINS = _names("""
    finetune pretrain train trainer training
""")
"""Of the name of a script or module: it trains, whatever else it is called."""

TRAINS = _names("""
    cifar classification ddp detect dino distill distributed eval evaluate evaluation finetune finetuning fit fsdp
    gan imagenet infer inference lincls linear linprobe mae moco predict pretrain pretraining segmentation sft sup
    supervised test train trainer training tune vae val validate
""")
"""Of the name of a script or module: it loads data for a model."""

BARE_CONTAINER_OPTIONS = _names("""
    --detach --disable-content-trust --http-proxy --init --interactive --no-healthcheck --no-hosts
    --oom-kill-disable --privileged --publish-all --quiet --read-only --replace --rm --rmi --sig-proxy
    --tls-verify --tty
""")
"""Options of `docker run` that take no value (docker run --help); every other one does."""
