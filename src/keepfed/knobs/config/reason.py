"""Whose workers a key of a configuration file speaks of: the loader's, or those of a server, a cluster, a conversion.

`num_workers` is the loader's nearly always, and then again Ray's (`scaling_config.num_workers`), a rollout's or a tokenizer's.
`workers` and `num_threads` are the loader's in a third of the files, and need a reason: a section that loads data, or the
company of a batch size.
"""

from __future__ import annotations

import re

from keepfed.knobs.config.entry import Document, Entry
from keepfed.knobs.spelling import Spelled, words_of

_LOADER = {"dataloader", "dataloaders", "loader", "loaders", "loading", "datamodule", "reader", "dl"}
_DATA = _LOADER | {"data", "dataset", "datasets", "input"}
# Stages of training, which are run by workers of another kind as well.
_STAGES = {
    "train", "training", "trainer", "val", "valid", "validation", "eval", "evaluation", "test", "testing", "finetune", "pretrain",
}  # fmt: skip
# Sections that hand over what is in them to whatever the section above is.
_PASSED_ON = {
    "init",
    "args",
    "arguments",
    "params",
    "parameters",
    "kwargs",
    "config",
    "cfg",
    "options",
    "settings",
    "common",
}
_BATCH = re.compile(
    r"(?i)(?:\w+[._-])?(?:(?:mini_?)?batch_?size\w*|batch|bs|shuffle\w*|pin_?mem\w*|drop_last|prefetch_factor|persistent_workers"
    r"|epochs?|(?:max|num|n|total)_?epochs?|data_?root\w*|data_?sets?|data_?loaders?|collate_fn|samples_per_gpu|imgs_per_\w+)"
)
_MILD = re.compile(
    r"(?i)lr|(?:base_|init_)?learning_rate|optimi[sz]er|weight_decay|momentum|seed|device|gpus?|gpu_ids?|model|img_?size|imgsz"
    r"|image_size|resume|checkpoint\w*|amp|fp16|loss|scheduler"
)
_OTHERS = {
    "ray", "dask", "gunicorn", "uvicorn", "hypercorn", "celery", "server", "serve", "serving", "torchserve", "triton",
    "onnx", "onnxruntime", "openvino", "rollout", "rollouts", "agent", "agents", "writer", "preprocess", "preprocessing",
    "preparation", "tokenizer", "tokenization", "tokenize", "download", "downloader", "scaling", "cluster", "api", "web",
    "http", "grpc", "nginx", "redis", "kafka", "spark", "joblib", "executor", "pool", "threadpool", "vllm", "sglang",
    "reward", "webserver", "asyncio", "scheduler_workers", "env", "envs", "conversion", "converter", "crawler", "indexer",
}  # fmt: skip
# Ray's keys, whose train_batch_size is no loader's either.
_BESIDE_RAY = re.compile(
    r"(?i)num_(?:envs|cpus|gpus)_per_worker|resources_per_worker|rollout_fragment_length|remote_(?:worker_)?envs?\w*"
    r"|placement_strategy|trainer_resources|num_env_runners|num_rollout_workers"
)
_BESIDE_OTHERS = re.compile(
    r"(?i)\w*_per_worker|rollout_\w+|trainer_resources|placement_strategy|bind|port|worker_?class|worker_type|graceful_timeout"
    r"|keep_?alive|min_?workers|replicas|min_?replicas|broker\w*|num_envs\w*|use_ray|ray_\w+"
)
_BUILT_BY = {"_target_", "class_path", "type", "target", "cls", "class", "strategy"}
_OTHER_CLASSES = re.compile(
    r"(?i)\b(?:horovod)?ray(?=[A-Z_.]|\b)|dask|\w*writer|\w*executor|\w*(?:reward|rollout|agentloop)\w*|\w*(?:thread|process)pool|gunicorn|onnx\w*"
)
_CI = re.compile(
    r"(?i)(?:^|/)(?:\.github/|\.gitlab/|\.circleci/|\.buildkite/|\.azure\w*/|\.?gitlab-ci\b|\.travis\.|azure-pipelines"
    r"|bitbucket-pipelines|\.?appveyor|\.pre-commit|\.drone|jenkinsfile|cloudbuild|codecov|\.readthedocs|mkdocs)"
)
_OTHER_FILES = re.compile(r"(?i)(?:^|[/_.-])(?:gunicorn|uvicorn|celery|torchserve|locust|airflow|dask)(?:[/_.-]|$)")
_NO_CONFIG = re.compile(r"(?i)(?:^|/)(?:package(?:-lock)?|composer|tsconfig[\w.-]*|jest\.config|\w*\.schema)\.json$")
OPTIONS_FILE = re.compile(r"(?i)(?:^|[/\\_.-])(?:opts?|options)\.txt$")
"""Where training programs of the pix2pix family keep the options of a run, whose threads are the loader's."""


