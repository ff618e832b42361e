from __future__ import annotations

import pytest

from keepfed.knobs.python import parsing
from keepfed.knobs.python.regrow import regrown
from tests.knobs.marked import compare, sites_in

OPTION = "parser.add_argument('--number_workers', '-nw', '--num_workers', type=int, default=⟨4⟩)\nargs = parser.parse_args()\n"
KWARGS = "kw = {'num_workers': ⟨args.number_workers|reference⟩, 'pin_memory': ⟨True⟩} if args.cuda else {}\n"


@pytest.mark.parametrize(
    "broken",
    [
        "data = [d.cuda(async=True) for d in data]\n",
        "print 'Training', epoch\n",
        "print >>log, 'num_workers=8'\n",
        "try:\n    pass\nexcept IOError, e:\n    raise E, 'x'\n",
        "exec 'num_workers = 8' in scope\n",
        "mode = 0777\n",
        "x = `y` <> 3L\n",
        "if x:\n\ty = 1\n        z = 2\n",
        "from {{ module }} import y\n",
        "def f(:\n    pass\n",
        "<<<<<<< HEAD\n",
        "x = (1,\n",
    ],
)
def test_what_todays_python_refuses_is_read_all_the_same(broken: str) -> None:
    compare("main.py", OPTION + KWARGS + "loader = DataLoader(data, batch_size=4, shuffle=True, **kw)\n" + broken)


def test_every_form_is_read_from_a_regrown_tree() -> None:
    compare(
        "old.py",
        """
print "python 2"
import os
NUM_WORKERS = ⟨1⟩  # max(2, 3)
class Config(object):
    num_workers = ⟨2⟩
    loader_workers: int = ⟨3⟩
    def __init__(self, path, num_workers=⟨4⟩, *args, **kwargs):
        self.num_workers = ⟨num_workers|reference⟩
    @property
    def loader(self):
        return DataLoader(self.d, batch_size=4, num_workers=⟨self.num_workers|reference⟩)
a, num_workers = 3, ⟨5⟩
_C.DATALOADER.NUM_WORKERS = ⟨6⟩
kwargs['num_workers'] = ⟨7⟩
os.environ["OMP_NUM_THREADS"] = "⟨8⟩"
nw = ⟨min([os.cpu_count(), 3 if b > 1 else 0, 9])|expression⟩
if __name__ == '__main__':
    for x in y:
        try:
            loader = DataLoader(d, num_workers=⟨nw|reference⟩, pin_memory=⟨not x|expression⟩)
        finally:
            pool = Pool(num_workers=4)
""",
    )


def test_caps_are_found_in_a_regrown_tree() -> None:
    site = compare("old.py", "print 1\nnum_workers = ⟨0 if os.name == 'nt' else 4|expression⟩\n")[0]
    assert site.target is not None
    assert site.target.end == site.span.end


def test_tabs_and_several_statements_on_a_line_are_read() -> None:
    compare("a.py", "class C:\n\tbatch_size=2; num_workers=⟨4⟩; lr=1\n\tpin_memory\t=\t⟨True⟩\n")


@pytest.mark.parametrize(
    "text", ["(" * 5000, "x = " + "-" * 20000 + "1", "[" * 300 + "num_workers", "f(" * 150 + "num_workers=4"]
)
def test_deep_nesting_ends_in_no_error(text: str) -> None:
    sites_in("a.py", text + "\nnum_workers = 4\n")


def test_long_sums_are_walked_without_recursion() -> None:
    compare("a.py", "x = " + " + ".join(["1"] * 3000) + "\nloader = DataLoader(d, num_workers=⟨4⟩)\n")


FORMS = """
import argparse, os
NUM_WORKERS = 4
class Config(Base):
    num_workers: int = 2
    pin_memory = True
    def __init__(self, path, workers=8, *, prefetch_factor=2, **kwargs):
        super().__init__(path, num_workers=workers)
        self.loader = DataLoader(path, 4, num_workers=self.num_workers, pin_memory=(self.device != "cpu"))
@click.option("--num-workers", default=3, help="how many")
def main(**kwargs):
    kw = {**kwargs, "num_workers": 4, "persistent_workers": kwargs.get("n", 1) > 0}
    a, num_workers = 1, min([os.cpu_count(), 8]) if x is not None else 2
    with open(a) as f:
        for num in range(3):
            try:
                lambda: DataLoader(d, num_workers=not 1 or num_workers)
            except Exception:
                os.environ["OMP_NUM_THREADS"] = "2"
    p.add_argument("-j", "--workers", type=int,
                   default=5, help="data" " loading")
    return [DataLoader(d, num_workers=-1), dict(num_workers=cfg["data"]["num_workers"] // 2), f"{num_workers}"]
"""


def test_both_parsers_give_the_same_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = sites_in("a.py", FORMS)
    monkeypatch.setattr(parsing, "_tree", lambda source, starts: regrown(source.utf8, starts))
    assert sites_in("a.py", FORMS) == exact
    assert len(exact) > 15
