"""Rules of the house that no other tool checks: a rule that nothing enforces is not a rule."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "keepfed"

# Rooms that state facts or judge, by the design; each must be named in the forbidden contract once it exists.
WITHOUT_TORCH = {"host", "knobs", "doctor", "policy", "edit"}
WITHOUT_CLOCK = {"doctor", "policy", "edit"}

# Names under which everything drifts together that nobody found a place for.
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}


@cache
def _project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def _python_files() -> list[Path]:
    folders = [REPOSITORY / name for name in ("src", "tests", "examples", "benchmarks")]
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("*.py"))]


def _tracked_texts() -> list[Path]:
    """Every text file that belongs to the project; without git (an unpacked sdist) the Python files and the root's."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        files = [REPOSITORY / name for name in listing.stdout.split("\0") if name]
    else:
        files = [*_python_files(), *REPOSITORY.glob("*.*")]
    return [
        file for file in files if file.is_file() and file.suffix in {".py", ".toml", ".md", ".txt", ".json", ".pth", ""}
    ]


def _comments(file: Path) -> list[tuple[int, str]]:
    reader = io.StringIO(file.read_text(encoding="utf-8")).readline
    return [
        (token.start[0], token.string) for token in tokenize.generate_tokens(reader) if token.type == tokenize.COMMENT
    ]


def _rooms() -> set[str]:
    """What stands directly in the package: folders with modules, and files."""
    folders = {folder.name for folder in PACKAGE.iterdir() if any(folder.rglob("*.py"))}
    return folders | {file.stem for file in PACKAGE.glob("*.py")}


# ----------------------------------------------------------------------------------------------------------------- comments


def test_every_switched_off_check_names_its_code_and_a_reason() -> None:
    """`# noqa: S110  # the user's program goes on`, and the same for `# type: ignore[code]  # reason`."""
    switch = re.compile(r"#\s*(noqa|type:\s*ignore)", re.IGNORECASE)
    good = re.compile(r"# (noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[\w, -]+\])  # \S.{3,}")
    wrong = [
        f"{file.relative_to(REPOSITORY)}:{line}: {comment}"
        for file in _python_files()
        for line, comment in _comments(file)
        if switch.search(comment)
        and not all(good.search(comment[match.start() :]) for match in switch.finditer(comment))
    ]
    assert wrong == []


def test_no_comment_promises_something_for_later() -> None:
    wrong = [
        f"{file.relative_to(REPOSITORY)}:{line}: {comment}"
        for file in _python_files()
        for line, comment in _comments(file)
        if re.search(r"\b(TODO|FIXME|XXX)\b", comment)
    ]
    assert wrong == []


def test_every_ignore_of_ruff_has_a_reason() -> None:
    lines = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if re.match(r'    "[A-Z]+\d*", ', line + " ")]
    ignored = _project()["tool"]["ruff"]["lint"]
    expected = len(ignored["ignore"]) + sum(len(codes) for codes in ignored["per-file-ignores"].values())
    assert len(rules) == expected
    assert [line for line in rules if not re.search(r"# \S.{5,}", line)] == []


# ------------------------------------------------------------------------------------------------------------------- files


def test_there_are_no_drawers() -> None:
    assert [file for file in _python_files() if file.stem in DRAWERS] == []


def test_a_file_past_600_lines_says_why_it_is_one_idea() -> None:
    """In its docstring, with the words "one idea"."""
    long = []
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > 600 and "one idea" not in text.split('"""')[1]:
            long.append(str(file.relative_to(REPOSITORY)))
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    """Empty files would be rooms without anything to say."""
    assert [file for file in sorted(PACKAGE.rglob("*.py")) if '"""' not in file.read_text(encoding="utf-8")[:200]] == []


def test_no_address_of_a_package_registry_stands_anywhere() -> None:
    """Where packages come from is the business of the machine that installs them."""
    address = re.compile(
        r"https?://[\w.-]*(pypi|pythonhosted|download\.pytorch)[\w.-]*|--(extra-)?index-url|--find-links"
    )
    wrong = []
    for file in _tracked_texts():
        if file == Path(__file__):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if address.search(line):
                wrong.append(f"{file.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert wrong == []


# ------------------------------------------------------------------------------------------------------------------- floors


def _contract(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        contract for contract in _project()["tool"]["importlinter"]["contracts"] if contract["name"].startswith(name)
    )
    return found


@pytest.mark.parametrize(
    ("contract", "rooms"),
    [("Facts and judgement", WITHOUT_TORCH), ("Judgement reads no clock", WITHOUT_CLOCK)],
    ids=["torch", "clock"],
)
def test_every_thinking_room_that_exists_is_kept_apart(contract: str, rooms: set[str]) -> None:
    named = {module.removeprefix("keepfed.") for module in _contract(contract)["source_modules"]}
    assert named == rooms & _rooms()


def test_a_floor_that_is_built_is_no_longer_optional_in_the_picture() -> None:
    """Floors in parentheses may be missing; every room that exists stands on one of them."""
    floors = " | ".join(_contract("Floors")["layers"])
    named = set(re.findall(r"\w+", floors)) | {"__init__", "_site", "locales"}
    assert _rooms() <= named


# ---------------------------------------------------------------------------------------------------------------- documents


def test_both_readmes_show_the_same_commands_and_pictures() -> None:
    english, chinese = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    for pattern in (r"```.*?```", r"^#+ ", r"^\|", r"!\[.*?\]\((.*?)\)"):
        flags = re.DOTALL if pattern.startswith("```") else re.MULTILINE
        ours, theirs = re.findall(pattern, english, flags), re.findall(pattern, chinese, flags)
        assert ours == theirs, pattern


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design/house.md"]
)
def test_links_inside_the_project_lead_somewhere(name: str) -> None:
    file = REPOSITORY / name
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (file.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"])
def test_a_make_target_that_is_named_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(
        re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", (REPOSITORY / name).read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {first or second for first, second in named} <= targets


def test_the_picture_of_the_house_names_every_room() -> None:
    picture = (REPOSITORY / "docs" / "design" / "house.md").read_text(encoding="utf-8")
    rooms = _rooms() - {"__init__", "__main__"}
    assert sorted(room for room in rooms if f"`{room}" not in picture and f"{room}/" not in picture) == []


# ---------------------------------------------------------------------------------------------------------------- changelog


def test_fragments_of_the_changelog_have_a_kind_and_one_or_two_sentences() -> None:
    for file in (REPOSITORY / "changelog.d").iterdir():
        if file.name in {"README.md", "template.md.jinja"}:
            continue
        assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed)\.md", file.name), file.name
        text = file.read_text(encoding="utf-8").strip()
        assert text.endswith((".", ")")), file.name
        assert len(text) < 500, file.name


def test_the_changelog_can_be_built() -> None:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9", "--date", "2026-01-01"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "## 9.9.9 (2026-01-01)" in done.stdout


# ---------------------------------------------------------------------------------------------------------------- packaging


def test_constraints_pin_every_direct_dependency() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    project = _project()["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[<>=!~\[]", line)[0] for line in asked} - {"keepfed"}
    assert pinned == names


def test_the_file_that_arms_programs_goes_to_the_root_of_site_packages() -> None:
    """Python reads .pth files nowhere else; hatchling applies this to wheels and to editable installs."""
    included = _project()["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"src/keepfed/_site/keepfed.pth": "keepfed.pth"}
    assert (PACKAGE / "_site" / "keepfed.pth").is_file()
