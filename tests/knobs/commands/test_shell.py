from __future__ import annotations

import pytest

from keepfed.knobs.site import Role
from tests.knobs.marked import compare, plain, sites_in


@pytest.mark.parametrize(
    "script",
    [
        # A flag takes its value from a variable: the definition is what counts.
        "NUM_WORKERS=⟨8⟩\npython a.py --num_workers ⟨$NUM_WORKERS|reference⟩\npython b.py --num_workers=⟨${NUM_WORKERS}|reference⟩\n",
        'NUM_WORKERS=${NUM_WORKERS:-⟨4⟩}\npython a.py --num_workers "⟨$NUM_WORKERS|reference⟩"\n',
        'NUM_WORKERS="${4:-⟨24⟩}"\npython a.py --num_workers ⟨$NUM_WORKERS|reference⟩\n',
        "CPUS_PER_TASK=${CPUS_PER_TASK:-⟨2⟩}\nsrun --cpus-per-task=⟨${CPUS_PER_TASK}|reference⟩ python test.py\n",
        "python a.py --num_workers ${NW:-⟨4⟩}\n",
        "NW=⟨8⟩\npython a.py --num_workers ${NW:-⟨4|overridden⟩}\nunset NW\n",
        "local_workers() {\n  local num_workers=⟨4⟩\n  python a.py --num_workers ⟨$num_workers|reference⟩\n}\n",
        # A name that says nothing counts where every use is that setting.
        "workers=⟨8⟩\npython main.py --gpu 0 -j ⟨$workers|reference⟩\n",
        "nj=⟨8⟩\necho $nj\npython main.py --num_workers ⟨${nj}|reference⟩\n",
        "N=4\npython main.py --num_workers ⟨$N|reference⟩ --gpus $N\n",
        "for nw in 0 2 4; do python main.py --num_workers ⟨$nw|reference⟩; done\n",
        # A good name counts unless all that it reaches is something else.
        "NUM_WORKERS=4\ntorchrun --nnodes $NUM_WORKERS train.py\n",
        "NUM_WORKERS=4\nfor i in $(seq 1 $NUM_WORKERS); do ./start $i; done\n",
        "NUM_WORKERS=4\nexec gunicorn --workers $NUM_WORKERS app:app\n",
        "export NUM_WORKERS=⟨4⟩\n",
        'export GUNICORN_CMD_ARGS="--workers=4 --num-workers=3 --dist x"\n',
        'num_worker=${3:-"20"}\nfairseq-preprocess --only-source --workers ${num_worker}\n',
        "SHM_SIZE=$(df -h /dev/shm | tail -1)\necho $SHM_SIZE\n",
        "CORES=$(nproc)\nNUM_WORKERS=⟨$((CORES / 2))|expression⟩\npython a.py --num_workers ⟨$NUM_WORKERS|reference⟩\n",
        'export NUM_WORKERS="${OTHER_NUM_WORKERS:-⟨2⟩}" PREFETCH_FACTOR=⟨2⟩\n',
        "PHASE4_NUM_WORKERS=⟨4⟩\npython a.py --num_workers ⟨$PHASE4_NUM_WORKERS|reference⟩\n",
        "export SHM_SIZE=⟨16g⟩\ndocker run --shm-size ⟨$SHM_SIZE|reference⟩ image\n",
        "WORKERS=4\ngunicorn -w $WORKERS app:app\n",
        # Thread variables.
        "export OMP_NUM_THREADS=⟨4⟩ MKL_NUM_THREADS=⟨2⟩ FOO=3\n",
        'export OMP_NUM_THREADS="⟨1⟩"\n',
        "OMP_NUM_THREADS=⟨1⟩ MKL_NUM_THREADS=⟨1⟩ python train.py\n",
        "export OMP_NUM_THREADS=⟨$SLURM_CPUS_PER_TASK|reference⟩\n",
        "export OMP_NUM_THREADS=⟨$(nproc)|expression⟩\n",
        "n=⟨6⟩\nexport OMP_NUM_THREADS=⟨$n|reference⟩\n",
        ": ${OMP_NUM_THREADS:=⟨4⟩}\nexport OMP_NUM_THREADS\n",
        "declare -x OMP_NUM_THREADS=⟨4⟩\n",
        "setenv OMP_NUM_THREADS ⟨4⟩\n",
        "set num_workers = ⟨8⟩\nset x = 3\npython a.py --num_workers ⟨$num_workers|reference⟩ --x $x\n",
        "set -gx OMP_NUM_THREADS ⟨4⟩\nset num_workers=⟨2⟩\n",
        "set -- --num_workers ⟨4⟩\nset -e\nset -o pipefail\n",
        'if [ -z "$OMP_NUM_THREADS" ]; then\n  export OMP_NUM_THREADS=⟨4⟩\nfi\n',
        "unset OMP_NUM_THREADS\n",
        # Strings and arrays that a command line is made of.
        'CMD="python train.py --num_workers ⟨4⟩ --batch 2"\neval $CMD\n',
        'CMD="docker run -it \\\n    --shm-size=\\"⟨8g⟩\\" \\\n    image"\n$CMD\n',
        'ARGS="--num_workers ⟨4⟩ --lr 1"\nARGS="$ARGS --prefetch_factor ⟨2⟩"\nARGS+=" --pin_memory ⟨true⟩"\n',
        "args=(\n  --num_workers ⟨4⟩  # four\n  # --num_workers 8\n  --workers ⟨3⟩ --batch-size 4\n)\nargs+=(--prefetch-factor ⟨2⟩)\n",
        './asr.sh --nj 32 --asr_args "--num_workers ⟨4⟩ --batch_size 3" --num_workers ⟨2⟩\n',
        'DOCKER_ARGS="--gpus all --shm-size=⟨8g⟩"\n',
        'DOCKER_ARGS="--ipc=host --shm-size=⟨8g|overridden⟩"\n',
        # Texts that are printed, tested or written down.
        "cat <<EOF\nusage: train.sh --num_workers 8\nNUM_WORKERS=4\nEOF\n",
        'usage() {\n  echo "  --num_workers N   (default: 4)"\n  echo "num_workers=4"\n}\n',
        'if [ "$NUM_WORKERS" -gt 8 ]; then echo "--num_workers 8"; fi\n',
        'while [ $# -gt 0 ]; do case "$1" in\n  --num_workers) NUM_WORKERS="$2"; shift ;;\n  --nw=*) NUM_WORKERS="${1#*=}" ;;\nesac; done\n',
        "NUM_WORKERS=${NUM_WORKERS:-1}\nexport TF_VAR_num_workers=$NUM_WORKERS\nterraform apply\n",
        "docker run --entrypoint bash image -c 'cd /x && python train.py --num_workers ⟨4⟩'\n",
        "mpirun -env OMP_NUM_THREADS ⟨1⟩ -n 4 ./solver\n",
        # A file in the script.
        "python - <<'EOF'\nfrom torch.utils.data import DataLoader\nDataLoader(data, num_workers=⟨4⟩)\nEOF\n",
        "cat > conf.yaml <<EOF\ndata:\n  num_workers: ⟨4⟩\nEOF\n",
        "cat <<EOF > job.sh\npython train.py --num_workers ⟨4⟩\nEOF\n",
        "cat <<EOF | sbatch\nsrun python train.py --num_workers ⟨4⟩\nEOF\n",
        "cat <<-'EOF' | tee conf.yaml\nnum_workers: ⟨4⟩\nEOF\n",
        "sbatch <<EOF\n#!/bin/bash\nsrun python train.py --num_workers ⟨4⟩\nEOF\n",
        # What a shell would not take, and a reader understands.
        "python train.py --data <path to data> --num_workers ⟨4⟩ --batch 2\n",
        'python train.py --name "unfinished --lr 1\npython test.py --num_workers ⟨4⟩\n',
        "if true; then\npython train.py --num_workers ⟨4⟩\n",
        "python train.py --model {{ model }} --num_workers ⟨{{ workers }}|reference⟩\n",
        # A program behind the script, for those who copy it out.
        "sbatch -c ⟨4⟩\\\n  job.sh\n## job.py\nimport torch\nparser.add_argument('--num_workers', type=int, default=0)\nx = DataLoader(d, num_workers=args.num_workers)\n",
        # Where a command ends.
        "python train.py --num_workers ⟨4⟩ \\",
        "python train.py \\\n    --num_workers ⟨4⟩ \\\n    --lr 1 \\\n",
        "python train.py --num_workers ⟨4⟩; python test.py --num_workers ⟨2⟩ && make -j8 | tee --workers 3\n",
        "(cd x && python train.py --num_workers ⟨4⟩ > log.txt 2>&1) &\n",
        "python train.py > log.txt --num_workers ⟨4⟩\n",
        "x=$(python train.py --num_workers ⟨4⟩)\n",
        "python main.py --multiprocessing-distributed\\\n --rank 0 /data -b 512 -j ⟨20⟩ \\\n >> log.txt\n",
        "python main.py --lr 1 -j ⟨20⟩\\\n --rank 0\n",
        "python main.py --arch $1 --workers ⟨$7|reference⟩\n",
        'N=1 nvidia-docker container run -i --shm-size=⟨16G⟩ -u $(id -u):$(id -g) --rm -v /a:/a image:latest bash -c "cd /x;\n  python -m torch.distributed.launch bin/train.py --workers ⟨3⟩"\n',
        "env OMP_NUM_THREADS=⟨12⟩ torchrun --nproc_per_node=${GPUNUM} train.py --batch_size=${B} 2>&1 | tee run.log\n",
    ],
)
@pytest.mark.parametrize("variant", ["as it is", "CRLF", "BOM", "no final newline", "UTF-16", "GBK"])
def test_exactly_the_settings_of_a_script_are_found(script: str, variant: str) -> None:
    encoding = "utf-8"
    if variant == "CRLF":
        script = script.replace("\n", "\r\n")
    elif variant == "no final newline":
        script = script.removesuffix("\n")
    elif variant != "as it is":
        encoding = {"BOM": "utf-8-sig", "UTF-16": "utf-16", "GBK": "gbk"}[variant]
        script = f"# 数据加载的设置\n{script}"
    compare("run.sh", script, encoding)


