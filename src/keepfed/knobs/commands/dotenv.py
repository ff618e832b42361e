"""Environment files: `.env`, `train.env`. One `NAME=value` a line, perhaps with `export`, quotes, and a remark behind a blank.

The names that count are those of thread variables, and those that say by themselves that they are a setting: what reads the
file is not seen here. Beside a database's address and a port, NUM_WORKERS is a web server's, which reads such files most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keepfed.knobs.commands.command_line import Named, is_of_a_loader, meaning, site
from keepfed.knobs.commands.words import Word, standing
from keepfed.knobs.site import Form, KnobSite, Role
from keepfed.knobs.source import Source

_PAIR = re.compile(
    r"^[ \t]*(?:export[ \t]+|set[ \t]+)?([A-Za-z_][\w.]*)[ \t]*=[ \t]*"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s#][^\r\n]*?)[ \t]*(?:[ \t]#[^\r\n]*)?\r?$",
    re.MULTILINE,
)
_OF_A_SERVER = re.compile(
    r"(?m)^[ \t]*(?:export[ \t]+)?(?:\w+_)?(?:PORT|HOST|DATABASE\w*|SECRET\w*|REDIS\w*|POSTGRES\w*|DJANGO\w*|GUNICORN\w*|API\w*)="
)
_OF_A_TRAINING = re.compile(
    r"(?mi)^[ \t]*(?:export[ \t]+)?"
    r"(?:\w*(?:BATCH|EPOCH|CUDA|LEARNING|DATASET|CHECKPOINT|TRAIN|NPROC|GPU|PIN_MEMORY|PREFETCH|NCCL)\w*|WANDB_\w+|MASTER_(?:ADDR|PORT))[ \t]*="
)


def read(source: Source) -> Iterator[KnobSite]:
    """The settings of an environment file."""
    of_a_server = _OF_A_SERVER.search(source.text) and not _OF_A_TRAINING.search(source.text)
    for pair in _PAIR.finditer(source.text):
        found = meaning(pair[1])
        if found is None or not found.sure:
            continue
        if of_a_server and found.knob == "num_workers" and not is_of_a_loader(pair[1]):
            continue
        start = len(source.text[: pair.start(2)].encode("utf-8", "surrogatepass"))
        value = Word(pair[2], start, start + len(pair[2].encode("utf-8", "surrogatepass")))
        stands = standing(value, found.knob, Form.DOTENV)
        if stands is not None:
            yield site(source, Named(found.knob, pair[1], Role.VARIABLE, pair[1]), stands, Form.DOTENV)
