from __future__ import annotations

import pytest

from tests.knobs.marked import compare


@pytest.mark.parametrize(
    "text",
    [
        "FROM x\nENV OMP_NUM_THREADS=⟨1⟩\n",
        "ENV OMP_NUM_THREADS ⟨8⟩\n",
        'ENV A=1 OMP_NUM_THREADS="⟨1⟩" MKL_NUM_THREADS=⟨2⟩\n',
        "ENV A=1 \\\n    # a remark in the middle\n    OMP_NUM_THREADS=⟨1⟩ \\\n\n    MKL_NUM_THREADS=⟨2⟩\nENV OPENBLAS_NUM_THREADS=⟨3⟩\n",
        "ARG NUM_WORKERS=⟨4⟩\nENV NUM_WORKERS=⟨$NUM_WORKERS|reference⟩\n",
        "ENV NUM_WORKERS=4\nCMD gunicorn --workers $NUM_WORKERS app:app\n",
        "ENV NUM_WORKERS=⟨4⟩\nCMD python train.py --num_workers ⟨$NUM_WORKERS|reference⟩\n",
        'CMD ["python", "train.py", "--workers", "⟨8⟩"]\n',
        'CMD ["python", "train.py", \\\n     "--num_workers=⟨8⟩"]\n',
        'ENTRYPOINT ["python", "train.py"]\nCMD ["--workers", "⟨8⟩"]\n',
        'ENV NUM_WORKERS=4 DATALOADER_WORKERS=⟨2⟩\nCMD ["gunicorn", "app:app"]\n',
        'ENTRYPOINT ["gunicorn"]\nCMD ["--workers", "8", "--num-workers", "3"]\n',
        'CMD ["sh", "-c", "python train.py --num_workers ${N:-⟨4⟩}"]\n',
        "ENTRYPOINT python train.py --num_workers ⟨4⟩\n",
        "RUN make -j8 && cmake --build . -j 8\nRUN MAX_JOBS=4 OMP_NUM_THREADS=4 pip install x\n",
        "RUN --mount=type=cache,target=/x python train.py --num_workers ⟨4⟩\n",
        "RUN <<EOF\npython train.py --num_workers ⟨4⟩\nEOF\nENV OMP_NUM_THREADS=⟨1⟩\n",
        "# ENV OMP_NUM_THREADS=4\nLABEL num_workers=4\n",
        "# escape=`\nENV A=1 `\n  OMP_NUM_THREADS=⟨4⟩\n",
        "env omp=1\nenv OMP_NUM_THREADS=⟨4⟩\n",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_exactly_the_settings_of_a_dockerfile_are_found(text: str, end: str) -> None:
    compare("Dockerfile", text.replace("\n", end))
