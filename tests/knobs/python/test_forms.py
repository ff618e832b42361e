from __future__ import annotations

import pytest

from keepfed.knobs.site import KnobSite, Role
from tests.knobs.marked import compare

LOADS = "from torch.utils.data import DataLoader\n"
LOADER = "DataLoader(data, num_workers=⟨{}|reference⟩)\n"


def one(text: str) -> KnobSite:
    (site,) = compare("train.py", text)
    return site


def test_every_keyword_of_a_loader_is_a_site_of_its_own() -> None:
    sites = compare(
        "a.py",
        LOADS
        + "x = DataLoader(d, 32, num_workers = ⟨4⟩,  # 8 before\n  pin_memory=⟨True⟩, prefetch_factor=⟨2⟩, persistent_workers=⟨False⟩)",
    )
    assert [site.knob for site in sites] == ["num_workers", "pin_memory", "prefetch_factor", "persistent_workers"]
    assert {site.role for site in sites} == {Role.CALL}
    assert {site.owner for site in sites} == {"DataLoader"}
    assert all(site.target == site.span for site in sites)


@pytest.mark.parametrize(
    "callee",
    [
        "torch.utils.data.DataLoader",
        "StatefulDataLoader",
        "StreamingDataLoader",
        "keepfed.DataLoader",
        "Loader",
        "tnt.ParallelMapper",
        "MNISTDataModule",
        "build_val_loader",
        "self.make_loader",
        "L(build_detection_train_loader)",
        "functools.partial(DataLoader, d)",
    ],
)
def test_loaders_of_all_kinds_are_read(callee: str) -> None:
    assert one(f"x = {callee}(data, batch_size=8, num_workers=⟨4⟩)\n".replace("d)(data,", "d,")).owner in callee


@pytest.mark.parametrize(
    "call",
    [
        "RayStrategy(num_workers=4, use_gpu=True)",
        "RayPlugin(num_workers=4)",
        "ScalingConfig(num_workers=4)",
        "DatasetWriter(path, fields, num_workers=16)",
        "litdata.optimize(fn, inputs, num_workers=8)",
        "Client(n_workers=4)",
        "LocalCluster(n_workers=4)",
        "ProcessPoolExecutor(max_workers=4)",
        "seed_everything(42, workers=True)",
        "uvicorn.run(app, workers=4)",
        "Word2Vec(text, workers=4, epochs=5)",
        "model.fit_generator(gen, workers=4, epochs=3)",
        "SessionOptions(num_threads=4)",
        "cv2.setNumThreads(0)",
        "torch.set_num_threads(4)",
        "torch.empty(3, pin_memory=True)",
        "cv(cv_num_threads=4)",
        "print('num_workers=4', num_workers)",
        "grpc.server(futures.ThreadPoolExecutor(max_workers=10))",
    ],
)
def test_workers_of_other_systems_are_not_reported(call: str) -> None:
    compare("a.py", LOADS + f"x = {call}\n")


def test_the_sixth_argument_of_a_loader_is_its_worker_count() -> None:
    site = one(LOADS + "x = DataLoader(d, 32, True, None, None, ⟨6⟩)  # num_workers\n")
    assert (site.spelling, site.knob) == ("num_workers", "num_workers")


def test_dicts_of_arguments_are_read_in_all_their_spellings() -> None:
    sites = compare(
        "a.py",
        """
cuda_kwargs = {'num_workers': ⟨2⟩, 'pin_memory': ⟨True⟩, 'shuffle': True}
val_kwargs = {**cuda_kwargs, "num_workers": ⟨4⟩}
other = dict(batch_size=4, num_workers=⟨3⟩)
other.update(num_workers=⟨5⟩)
other["num_workers"] = ⟨6⟩
other.setdefault("num_workers", ⟨7⟩)
kwargs = {'num_workers': ⟨args.workers|reference⟩} if args.cuda else {}
texts = {"num_workers": "⟨8⟩"}
""",
    )
    assert {site.role for site in sites} == {Role.CONFIG}
    assert [site.setting for site in sites][:3] == [
        "cuda_kwargs.num_workers",
        "cuda_kwargs.pin_memory",
        "val_kwargs.num_workers",
    ]
    assert sites[-1].quoted


