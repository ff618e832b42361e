"""A missing setting beside its neighbours, in the style found there; read again, it is there, and everything else is as before."""

from __future__ import annotations

import pytest

from keepfed.edit.choosing import Place
from keepfed.edit.inserting.adding import added
from keepfed.edit.replacement import EditRefused, applied, reversed_edits
from keepfed.knobs.knob import wish
from keepfed.knobs.scan import scan_files
from keepfed.knobs.walk import Bytes


def insert(name: str, text: str, asked: str, line: int | None = None) -> str:
    """The text with the addition. What was added can always be taken out again."""
    data = text.encode()
    scanned = scan_files([Bytes(name, data, named=True)])
    place = None if line is None else Place(name, line)
    knob, _, value = asked.partition("=")
    edits = added(wish(knob, value), scanned.sites, scanned.files, place=place, named=[name])
    assert edits, "nothing was found to add it to"
    after = applied(data, edits)
    assert applied(after, reversed_edits(edits)) == data
    return after.decode()


IMPORT = "from torch.utils.data import DataLoader\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("DataLoader(data, num_workers=4)\n", "DataLoader(data, prefetch_factor=8, num_workers=4)\n"),
        (
            "DataLoader(data, num_workers=(4), pin_memory=True)\n",
            None,
        ),
        (
            "DataLoader(\n    data,\n    num_workers=4,  # not more\n    pin_memory=True,\n)\n",
            "DataLoader(\n    data,\n    num_workers=4,  # not more\n    prefetch_factor=8,\n    pin_memory=True,\n)\n",
        ),
        (
            "DataLoader(\n\tdata,\n\tnum_workers=4\n)\n",
            "DataLoader(\n\tdata,\n\tprefetch_factor=8,\n\tnum_workers=4\n)\n",
        ),
        (
            "kwargs = {'num_workers': 4, 'pin_memory': True}\nDataLoader(data, **kwargs)\n",
            "kwargs = {'prefetch_factor': 8, 'num_workers': 4, 'pin_memory': True}\nDataLoader(data, **kwargs)\n",
        ),
    ],
)
def test_a_keyword_stands_beside_the_keywords_of_the_call(before: str, after: str | None) -> None:
    if after is None:
        with pytest.raises(EditRefused):
            insert("train.py", IMPORT + before, "prefetch_factor=8")
    else:
        assert insert("train.py", IMPORT + before, "prefetch_factor=8") == IMPORT + after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("DataLoader(data)\n", "DataLoader(data, num_workers=4)\n"),
        ("DataLoader(data,)\n", "DataLoader(data, num_workers=4,)\n"),
        ("DataLoader(data, shuffle=(True))\n", "DataLoader(data, num_workers=4, shuffle=(True))\n"),
        (
            "DataLoader(\n    data,\n    batch_size=8,\n)\n",
            "DataLoader(\n    data,\n    batch_size=8,\n    num_workers=4,\n)\n",
        ),
    ],
)
def test_a_loader_without_any_setting_gets_one(before: str, after: str) -> None:
    # Its file mentions a setting in a remark, as it is read at all only then.
    text = "# num_workers\n" + IMPORT
    assert insert("train.py", text + before, "num_workers=4") == text + after


def test_only_the_loader_of_that_line_gets_it() -> None:
    text = "# num_workers\n" + IMPORT + "a = DataLoader(one)\nb = DataLoader(two)\n"
    assert insert("train.py", text, "num_workers=4", line=4).endswith(
        "a = DataLoader(one)\nb = DataLoader(two, num_workers=4)\n"
    )


def test_no_prefetching_is_added_where_there_are_no_workers() -> None:
    with pytest.raises(EditRefused, match="ValueError"):
        insert("train.py", IMPORT + "DataLoader(data, num_workers=0)\n", "prefetch_factor=4")


