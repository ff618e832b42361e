from __future__ import annotations

import pytest

from tests.knobs.marked import compare


@pytest.mark.parametrize(
    "text",
    [
        "NUM_WORKERS ?= ⟨8⟩\ntrain:\n\tpython train.py --num-workers ⟨$(NUM_WORKERS)|reference⟩\n",
        "NUM_WORKERS := ⟨8⟩  # eight\ntrain: data\n\t@python train.py --lr 1 \\\n\t\t-j ⟨${NUM_WORKERS}|reference⟩\n",
        "WORKERS=⟨8⟩\ntrain:\n\t$(PYTHON) train.py --workers ⟨$(WORKERS)|reference⟩\n",
        "WORKERS=8\nserve:\n\tgunicorn --workers $(WORKERS) app:app\n",
        "NUM_WORKERS=8\nserve:\n\tgunicorn --workers $(NUM_WORKERS) app:app\n",
        "export OMP_NUM_THREADS=⟨4⟩\n",
        "OMP_NUM_THREADS=⟨12⟩\ntrain:\n\t@OMP_NUM_THREADS=⟨$(OMP_NUM_THREADS)|reference⟩ torchrun train.py -- --x=1\n",
        "SHM = ⟨64gb⟩\nrun:\n\tdocker run --gpus all --shm-size=⟨$(SHM)|reference⟩ $(IMAGE) bash\n",
        "run:\n\tdocker run --shm-size=⟨64gb⟩ $(IMAGE) && echo $$HOME\n",
        "run:\n\t-docker run --ipc=host --shm-size=⟨64gb|overridden⟩ $(IMAGE)\n",
        "build:\n\tmake -j 8\n\t$(MAKE) -j8\n\tcmake --build . -j8\n",
        "help:\n\t@echo 'make train NUM_WORKERS=8  --num_workers 8'\n",
        "# NUM_WORKERS = 8\ntrain:\n\t# python train.py --num_workers 8\n\tpython train.py --num_workers ⟨4⟩\n",
        "train: ; python train.py --num_workers ⟨3⟩\n",
        "train: NUM_WORKERS = ⟨2⟩\n",
        "ifdef CI\nNUM_WORKERS = ⟨2⟩\nelse\n  NUM_WORKERS = ⟨4⟩\nendif\n",
        "define RUN\npython train.py --num_workers ⟨4⟩\nendef\n",
        "train:\n\tOMP_NUM_THREADS=⟨1⟩ python train.py \\\n\t  --num_workers ⟨4⟩ \\\n\n.PHONY: train\n",
        "NUM_WORKERS = ⟨$(shell nproc)|expression⟩\ntrain:\n\tpython train.py --num_workers ⟨$(NUM_WORKERS)|reference⟩\n",
        "NUM_WORKERS = $(shell nproc)\n",
        'RUN=X="$(HOME)/x" python3 -m tool -v run data.num_workers=⟨0⟩ optim.epochs=1 \\\n\tlogging.level=1\n',
        "FLAGS := --num-workers ⟨4⟩ --lr 1  # as always\n",
        "SOURCES = a.c b.c \\\n  c.c\nNUM_WORKERS = ⟨3⟩\n",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_exactly_the_settings_of_a_makefile_are_found(text: str, end: str) -> None:
    compare("Makefile", text.replace("\n", end))