def test_values_for_several_loaders_are_sites_of_their_own() -> None:
    compare(
        "a.py", "x, y = create_loader(d, [None], batch_size=[4, 4], num_workers=[⟨4⟩, ⟨2⟩], is_trains=[True, False])\n"
    )
    sites = compare("a.py", 'c = {"data": {"batch_size": {"train": 8}, "num_workers": {"train": ⟨4⟩, "val": ⟨0⟩}}}\n')
    assert [site.setting for site in sites] == ["c.data.num_workers.train", "c.data.num_workers.val"]
    compare(
        "a.py", 'o = {"num_workers": {"type": "int", "default": ⟨0⟩, "description": "Workers of the dataloader"}}\n'
    )
    compare("a.py", 'o = {"num_workers": {"type": "int", "default": 2}}\ngrid = {"num_workers": [0, 2, 4]}\n')
    compare("a.py", 'job = {"spark_version": "11", "node_type_id": "i3", "num_workers": 2}\n')


def test_the_paths_of_nested_configs_are_those_of_their_files() -> None:
    sites = compare(
        "configs/a.py",
        """
data = dict(samples_per_gpu=2, workers_per_gpu=⟨2⟩, train=dict(type='Coco'))
train_dataloader = dict(
    batch_size=2,
    num_workers=⟨4⟩,
    persistent_workers=⟨True⟩)
test_dataloader = train_dataloader
""",
    )
    assert [site.setting for site in sites] == [
        "data.workers_per_gpu",
        "train_dataloader.num_workers",
        "train_dataloader.persistent_workers",
    ]


def test_config_nodes_are_read_with_the_path_that_yaml_files_write() -> None:
    sites = compare(
        "config.py",
        """
_C = CN()
_C.DATALOADER = CN()
_C.DATALOADER.NUM_WORKERS = ⟨8⟩
_C.DATA.PIN_MEMORY = ⟨True⟩
_C.WORKERS = ⟨4⟩
_C.TRAIN.BATCH_SIZE_PER_GPU = 32
_C.TRAIN.LR = 0.1
""",
    )
    assert [site.setting for site in sites] == ["DATALOADER.NUM_WORKERS", "DATA.PIN_MEMORY", "WORKERS"]
    assert sites[0].role is Role.DEFAULT


def test_fields_constants_and_parameters_hold_defaults() -> None:
    sites = compare(
        "a.py",
        """
NUM_WORKERS = ⟨1⟩ #max(int(os.cpu_count() / 2), 4)

@dataclass
class TrainConfig:
    num_workers_dataloader: int=⟨2⟩
\tworkers_off: int = 3
    loader_workers: Optional[int] = field(
        default=⟨0⟩, metadata={"help": "8 would be nice"})
    eval_num_workers: int = Field(⟨6⟩, ge=0)
    dataloader_num_workers: int = None

class Exp:
    def __init__(self):
        self.data_num_workers = ⟨4⟩

def make(data, *, num_workers: int = ⟨12⟩, pin_memory=⟨False⟩, n=3):
    return data
""".replace("\tworkers_off: int = 3\n", ""),
    )
    assert [site.role.value for site in sites] == ["name", "default", "option", "default", "name", "default", "default"]
    assert sites[1].owner == "TrainConfig"


OPTIONS = [
    "parser.add_argument('--num_workers', type=int, default=⟨4⟩, help='2 or 4 (default: 8)')",
    "parser.add_argument('--num_workers', default=⟨4⟩, help='2', type=int)",
    "parser.add_argument(\n    '--num_workers',\n    help='8 of them',\n    type=int,\n    default=⟨4⟩,\n)",
    "parser.add_argument('-nw', '--num_workers', default='⟨4⟩')",
    "parser.add_argument('--threads_for_data', dest='num_workers', default=⟨4⟩)",
    "parser.add_option('--num-workers', type='int', default=⟨4⟩)",
    "p.add('--num-workers', env_var='N', default=⟨4⟩)",
    "flags.DEFINE_integer('num_workers', ⟨4⟩, 'how many')",
    "flags.DEFINE_integer(name='num_workers', default=⟨4⟩, help='8')",
    "flags.DEFINE_integer('num_workers', default=⟨4⟩, help='how many')",
    "group.add_argument('--num_workers', nargs='?', const=2, default=⟨4⟩)",
]