@pytest.mark.parametrize(
    ("name", "before", "asked", "after"),
    [
        (
            "c.yaml",
            "data:\n  num_workers: 4  # eight are too many\n  batch_size: 2",
            "prefetch_factor=8",
            "data:\n  num_workers: 4  # eight are too many\n  prefetch_factor: 8\n  batch_size: 2",
        ),
        (
            "c.yaml",
            "train:\r\n  - num_workers: 4\r\n    batch_size: 2\r\n",
            "pin_memory=true",
            "train:\r\n  - num_workers: 4\r\n    pin_memory: true\r\n    batch_size: 2\r\n",
        ),
        (
            "c.yaml",
            "dataloader: {num_workers: 4, batch_size: 2}\n",
            "pin_memory=true",
            "dataloader: {pin_memory: true, num_workers: 4, batch_size: 2}\n",
        ),
        (
            "c.json",
            '{\n  "data": {\n    "batch_size": 2,\n    "num_workers": 4\n  }\n}\n',
            "prefetch_factor=8",
            '{\n  "data": {\n    "batch_size": 2,\n    "prefetch_factor": 8,\n    "num_workers": 4\n  }\n}\n',
        ),
        (
            "c.json",
            '{\r\n\t"num_workers": "4",\r\n\t"batch_size": 2\r\n}',
            "prefetch_factor=8",
            '{\r\n\t"num_workers": "4",\r\n\t"prefetch_factor": "8",\r\n\t"batch_size": 2\r\n}',
        ),
        (
            "c.toml",
            "[data]\nnum_workers = 4   # aligned\nbatch_size  = 2\n",
            "pin_memory=true",
            "[data]\nnum_workers = 4   # aligned\npin_memory = true\nbatch_size  = 2\n",
        ),
        (
            "hf.yaml",
            "dataloader_num_workers: 4\noutput_dir: x\n",
            "pin_memory=true",
            "dataloader_num_workers: 4\ndataloader_pin_memory: true\noutput_dir: x\n",
        ),
        (
            "run.sh",
            "python train.py \\\n    --num-workers 8 \\\n    --lr 0.1\n",
            "prefetch_factor=4",
            "python train.py \\\n    --num-workers 8 \\\n    --prefetch-factor 4 \\\n    --lr 0.1\n",
        ),
        (
            "run.sh",
            "python train.py --num_workers=8 --lr 0.1\n",
            "prefetch_factor=4",
            "python train.py --num_workers=8 --prefetch_factor=4 --lr 0.1\n",
        ),
        (
            "run.sh",
            "#!/bin/sh\nexport OMP_NUM_THREADS=4\npython train.py\n",
            "MKL_NUM_THREADS=1",
            "#!/bin/sh\nexport OMP_NUM_THREADS=4\nexport MKL_NUM_THREADS=1\npython train.py\n",
        ),
        (
            "Dockerfile",
            'FROM x\nENV OMP_NUM_THREADS=4 \\\n    A=1\nCMD ["python", "train.py"]\n',
            "MKL_NUM_THREADS=1",
            'FROM x\nENV OMP_NUM_THREADS=4 \\\n    MKL_NUM_THREADS=1 \\\n    A=1\nCMD ["python", "train.py"]\n',
        ),
        (
            "train.py",
            'import os\n\nos.environ["OMP_NUM_THREADS"] = "4"\nimport torch\n',
            "MKL_NUM_THREADS=1",
            'import os\n\nos.environ["OMP_NUM_THREADS"] = "4"\nos.environ["MKL_NUM_THREADS"] = "1"\nimport torch\n',
        ),
        (
            "train.py",
            "import os\nos.environ.setdefault('OMP_NUM_THREADS', '4')\n",
            "MKL_NUM_THREADS=1",
            "import os\nos.environ.setdefault('OMP_NUM_THREADS', '4')\nos.environ.setdefault('MKL_NUM_THREADS', '1')\n",
        ),
        (
            "c.ini",
            "[a]\r\nnum_workers = 4 ; x\r\nb = 2\r\n",
            "prefetch_factor=8",
            "[a]\r\nnum_workers = 4 ; x\r\nprefetch_factor = 8\r\nb = 2\r\n",
        ),
        (
            "coco.py",
            "data = dict(\n    samples_per_gpu=2,\n    workers_per_gpu=2,\n    train=dict(type='x'))\n",
            "persistent_workers=true",
            "data = dict(\n    samples_per_gpu=2,\n    workers_per_gpu=2,\n    persistent_workers=True,\n    train=dict(type='x'))\n",
        ),
        (
            "Makefile",
            "a:\n\tpython t.py --num-workers 4 -x\n",
            "prefetch_factor=8",
            "a:\n\tpython t.py --num-workers 4 --prefetch-factor 8 -x\n",
        ),
        (
            "t.bat",
            "set OMP_NUM_THREADS=4\r\npython t.py\r\n",
            "MKL_NUM_THREADS=2",
            "set OMP_NUM_THREADS=4\r\nset MKL_NUM_THREADS=2\r\npython t.py\r\n",
        ),
        (
            "t.ps1",
            '$env:OMP_NUM_THREADS = "4"\r\n',
            "MKL_NUM_THREADS=2",
            '$env:OMP_NUM_THREADS = "4"\r\n$env:MKL_NUM_THREADS = "2"\r\n',
        ),
        (
            "run.sh",
            "OMP_NUM_THREADS=4 python t.py\n",
            "MKL_NUM_THREADS=2",
            "OMP_NUM_THREADS=4 MKL_NUM_THREADS=2 python t.py\n",
        ),
        (
            "Dockerfile",
            "FROM x\nENV OMP_NUM_THREADS 4\n",
            "MKL_NUM_THREADS=2",
            "FROM x\nENV OMP_NUM_THREADS 4\nENV MKL_NUM_THREADS 2\n",
        ),
        ("job.env", "OMP_NUM_THREADS=4", "MKL_NUM_THREADS=1", "OMP_NUM_THREADS=4\nMKL_NUM_THREADS=1"),
        (
            "compose.yaml",
            "services:\n  train:\n    image: x\n    environment:\n      - OMP_NUM_THREADS=4\n      - A=1\n",
            "MKL_NUM_THREADS=1",
            "services:\n  train:\n    image: x\n    environment:\n      - OMP_NUM_THREADS=4\n      - MKL_NUM_THREADS=1\n      - A=1\n",
        ),
    ],
)
def test_a_setting_stands_beside_its_like_in_the_style_of_it(name: str, before: str, asked: str, after: str) -> None:
    assert insert(name, before, asked) == after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (".env", "", "OMP_NUM_THREADS=1\n"),
        (".env", "TOKEN=x", "TOKEN=x\nOMP_NUM_THREADS=1"),
        (
            "Dockerfile",
            'FROM a AS build\nCMD x\nFROM b\nRUN y\nENTRYPOINT ["python"]\n',
            'FROM a AS build\nCMD x\nFROM b\nRUN y\nENV OMP_NUM_THREADS=1\nENTRYPOINT ["python"]\n',
        ),
        (
            "job.sh",
            "#!/bin/bash\n#SBATCH -c 8\n\nset -e\npython train.py\n",
            "#!/bin/bash\n#SBATCH -c 8\n\nset -e\nexport OMP_NUM_THREADS=1\npython train.py\n",
        ),
        (
            "compose.yaml",
            "services:\n  train:\n    image: x\n    environment:\n      A: 1\n",
            'services:\n  train:\n    image: x\n    environment:\n      OMP_NUM_THREADS: "1"\n      A: 1\n',
        ),
        (
            "compose.yaml",
            "services:\n  train:\n    build: .\n",
            'services:\n  train:\n    environment:\n      OMP_NUM_THREADS: "1"\n    build: .\n',
        ),
    ],
)
def test_a_variable_is_added_to_a_named_file_that_has_none(name: str, before: str, after: str) -> None:
    assert insert(name, before, "OMP_NUM_THREADS=1") == after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (
            "docker-compose.yaml",
            "version: '3'\r\nservices:\r\n  train:\r\n    image: x\r\n    ports: [80]\r\n",
            "version: '3'\r\nservices:\r\n  train:\r\n    image: x\r\n    shm_size: 2g\r\n    ports: [80]\r\n",
        ),
        (
            "compose.yaml",
            "services:\n  db:\n    image: postgres\n  train:\n    build: .\n    runtime: nvidia\n",
            "services:\n  db:\n    image: postgres\n  train:\n    shm_size: 2g\n    build: .\n    runtime: nvidia\n",
        ),
        ("run.sh", "docker run --rm \\\n  img python x.py\n", "docker run --shm-size=2g --rm \\\n  img python x.py\n"),
        ("Makefile", "run:\n\tdocker run --rm img\n", "run:\n\tdocker run --shm-size=2g --rm img\n"),
    ],
)
def test_a_container_gets_its_shared_memory(name: str, before: str, after: str) -> None:
    assert insert(name, before, "shm_size=2048m") == after