@pytest.mark.parametrize(
    "script",
    [
        "#!/bin/bash\n#SBATCH --cpus-per-task=⟨8⟩\n#SBATCH --mem=4G\n",
        "#!/bin/bash\n#SBATCH -c ⟨8⟩ --mem 4G   # was -c 4\n\npython x.py\n",
        "#SBATCH --cpus-per-task ⟨10⟩         # 2 CPUs per GPU\n",
        "#SBATCH --nodes=1 --cpus-per-task=⟨4⟩\n#SBATCH hetjob\n#SBATCH --nodes=2 --cpus-per-task=⟨16⟩\n",
        "##SBATCH --cpus-per-task=8\n# SBATCH --cpus-per-task=8\n",
        '#SBATCH --cpus-per-task="⟨8⟩"\n',
        '#!/bin/bash\n{% set logs = jobs / "log" %}\n#SBATCH --cpus-per-task=⟨4⟩\n{% endif %}\n#SBATCH -c ⟨{{ c }}|reference⟩\n',
        "#SBATCH --cpus-per-task=⟨{{ cpus }}|reference⟩\n",
        "#SBATCH --export=ALL,OMP_NUM_THREADS=⟨4⟩,X=2\n",
        "module load cuda\n#SBATCH --cpus-per-task=⟨8|dead⟩\n",
        "for i in 1 2; do\nsbatch <<EOF\n#!/bin/bash\n#SBATCH --cpus-per-task=⟨8⟩\npython train.py --num_workers ⟨4⟩\nEOF\ndone\n",
        "cat > job.sh <<-EOT\n#!/bin/bash\n#SBATCH -c ⟨8⟩\nsrun x\n#SBATCH -c ⟨4|dead⟩\nEOT\n",
        "#SBATCH --comment='-c 4'\n",
    ],
)
def test_what_a_job_asks_for_is_found(script: str) -> None:
    compare("job.slurm", script)