@pytest.mark.parametrize("declared", OPTIONS)
def test_an_options_default_is_found_wherever_it_stands(declared: str) -> None:
    site = one(f"{declared}\n")
    assert (site.role, site.setting) == (Role.OPTION, "num_workers")


@pytest.mark.parametrize(
    "declared",
    [
        "parser.add_argument('--num_workers', type=int)",
        "parser.add_argument('--num_workers', type=int, default=None, help='4')",
        "parser.add_argument('--num_workers', default=argparse.SUPPRESS)",
        "parser.add_argument('--pin-memory', action='store_true')",
        "parser.add_argument('--cv_num_threads', default=4, help='data loading')",
    ],
)
def test_an_option_without_a_default_sets_nothing(declared: str) -> None:
    compare("a.py", declared + "\n")


def test_arguments_that_are_written_out_in_a_list_are_flags() -> None:
    sites = compare(
        "a.py",
        """
subprocess.run(["python", "train.py", "--num_workers", "⟨4⟩", "--batch_size", "8"])
cfg.merge_from_list(["DATALOADER.NUM_WORKERS", ⟨0⟩, "SOLVER.LR", 0.1])
names = ["num_workers", "batch_size", "workers", "4"]
""",
    )
    assert [(site.role.value, site.setting) for site in sites] == [
        ("flag", "num_workers"),
        ("config", "DATALOADER.NUM_WORKERS"),
    ]


def test_click_typer_and_fastargs_declare_options_too() -> None:
    sites = compare(
        "a.py",
        """
@click.option('--batch', type=int, required=True)
@click.option('--workers',      help='DataLoader worker processes', metavar='INT', type=click.IntRange(min=1), default=⟨3⟩, show_default=True)
def main(**kwargs): ...

def other(num_workers: int = typer.Option(⟨4⟩, "--num-workers", help="how many of 8")): ...

Section('training', 'Hyperparameters').params(
    lr=Param(float, 'The rate', required=True),
    num_workers=Param(int, 'The number of workers', default=⟨8⟩),
)
""",
    )
    assert [site.setting for site in sites] == ["workers", "num_workers", "training.num_workers"]
    assert {site.role for site in sites} == {Role.OPTION}


def test_environment_variables_are_sites_where_they_are_set() -> None:
    sites = compare(
        "a.py",
        """
os.environ["OMP_NUM_THREADS"] = "⟨4⟩"
os.environ.setdefault('MKL_NUM_THREADS', '⟨2⟩')
os.putenv("OPENBLAS_NUM_THREADS", "⟨1⟩")
os.environ.update(MKL_NUM_THREADS="⟨3⟩")
env = {"NUMEXPR_NUM_THREADS": "⟨1⟩", "PATH": "x"}
n = os.environ.get("OMP_NUM_THREADS", "8")
if "OMP_NUM_THREADS" not in os.environ: pass
""",
    )
    assert {site.knob for site in sites} == {"threads_env"}
    assert {site.role for site in sites} == {Role.VARIABLE}
    assert all(site.quoted for site in sites)


def test_a_name_that_an_environment_variable_is_set_from_is_one_as_well() -> None:
    sites = compare(
        "a.py",
        """
omp_num_threads = ⟨1⟩
warn(f'setting it to {omp_num_threads}')
os.environ['OMP_NUM_THREADS'] = ⟨str(omp_num_threads)|expression⟩
mkl_num_threads = 3
""",
    )
    assert [site.knob for site in sites] == ["threads_env", "threads_env"]