def test_of_several_services_the_one_has_to_be_named() -> None:
    text = "services:\n  a:\n    image: x\n  b:\n    image: y\n"
    with pytest.raises(EditRefused, match="several services") as caught:
        insert("compose.yaml", text, "shm_size=2g")
    assert "compose.yaml:4 (b)" in caught.value.next_step
    assert insert("compose.yaml", text, "shm_size=2g", line=4) == text + "    shm_size: 2g\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("compose.yaml", "services:\n  a:\n    image: x\n    ipc: host\n"),
        ("run.sh", "docker run --ipc=host img python x.py\n"),
    ],
)
def test_no_size_is_added_where_the_memory_is_anothers(name: str, text: str) -> None:
    with pytest.raises(EditRefused, match="of another"):
        insert(name, text, "shm_size=2g")


POD = """\
apiVersion: v1
kind: Pod
spec:
  containers:
    - name: train
      image: x
"""


def test_a_pod_gets_volume_and_mount() -> None:
    assert (
        insert("pod.yaml", POD, "shm_size=2g")
        == """\
apiVersion: v1
kind: Pod
spec:
  volumes:
    - name: dshm
      emptyDir:
        medium: Memory
        sizeLimit: 2Gi
  containers:
    - name: train
      image: x
      volumeMounts:
        - mountPath: /dev/shm
          name: dshm
"""
    )