def test_a_variable_and_its_fallback_say_where_their_value_comes_from() -> None:
    found = compare(
        "run.sh",
        "W=⟨8⟩\nNUM_WORKERS=${NUM_WORKERS:-⟨4⟩}\npython a.py -j ⟨$W|reference⟩ --gpu 1 --num_workers ${A:-⟨2⟩}\n",
    )
    assert [(site.role, site.setting, site.refers_to) for site in found] == [
        (Role.VARIABLE, "W", ""),
        (Role.VARIABLE, "NUM_WORKERS", ""),
        (Role.FLAG, "j", "W"),
        (Role.FLAG, "num_workers", "A"),
    ]


def test_quotes_are_told_and_never_part_of_the_value() -> None:
    found = compare("run.sh", "python a.py --num_workers='⟨8⟩'\nexport OMP_NUM_THREADS=\"⟨1⟩\" MKL_NUM_THREADS=⟨2⟩\n")
    assert [site.quoted for site in found] == [True, True, False]


def test_a_reference_or_a_formula_says_why_it_cannot_be_replaced() -> None:
    found = sites_in("run.sh", plain("python a.py --num_workers $N --num_workers $((N / 2))\n"))
    assert [(site.target, site.refusal) for site in found] == [
        (None, "knobs.refuse_reference"),
        (None, "knobs.refuse_expression"),
    ]