def test_a_constant_that_only_an_environment_variable_takes_sets_threads() -> None:
    sites = compare(
        "a.py",
        """
NUM_THREADS = ⟨4⟩
THREADS_PER_PROCESS = ⟨3⟩
os.environ["OMP_NUM_THREADS"] = ⟨str(NUM_THREADS)|expression⟩
os.environ["MKL_NUM_THREADS"] = ⟨str(THREADS_PER_PROCESS)|expression⟩
""",
    )
    assert {site.knob for site in sites} == {"threads_env"}


def test_a_reference_names_what_it_stands_for() -> None:
    site = one(LOADS + "x = DataLoader(d, num_workers=⟨args.loader.workers|reference⟩)\n")
    assert (site.refers_to, site.setting, site.target) == ("args.loader.workers", "workers", None)
    assert (
        one("x = DataLoader(num_workers=⟨cfg['data']['num_workers']|reference⟩)\n").refers_to == "cfg.data.num_workers"
    )
    assert one("x = DataLoader(num_workers=⟨cfg.get('num_workers')|reference⟩)\n").refers_to == "cfg.num_workers"


@pytest.mark.parametrize(
    ("expression", "live"),
    [
        ("min([os.cpu_count(), batch if batch > 1 else 0, 8])", "8"),
        ("min(os.cpu_count(), 16)", "16"),
        ("max(1, min(4, os.cpu_count() - 1))", "4"),
        ("0 if os.name == 'nt' else 4", "4"),
        ("4 if sys.platform != 'win32' else 0", "4"),
        ("0 if sys.platform.startswith('win') else 6", "6"),
        ("4 if torch.cuda.is_available() else 0", "4"),
        ("0 if args.debug else 12", "12"),
        ("int(os.environ.get('N_WORKERS', '5'))", "5"),
        ("cfg.get('num_workers', 7)", "7"),
        ("getattr(args, 'workers', 3)", "3"),
        ("args.workers or 9", "9"),
        ("int(min(os.cpu_count(), 10))", "10"),
        ("0 if device.type == 'cpu' else 4 if device.type == 'cuda' else 2", "4"),
        ("0 if os.name == 'nt' or device == 'cpu' else min(4, os.cpu_count() or 2)", "4"),
        ("4 if args.num_workers is None else args.num_workers", "4"),
        ("os.cpu_count() or 4", None),
        ("os.cpu_count() // 2", None),
        ("args.workers // ngpus", None),
        ("4 * num_gpus", None),
        ("2 if small else 8", None),
        ("min(4, 8)", None),
        ("os.cpu_count()", None),
        ("max(1, os.cpu_count() // 2)", None),
    ],
)
def test_in_an_expression_only_the_cap_or_the_live_branch_may_change(expression: str, live: str | None) -> None:
    text = f"num_workers = ⟨{expression}|expression⟩\n"
    site = one(text)
    if live is None:
        assert site.target is None
        assert site.refusal
    else:
        assert site.target is not None
        plain = text.replace("⟨", "").replace("|expression⟩", "")
        assert plain[site.target.start : site.target.end] == live


def test_prefetching_only_with_workers_has_one_live_branch() -> None:
    site = one("x = DataLoader(prefetch_factor=⟨2 if num_workers > 0 else None|expression⟩)\n")
    assert site.target is not None
    assert site.target.end - site.target.start == 1


def test_an_uncertain_name_counts_where_its_value_goes_into_a_loader() -> None:
    compare(
        "a.py",
        LOADS
        + """
parser.add_argument('-j', '--workers', default=⟨4⟩, type=int)
args = parser.parse_args()
args.workers = ⟨int((args.workers + n - 1) / n)|expression⟩
nw = ⟨args.workers|reference⟩
x = DataLoader(d, num_workers=⟨nw|reference⟩)
""",
    )


