from __future__ import annotations

from tests.knobs.marked import compare

PARSED = "parser.add_argument('--n_cpu', type=int, default=⟨8|{}⟩, help='cpu threads to use during batch generation')\nopt = parser.parse_args()\nprint(opt)\n"


def test_an_option_that_nothing_reads_is_dead_and_can_still_be_written() -> None:
    (site,) = compare("gan.py", PARSED.format("dead") + "loader = make(opt.batch_size)\n")
    assert site.target == site.span


def test_an_option_is_not_dead_where_its_arguments_leave_the_file() -> None:
    for leaving in (
        "main(opt)",
        "x = vars(opt)",
        "self.opt = opt",
        "def f():\n    return opt",
        "n = getattr(opt, 'n_cpu')",
    ):
        compare("gan.py", PARSED.format("literal") + leaving + "\n")
    compare("gan.py", PARSED.format("literal").replace("opt = parser", "return parser").replace("print(opt)", ""))


def test_an_option_that_is_read_is_alive() -> None:
    compare("gan.py", PARSED.format("literal") + "x = DataLoader(d, num_workers=⟨opt.n_cpu|reference⟩)\n")


def test_a_module_of_options_that_others_import_has_no_dead_ones() -> None:
    declared = "".join(f"parser.add_argument('--o{n}', default={n})\n" for n in range(5))
    compare("options.py", declared + PARSED.format("literal") + "os.environ['CUDA_VISIBLE_DEVICES'] = opt.gpu\n")
