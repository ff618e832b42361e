"""What a scan leaves out, and why: places that hold nobody's settings, and files that only speak about settings.

Told from the path where that is enough, so that a folder of packages costs nothing; from the content where names lie. Among
people who train models `test.py` and `test_net.py` are programs that evaluate, with loaders whose settings count; what makes
test code is that it imports pytest or unittest, or defines tests that nothing but a test runner would call.

What the user names on the command line is excluded by its content alone: whoever says `tests/data` means it.
"""

from __future__ import annotations

import re

VCS = frozenset({".git", ".hg", ".svn", ".bzr", "_darcs"})
_PACKAGES = frozenset({"node_modules", "site-packages", "dist-packages", "bower_components", "vendor_packages"})
_CACHES = frozenset(
    {
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        ".tox",
        ".nox",
        ".eggs",
        ".ipynb_checkpoints",
        ".cache",
        ".keepfed",
        ".terraform",
    }
)
_OUTPUTS = frozenset({"wandb", "mlruns", "lightning_logs", ".hydra", ".neptune", ".aim", ".dvc"})
_CI_FOLDERS = frozenset(
    {".github", ".circleci", ".buildkite", ".gitlab", ".azure-pipelines", ".ci", ".travis", ".jenkins"}
)
_CI_FILES = re.compile(
    r"\.gitlab-ci.*\.ya?ml|\.travis\.ya?ml|\.?appveyor\.ya?ml|azure-pipelines.*\.ya?ml|bitbucket-pipelines\.ya?ml"
    r"|\.drone\.ya?ml|cloudbuild\.ya?ml|buildspec\.ya?ml|codecov\.ya?ml|\.pre-commit-config\.ya?ml|jenkinsfile.*|tox\.ini"
    r"|noxfile\.py"
)
_TESTS = frozenset({"tests", "unittests", "unit_tests", "unit_test", "test_data", "testdata", "integration_tests"})
_BUILT = frozenset({"build", "dist"})

_DOCUMENTS = (".md", ".mdx", ".markdown", ".rst", ".adoc", ".tex", ".html", ".htm", ".org", ".rmd")
_DOCUMENT_NAMES = re.compile(
    r"(?:readme|licen[cs]e|copying|notice|changelog|changes|history|news|authors|contributing|pkg-info)(?:\.txt)?"
)
_LOGS = (".log", ".out", ".err", ".stdout", ".stderr")

_LOG_NAMES = re.compile(r"(?:.*[._-])?(?:logs?|nohup|stdout|stderr)(?:[._-].*)?\.txt")

_TEST_NAME = re.compile(
    r"(?:test|tests|conftest|unittest)s?[._-].*|.*[._-](?:test|tests)\.py|conftest\.py", re.IGNORECASE
)
_TEST_TOOLS = re.compile(
    rb"(?m)^[ \t]*(?:import|from)[ \t]+(?:pytest|unittest|unittest2|nose|nose2|hypothesis|parameterized|absl\.testing"
    rb"|torch\.testing\._internal|twisted\.trial)\b(?!\.mock)(?![ \t]+import[ \t]+mock\b)"
)
# A test is called by a runner, which gives it nothing but fixtures; Lightning calls its own.
_TEST_FUNCTION = re.compile(
    rb"(?m)^def test_\w+\([ \t]*\)|^class (?:Test\w*|\w+Test(?:s|Case)?)\b[^\n]*:\s*\n(?:(?![^\s#]).*\n)*?[ \t]+def test_\w+\(self"
)
# What runs on its own is a program, whatever it is called.
_PROGRAM = re.compile(
    rb"(?m)\.add_argument\(|\bargparse\b|^[ \t]*@(?:hydra\.main|click\.command)|^if[ \t]+__name__[ \t]*==|^test_\w+\("
)
_CHECKS = re.compile(rb"(?m)^[ \t]+(?:assert\b|self\.assert\w+\()")
# What the files of GitHub, GitLab, CircleCI, Azure, Travis and AppVeyor have in them, each as two marks: one alone may be anybody's.
_CI_MARKS = tuple(
    (re.compile(first), re.compile(second))
    for first, second in (
        (rb"(?m)^[ \t]+runs-on:", rb"(?m)^jobs:"),
        (rb"(?m)^(?:stages|before_script|image):", rb"(?m)^[ \t]+(?:script|stage):"),
        (rb"(?m)^(?:orbs|workflows):", rb"(?m)^jobs:"),
        (rb"(?m)^[ \t-]*vmImage:", rb"(?m)^[ \t-]*(?:steps|jobs|stages):"),
        (rb"(?m)^language:", rb"(?m)^(?:script|install|before_install|before_script):"),
        (rb"(?m)^environment:", rb"(?m)^(?:build_script|test_script):"),
        (rb"(?m)^runs:", rb"(?m)^[ \t]+using:"),
    )
)