def foreign(document: Document) -> bool:
    """Whether the whole file belongs to something else: continuous integration, a web server, a JavaScript project."""
    name = document.source.name.replace("\\", "/")
    if _CI.search(name) or _OTHER_FILES.search(name) or _NO_CONFIG.search(name):
        return True
    top = {entry.path[0] for entry in document.entries if entry.path}
    return bool(top & {"on", "true", "workflow_dispatch"} and "jobs" in top) or {"stages", "before_script"} <= top


def is_the_loaders(document: Document, entry: Entry, meaning: Spelled, sections: tuple[str, ...]) -> bool:
    """Whether a key means the loader, seen from the sections above it and the keys beside it."""
    if meaning.knob in {"threads_env", "cpus_per_task"}:
        return meaning.sure
    if meaning.knob == "shm_size":
        return meaning.sure and "build" not in sections[-1:]
    above = [set(words_of(section)) for section in sections if not section.isdigit()]
    beside = document.keys_beside(entry)
    if meaning.knob != "num_workers":
        # DeepSpeed pins the memory of what it offloads: offload_optimizer.pin_memory is no loader's.
        return not any("offload" in words for words in above)
    if any(words & _OTHERS for words in above) and not (above and above[-1] & _LOADER):
        return False
    if any(_BESIDE_RAY.fullmatch(key) for key in beside) or _is_rllib(document, entry):
        return False
    options = bool(OPTIONS_FILE.search(document.source.name))
    beside_it = 2 if options else company(beside)
    if any(_BESIDE_OTHERS.fullmatch(key) for key in beside) and beside_it < 2:
        return False
    if _built_by_others(document, entry):
        return False
    return meaning.sure or options or _reason(entry.key, above, beside_it)


def _is_rllib(document: Document, entry: Entry) -> bool:
    """Whether it stands in the `config` of an experiment of Ray's: `{run: PPO, env: CartPole-v1, config: {num_workers: 4}}`."""
    above = entry.path[:-2]
    return entry.path[-2:-1] == ("config",) and all(document.at(entry.part, (*above, key)) for key in ("run", "env"))


def _built_by_others(document: Document, entry: Entry) -> bool:
    """Whether the class that gets this value is another's: `class_path: ...RayStrategy` beside or above `init_args`."""
    for path in (entry.path[:-1], entry.path[:-2]):
        for key in _BUILT_BY:
            named = document.at(entry.part, (*path, key))
            if named and _OTHER_CLASSES.search(named.text.rpartition(".")[2] or named.text):
                return True
    return False


def company(beside: list[str]) -> int:
    """How much the keys beside it speak of training on batches: 2 is a batch size or the like."""
    if any(_BATCH.fullmatch(key) for key in beside):
        return 2
    return min(2, sum(bool(_MILD.fullmatch(key)) for key in beside))


def _reason(key: str, above: list[set[str]], beside_it: int) -> bool:
    words = set(words_of(key))
    near = next((section for section in reversed(above) if not section <= _PASSED_ON), set())
    if words & {"worker", "workers", "reader", "readers"}:
        stage = bool(near & _STAGES) and beside_it >= 1
        return stage or bool(near & _DATA) or beside_it >= 2 or any(section & _LOADER for section in above)
    # Threads and CPUs are the loader's where the section says so; pix2pix and its descendants alone write nThreads.
    return bool(near & _LOADER) or (key == "nThreads" and beside_it >= 2)