def test_an_uncertain_name_counts_through_functions_of_the_file() -> None:
    compare(
        "a.py",
        LOADS
        + """
def make(path, workers=⟨8⟩):
    nw = ⟨min([os.cpu_count(), workers])|expression⟩
    return DataLoader(d, num_workers=⟨nw|reference⟩)
parser.add_argument('--n_cpu', default=⟨4⟩)
opt = parser.parse_args()
make('train', opt.n_cpu)
""",
    )


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio\nnum_workers = args.n or config['crawler']['num_workers']\n",
        "parser.add_argument('--num-workers', default=24, help='workers that extract frames')\n",
        "class Agent(AgentLoopConfig):\n    pass\nclass AgentLoopConfig:\n    num_workers: int = 8\n",
        "convert_to_video(path, num_workers=4)\n",
        "class DownloadConfig:\n    num_workers: int = 4\n",
        "f = partial(seed_worker, num_workers=args.num_workers, rank=0)\n",
        "litdata.processing.DataProcessor(out, num_workers=os.cpu_count())\n",
        "edge = knn_graph(x, k, num_workers=4)\n",
        "workers = [Process(target=f) for f in fs]\n",
        "parser.add_argument('--workers', default=4, help='web server processes')\nserve(args.workers)\n",
        "parser.add_argument('--num_workers', default=4)\nargs = parser.parse_args()\nwith Pool(args.num_workers) as pool: pass\n",
        "parser.add_argument('--num-workers', default=1)\npool = mp.Pool(checked(args.num_workers, int))\n",
        "parser.add_argument('--num-workers', default=1, help='feature-extracting processes or dataset chunks')\n",
        "pin_memory = device != 'cpu'\nx.to('cpu', pin_memory=pin_memory)\n",
        "NUM_WORKERS = 8\nwith ProcessPoolExecutor(max_workers=NUM_WORKERS) as pool: pass\n",
        "num_workers = 4\nfor i in range(num_workers):\n    Process(target=f).start()\n",
        "info = get_worker_info()\nnum_workers = info.num_workers\n",
        "def shard(worker_id, num_workers=1): pass\n",
        "opt.cv_num_threads = 4\n",
        "from ray.train import Trainer\nt = Trainer(backend='torch', num_workers=2, use_gpu=True, batch_size=4)\n",
        "parser.add_argument('--num-workers', default=8, help='parallel workers for processing files')\n",
        "num_workers = args.num_workers > 0\nn_workers = not workers\n",
        "x = FileDownloader(urls, batch_size=4, workers=8, num_workers=3)\n",
        "parser.add_argument('--num-workers', default=8, help='processes that download the data')\n",
        "config = {'env': 'CartPole', 'num_workers': 2}\nimport ray\n",
        "nW = 4\nnum_windows = nW\n",
        "num_workers = dist.get_world_size()\n",
        "class World:\n    def __init__(self):\n        self.num_workers = self.num_nodes * self.num_ranks\n",
        "offload = {'offload_optimizer': {'device': 'cpu', 'pin_memory': True}}\n",
    ],
)
def test_a_name_alone_is_no_reason(text: str) -> None:
    compare("a.py", text)


def test_one_name_can_be_a_loaders_and_rays_in_one_file() -> None:
    compare(
        "a.py",
        LOADS
        + """
import ray
class Model:
    def train_dataloader(self):
        return DataLoader(self.d, num_workers=⟨1⟩, pin_memory=⟨True⟩)
def train(config, epochs=10, num_workers=1):
    trainer = Trainer(plugins=[RayPlugin(num_workers=num_workers)])
def tune_it(num_workers=1):
    trainable = tune.with_parameters(train, num_workers=num_workers)
parser.add_argument("--num-workers", type=int, help="Number of training workers.", default=1)
args = parser.parse_args()
num_workers = 1 if args.smoke_test else args.num_workers
tune_it(num_workers)
""",
    )


def test_a_file_of_settings_needs_no_reader() -> None:
    compare("config.py", "batch_size = 32\nlr = 0.1\nepochs = 9\nworkers = ⟨8⟩\nnum_threads = 4\n")
    compare("other.py", "batch_size = 32\nlr = 0.1\nepochs = 9\nworkers = 8\nstart(workers)\n")


def test_an_option_that_is_overruled_in_an_object_is_a_setting_of_it() -> None:
    text = (
        "class T:\n    def setup(self):\n        self.args.workers = ⟨0⟩\n        self.epochs, self.batch_size = 3, 4\n"
    )
    site = one(text)
    assert (site.role, site.setting, site.owner) == (Role.CONFIG, "workers", "self.args")


