from __future__ import annotations

import pytest

from tests.knobs.marked import compare


@pytest.mark.parametrize(
    "text",
    [
        "OMP_NUM_THREADS=⟨4⟩\nNUM_WORKERS=⟨8⟩\n",
        "export OMP_NUM_THREADS=⟨4⟩   # one for each\n",
        "OMP_NUM_THREADS=\"⟨4⟩\"\n  SHM_SIZE='⟨16gb⟩'\n",
        "NUM_WORKERS = ⟨8⟩\nDATALOADER_PIN_MEMORY=⟨true⟩",
        "# NUM_WORKERS=8\nWEB_WORKERS=4\nWORKERS=4\nNUM_WORKERS=\n",
        "PORT=80\nNUM_WORKERS=4\nOMP_NUM_THREADS=⟨1⟩\n",
        "WANDB_API_KEY=x\nNUM_WORKERS=⟨4⟩\n",
        "API_KEY=x\nNUM_WORKERS=⟨4⟩\nPIN_MEMORY=⟨true⟩\n",
        "MASTER_PORT=29500\nNUM_WORKERS=⟨4⟩\n",
        "PORT=80\nBATCH_SIZE=4\nNUM_WORKERS=⟨4⟩\n",
        "NUM_WORKERS=⟨${CORES}|reference⟩\n",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_exactly_the_settings_of_an_environment_file_are_found(text: str, end: str) -> None:
    compare("train.env", text.replace("\n", end))
