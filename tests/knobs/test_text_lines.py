from __future__ import annotations

import pytest

from keepfed.knobs.reading import read
from keepfed.knobs.site import Kind, Role
from keepfed.knobs.source import Source


def found(name: str, text: str) -> list[tuple[str, str, Kind]]:
    source = Source.of(name, text.encode())
    assert source is not None
    sites = read(source)
    for site in sites:
        assert source.data[site.span.start : site.span.end].decode() == site.value
    return [(site.spelling, site.value, site.kind) for site in sites]


def test_batch_variables_and_the_flags_that_use_them_are_found() -> None:
    text = "@echo off\r\n:: set NUM_WORKERS=9\r\nset NUM_WORKERS=4\r\nREM --workers 3\r\npython train.py ^\r\n --num-workers %NUM_WORKERS% ^\r\n --pin-memory True\r\n"
    assert found("train.bat", text) == [
        ("NUM_WORKERS", "4", Kind.LITERAL),
        ("--num-workers", "%NUM_WORKERS%", Kind.REFERENCE),
        ("--pin-memory", "True", Kind.LITERAL),
    ]


def test_powershell_variables_are_found_where_the_program_gets_them() -> None:
    text = (
        '<# $workers = 1 #>\n$workers=6\n$threads = 3\n$env:OMP_NUM_THREADS = "2"\npython train.py --workers $workers\n'
    )
    assert found("run.ps1", text) == [
        ("workers", "6", Kind.LITERAL),
        ("OMP_NUM_THREADS", "2", Kind.LITERAL),
        ("--workers", "$workers", Kind.REFERENCE),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "# num_workers = 4",
        '// "num_workers": 4',
        "if num_workers == 0:",
        "num_workers: number of processes",
        "gunicorn --workers 4 app:app",
        "workers = 4",
        "echo num_workers",
        "@echo start with --num_workers 8",
        'Write-Host "num_workers=8"',
        "num_workers = 4 per GPU",
        "cv_num_threads: 4",
        "--num-workers-per-ray 3",
        "pin_memory: 17",
        "set NUM_WORKERSX=4",
    ],
)
def test_what_is_no_setting_is_left_alone(line: str) -> None:
    assert found("a.tpl", f"{line}\n") == []


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("num_workers = 4", "4"),
        ("  num_workers: 4  # cores", "4"),
        ('"num_workers": 8,', "8"),
        ("python main.py data.num_workers=8 x=1", "8"),
        ('shm_size: "16gb"', "16gb"),
        ("--shm-size=8G \\", "8G"),
        ("num_workers: {{ .Values.workers }}", "{{ .Values.workers }}"),
        ("export NUM_WORKERS=${NUM_WORKERS:-4}", "4"),
        ("num_workers: int = 2", "2"),
        ("python train.py --workers 12", "12"),
    ],
)
def test_a_plain_line_is_read(line: str, value: str) -> None:
    assert [site[1] for site in found("a.tpl", line)] == [value]


def test_a_flag_is_a_flag_and_a_size_a_limit() -> None:
    source = Source.of("x.bat", b"docker run --shm-size 2g x\nset NUM_WORKERS=2\npython t.py --num-workers 2")
    assert source is not None
    assert [site.role for site in read(source)] == [Role.LIMIT, Role.VARIABLE, Role.FLAG]


def test_the_program_decides_what_its_options_mean() -> None:
    text = (
        "call venv\\Scripts\\activate\r\n"
        "accelerate launch --num_cpu_threads_per_process=2 .\\train_network.py ^\r\n"
        '  --train_data_dir="D:\\my data\\" --max_data_loader_n_workers="1" --lr="1e-4 " ^\r\n'
        "  --persistent_data_loader_workers\r\n"
        "python backtest.py --workers 8 --from 2020\r\n"
        "waitress-serve --workers 8 app:app\r\n"
        "server.exe -workers 8\r\n"
        "C:\\envs\\x\\python.exe -u tools\\train.py --epochs 3 --workers 6 > log.txt\r\n"
    )
    assert [site[:2] for site in found("train.bat", text)] == [
        ("--num_cpu_threads_per_process", "2"),
        ("--max_data_loader_n_workers", "1"),
        ("--workers", "6"),
    ]


def test_powershells_lists_of_options_and_booleans_are_read() -> None:
    text = (
        "$max_data_loader_n_workers = 2    # CPU # 0 turns it off | 2/4\n"
        "$persistent_data_loader_workers = $True\n"
        "$Env:MKL_NUM_THREADS=4\n"
        "if ($max_data_loader_n_workers -ne 8) {\n"
        '  [void]$options.Add("--max_data_loader_n_workers=$max_data_loader_n_workers")\n'
        "}\n"
        'Write-Output "num_workers = 3"\n'
        '$options += "--num_cpu_threads_per_process=8"\n'
    )
    assert found("train.ps1", text) == [
        ("max_data_loader_n_workers", "2", Kind.LITERAL),
        ("persistent_data_loader_workers", "True", Kind.LITERAL),
        ("MKL_NUM_THREADS", "4", Kind.LITERAL),
        ("--max_data_loader_n_workers", "$max_data_loader_n_workers", Kind.REFERENCE),
        ("--num_cpu_threads_per_process", "8", Kind.LITERAL),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_chinese_comments_in_any_encoding_shift_nothing(encoding: str) -> None:
    source = Source.of("a.ps1", "# 数据加载 num_workers=9\r\n$num_workers = 4 # 线程\r\n".encode(encoding))
    assert source is not None
    (site,) = read(source)
    assert source.data[site.span.start : site.span.end].decode(source.encoding) == "4"


def test_powershells_parameters_and_lists_of_words_are_read() -> None:
    text = (
        "param(\n  [string]$Config = 'a.yaml',\n  [int]$BatchSize = 8,\n  [int]$NumWorkers = -1,\n  [int]$Workers = 4\n)\n"
        '$words = @("train.py", "--num-workers", "$NumWorkers", "--batch-size", "8")\n'
        "$more += @('--workers', $Workers)\n"
        '$env:OMP_NUM_THREADS = "$Cap"\n'
    )
    assert found("train.ps1", text) == [
        ("NumWorkers", "-1", Kind.LITERAL),
        ("Workers", "4", Kind.LITERAL),
        ("--num-workers", "$NumWorkers", Kind.REFERENCE),
        ("--workers", "$Workers", Kind.REFERENCE),
        ("OMP_NUM_THREADS", "$Cap", Kind.REFERENCE),
    ]


def test_patterns_of_files_begin_no_comment_and_take_no_time() -> None:
    text = "copy data/* out\n" * 20_000 + "copy a/* b*/c\nset NUM_WORKERS=4\n/* num_workers = 3 */\n"
    assert found("a.bat", text) == [("NUM_WORKERS", "4", Kind.LITERAL)]


@pytest.mark.parametrize("first", ["--config=tools/train.py", "ExecStart=/usr/bin/python3"])
def test_an_option_that_names_a_program_starts_none(first: str) -> None:
    text = f'[Service]\nEnvironment="OMP_NUM_THREADS=4"\n{first} srv/train.py --epochs 3 --num-workers 6\n'
    assert found("a.service", text) == [("OMP_NUM_THREADS", "4", Kind.LITERAL), ("--num-workers", "6", Kind.LITERAL)]