def folder_reason(name: str, entries: frozenset[str], beside: frozenset[str]) -> str:
    """Why a folder is not walked: a key `knobs.skipped_*`, or "" where it is.

    `entries` are the names in it, `beside` those in the folder that it lies in.
    """
    low = name.lower()
    if low in VCS:
        return "knobs.skipped_repository"
    if low in _CACHES or low.endswith((".egg-info", ".dist-info")):
        return "knobs.skipped_cache"
    if low in _PACKAGES or low == ".venv" or "pyvenv.cfg" in entries or "conda-meta" in entries:
        return "knobs.skipped_packages"
    if low in _OUTPUTS:
        return "knobs.skipped_outputs"
    if low in _CI_FOLDERS:
        return "knobs.skipped_ci"
    if low in _TESTS:
        return "knobs.skipped_tests"
    if (
        low in _BUILT
        and beside & {"setup.py", "pyproject.toml", "setup.cfg", "package.json"}
        and "__init__.py" not in entries
    ):
        return "knobs.skipped_built"
    return ""


_OURS = re.compile(rb"(?:#[^\n]*\n|\s|\{)*+\"?schema\"?\s*[=:]\s*\"keepfed\.[a-z-]+/\d")


def document_or_log(base: str) -> str:
    """Why a file only speaks about settings, by the end of its name, or ""."""
    low = base.lower()
    if low.endswith(_DOCUMENTS) or _DOCUMENT_NAMES.fullmatch(low.rpartition("/")[2]):
        return "knobs.skipped_document"
    return "knobs.skipped_log" if low.endswith(_LOGS) or _LOG_NAMES.fullmatch(low.rpartition("/")[2]) else ""


def path_reason(path: str) -> str:
    """Why a file is not read, by its path below what was scanned, or ""."""
    *folders, base = path.lower().split("/")
    if _CI_FILES.fullmatch(base) or any(folder in _CI_FOLDERS for folder in folders):
        return "knobs.skipped_ci"
    return "knobs.skipped_tests" if any(folder in _TESTS for folder in folders) else ""


def content_reason(path: str, utf8: bytes) -> str:
    """Why a file that mentions a setting is not read, by its content, or ""."""
    base = path.rpartition("/")[2]
    low = base.lower()
    if low.endswith((".py", ".pyw", ".pyi")) and _is_test_code(base, utf8):
        return "knobs.skipped_tests"
    if low.endswith((".yaml", ".yml")) and any(
        first.search(utf8) and second.search(utf8) for first, second in _CI_MARKS
    ):
        return "knobs.skipped_ci"
    return "knobs.skipped_ours" if _OURS.match(utf8) else ""


def _is_test_code(base: str, utf8: bytes) -> bool:
    if _TEST_TOOLS.search(utf8):
        return True
    looks_so = _TEST_NAME.fullmatch(base) and _TEST_FUNCTION.search(utf8) and _CHECKS.search(utf8)
    return bool(looks_so and not _PROGRAM.search(utf8))