def test_a_function_that_is_called_like_a_setting_holds_its_value() -> None:
    compare("a.py", 'def get_dataloader_workers():\n    """Use 4 processes."""\n    return ⟨4⟩\n')
    (site,) = compare(
        "a.py", "def get_num_workers():\n    return ⟨0 if sys.platform.startswith('win') else 4|expression⟩\n"
    )
    assert site.target is not None
    compare("a.py", "class A:\n    @property\n    def num_workers(self):\n        return self._pool.size\n")


def test_a_value_goes_through_functions_that_check_it() -> None:
    compare(
        "a.py",
        LOADS
        + "p.add_argument('--workers', default=⟨4⟩)\nDataLoader(d, num_workers=⟨resolved(args.workers)|expression⟩)\n",
    )
    compare(
        "a.py",
        "def make(a, pin_memory=⟨True⟩):\n    return MultiThreadedAugmenter(a, 4, pin_memory=⟨pin_memory|reference⟩)\n",
    )


def test_a_name_counts_that_goes_where_an_uncertain_one_is_believed() -> None:
    compare("a.py", "workers = ⟨8⟩\nd = SimulatedSet(path, batch_size=4, workers=⟨workers|reference⟩)\n")


def test_settings_among_a_training_programs_options_are_believed() -> None:
    compare(
        "options.py",
        """
class BaseOptions:
    def initialize(self, parser):
        parser.add_argument('--batch_size', type=int, default=1)
        parser.add_argument('--serial_batches', action='store_true')
        parser.add_argument('--nThreads', default=⟨2⟩, type=int, help='# threads for loading data')
        parser.add_argument('--cv_num_threads', default=4)
        return parser
""",
    )


def test_a_name_that_says_nothing_counts_where_only_a_loader_reads_it() -> None:
    compare("a.py", LOADS + "cores = ⟨6⟩\nprint(cores)\n" + LOADER.format("cores"))
    compare("a.py", LOADS + "bsz = len(x)\nDataLoader(d, num_workers=⟨min(n_gpus, 4)|expression⟩)\nn_gpus = 2\n")
    compare("a.py", LOADS + "batch = 6\nDataLoader(d, batch, num_workers=⟨batch|reference⟩)\n")


def test_what_tells_workers_their_number_does_not_make_it_somebody_elses() -> None:
    compare(
        "a.py",
        """
def build(opt, rank):
    num_workers = ⟨opt['num_worker_per_gpu'] * 2|expression⟩
    args = dict(dataset=d, batch_size=1, num_workers=⟨num_workers|reference⟩)
    args['worker_init_fn'] = partial(worker_init_fn, num_workers=num_workers, rank=rank)
    args['pin_memory'] = ⟨opt.get('pin_memory', False)|expression⟩
    return torch.utils.data.DataLoader(**args)
""",
    )


def test_pinned_tensors_are_no_loaders() -> None:
    compare(
        "a.py",
        """
def to_device(x, pin_memory=False):
    return x.new_empty(3, pin_memory=pin_memory)
class Tokenizer:
    def encode(self, text, *, device=None, pin_memory: bool = False): ...
def make(dataset, batch_size=4, pin_memory=⟨False⟩): ...
strategy = CPUOffloadPolicy(pin_memory=True)
""",
    )


def test_a_name_that_says_nothing_is_followed_into_an_expression() -> None:
    compare(
        "a.py",
        LOADS
        + """
parser.add_argument('-cpu', '--cpu_num', default=⟨10⟩, type=int)
args = parser.parse_args()
x = DataLoader(d, batch_size=4, num_workers=⟨max(1, args.cpu_num//2)|expression⟩)
""",
    )


def test_comments_docstrings_and_help_texts_are_never_read() -> None:
    compare(
        "a.py",
        '''
"""Run with num_workers=4."""
# num_workers = 8
def f():
    """DataLoader(d, num_workers=4)"""
    log.info("num_workers=4 is few")
    # parser.add_argument('--num_workers', default=4)
print(f"num_workers: {num_workers}")
''',
    )
