"""Calls that take a worker count and are no loader: Ray, Dask, process pools, dataset writers, servers.

They use the loader's own words (`RayStrategy(num_workers=4)`, `DatasetWriter(path, fields, num_workers=16)`), and changing
those would start another number of training processes.
"""

from __future__ import annotations

import re

_NAMES = frozenset(
    """
    DataProcessor ScalingConfig ElasticScalingConfig DatasetWriter TFRecordWriter MDSWriter optimize map walk
    Client LocalCluster LocalCUDACluster SLURMCluster PBSCluster KubeCluster SSHCluster Cluster
    ProcessPoolExecutor ThreadPoolExecutor Executor Pool ThreadPool WorkerPool MPIPool MPIPoolExecutor get_reusable_executor
    Process Thread Parallel process_map thread_map p_map p_umap pqdm prun starmap imap imap_unordered run_in_executor
    compute persist SessionOptions InferenceSession seed_everything rollouts env_runners learners AlgorithmConfig
    TorchTrainer HorovodTrainer TensorflowTrainer DataParallelTrainer XGBoostTrainer LightGBMTrainer TorchDistributor
    BackendExecutor WorkerGroup ElasticRayExecutor
    SubprocVecEnv make_vec_env AsyncVectorEnv EnvPool set_num_threads set_num_interop_threads setNumThreads
    Word2Vec Doc2Vec FastText LdaMulticore fit_generator predict_generator evaluate_generator
    download snapshot_download upload_large_folder upload_folder save_to_disk push_to_hub from_generator
    DataProcessor index_parquet_dataset seed_worker
    ComputeConfig range_push barrier Barrier Semaphore BoundedSemaphore ThreadingHTTPServer server GunicornApp
    """.split()  # noqa: SIM905  # a list of names is read, and kept in order, far more easily without quotes
)
_PATTERN = re.compile(
    r"^(?:Horovod)?Ray[A-Z]|^(?:XGB|LGBM|Spark)|(?:Cluster|PoolExecutor|ThreadPool|ProcessPool)$|^_?Ray$"
    r"|AgentLoop|Rollout|RewardLoop|Server|Conv$|^(?:knn|radius|fps)(?:_|$)|^(?:KNN|Radius)Graph$|(?:[Dd]own|[Uu]p)[Ll]oader"
)

ARGUMENTS = frozenset(
    """
    num_proc nproc nprocs n_jobs num_jobs njobs max_workers processes num_processes n_processes max_concurrency concurrency
    parallelism num_parallel_calls num_actors world_size num_machines max_threads poolsize pool_size
    """.split()  # noqa: SIM905  # as above
)
"""Keywords of other things than loaders: a value that goes only there is not a loader's."""

_TRANSPARENT = frozenset({"int", "min", "max", "str", "abs", "round", "float", "ceil", "floor", "bool"})
_SAYING = frozenset(
    """
    print pprint info debug warning warn error log exception critical format echo write rank_zero_info rank_zero_warn
    print_rank_0 log_hyperparams rprint secho append_log isinstance type repr hasattr ValueError RuntimeError AssertionError
    MisconfigurationException
    """.split()  # noqa: SIM905  # as above
)


_PINS_TENSORS = re.compile(
    r"(?:empty|zeros|ones|full|rand|randn|randint)(?:_like|_strided)?$|^(?:as_)?tensor$|^new_|^to$|^arange$|ffload|Cache|Buffer|Storage|[Tt]ensor|DeepSpeed|[Zz]ero_?[Cc]onfig"
)


_OFFLINE = re.compile(
    r"(?i)^_?(?:convert|download|preprocess|pre_process|tokenize|upload|export|compress|transcode|crawl|scrape)"
)
_TELLS_WORKERS = re.compile(r"init_fn$|^_?seed_worker$|^worker_(?:init|seed)")


def tells_workers(callee: str) -> bool:
    """Whether a call tells each worker how many they are, as `worker_init_fn` does: it sets nothing."""
    return _TELLS_WORKERS.search(callee) is not None


def prepares_data(name: str) -> bool:
    """Whether a function or class is about data that is prepared once, before any training."""
    return _OFFLINE.search(name) is not None


def pins_something_else(callee: str) -> bool:
    """Whether `pin_memory` of this call or class is a tensor's or an optimizer's: `torch.empty(n, pin_memory=True)`."""
    return _PINS_TENSORS.search(callee) is not None


def is_foreign(callee: str) -> bool:
    """Whether a call (or class) of this name has workers of its own that are not a loader's."""
    return callee in _NAMES or _PATTERN.search(callee) is not None


def passes_through(callee: str) -> bool:
    """Whether a call gives back what it gets, near enough: `int(n)`, `min(8, n)`."""
    return callee in _TRANSPARENT


def only_says(callee: str) -> bool:
    """Whether a call prints, logs or checks: what it gets is not used by it."""
    return callee in _SAYING