def test_a_pod_that_has_volumes_gets_one_more_of_each_in_its_own_indentation() -> None:
    text = """\
kind: Job
spec:
  template:
    spec:
      containers:
      - image: x
        name: train
        volumeMounts:
        - mountPath: /data
          name: data
      - image: y
        name: side
      volumes:
      - name: data
        hostPath: {path: /data}
"""
    with pytest.raises(EditRefused, match="several containers"):
        insert("job.yaml", text, "shm_size=2g")
    assert (
        insert("job.yaml", text, "shm_size=2g", line=7)
        == """\
kind: Job
spec:
  template:
    spec:
      containers:
      - image: x
        name: train
        volumeMounts:
        - mountPath: /dev/shm
          name: dshm
        - mountPath: /data
          name: data
      - image: y
        name: side
      volumes:
      - name: dshm
        emptyDir:
          medium: Memory
          sizeLimit: 2Gi
      - name: data
        hostPath: {path: /data}
"""
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "    emptyDir:\n      medium: Memory\n",
            "    emptyDir:\n      medium: Memory\n      sizeLimit: 2Gi\n",
        ),
        ("    emptyDir: {medium: Memory}\n", "    emptyDir: {medium: Memory, sizeLimit: 2Gi}\n"),
        ("    emptyDir: {}\n", "    emptyDir: {medium: Memory, sizeLimit: 2Gi}\n"),
    ],
)
def test_a_volume_that_is_mounted_already_gets_its_limit(before: str, after: str) -> None:
    head = (
        "kind: Pod\nspec:\n  containers:\n  - name: train\n    volumeMounts:\n    - name: shm\n      mountPath: /dev/shm\n"
        "  volumes:\n  - name: shm\n"
    )
    assert insert("pod.yaml", head + before, "shm_size=2g") == head + after


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "pod.yaml",
            'kind: Pod\nspec:\n  containers:\n  - name: a\n    env:\n    - name: OMP_NUM_THREADS\n      value: "4"\n',
        ),
        ("run.sh", "docker run -e OMP_NUM_THREADS=4 --rm img python x.py\n"),
    ],
)
def test_what_would_not_be_understood_there_is_refused(name: str, text: str) -> None:
    with pytest.raises(EditRefused):
        insert(name, text, "MKL_NUM_THREADS=2")


def test_of_several_files_the_one_has_to_be_named_unless_they_build_loaders() -> None:
    def adding(asked: str, texts: dict[str, str], named: tuple[str, ...] = ()) -> set[str]:
        knob, _, value = asked.partition("=")
        scanned = scan_files([Bytes(name, text.encode()) for name, text in texts.items()])
        return {edit.file for edit in added(wish(knob, value), scanned.sites, scanned.files, named=named)}

    loader = IMPORT + "DataLoader(data, num_workers=4)\n"
    assert adding("prefetch_factor=4", {"train.py": loader, "test.py": loader}) == {"train.py", "test.py"}
    shells = {"a.sh": "export OMP_NUM_THREADS=4\n", "b.sh": "export OMP_NUM_THREADS=2\n"}
    with pytest.raises(EditRefused, match="several files") as caught:
        adding("MKL_NUM_THREADS=1", shells)
    assert "a.sh, b.sh" in caught.value.next_step
    assert adding("MKL_NUM_THREADS=1", shells, named=("a.sh", "b.sh")) == {"a.sh", "b.sh"}


def test_a_mount_in_braces_is_not_mounted_twice() -> None:
    text = POD + "      volumeMounts:\n        - {name: shm, mountPath: /dev/shm}\n"
    with pytest.raises(EditRefused, match="safely"):
        insert("pod.yaml", text, "shm_size=2g")


def test_lists_of_items_in_braces_keep_their_dashes() -> None:
    text = """\
kind: Pod
spec:
  volumes:
      - {name: data, emptyDir: {}}
  containers:
  - name: train
    image: x
    volumeMounts:
        - {name: data, mountPath: /data}
"""
    changed = insert("pod.yaml", text, "shm_size=2g")
    assert "volumes:\n      - name: dshm\n        emptyDir:\n          medium: Memory\n" in changed
    assert "volumeMounts:\n        - mountPath: /dev/shm\n          name: dshm\n        - {name: data" in changed


def test_a_job_gets_its_cores_behind_the_other_options() -> None:
    text = "#!/bin/bash\n#SBATCH --time=1:00\n#SBATCH --gres=gpu:1\n\nsrun python train.py\n"
    expected = text.replace("gpu:1\n", "gpu:1\n#SBATCH --cpus-per-task=8\n")
    assert insert("job.sh", text, "cpus_per_task=8") == expected
