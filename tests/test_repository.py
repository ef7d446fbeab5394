"""What must never be committed: big files, machines' paths, notebook outputs, registries' host names."""

import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP = {
    ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "backends", "docs", "led_ref",
    "mkdocs.yml", "notebooks", "pyproject.toml", "tests",
}  # fmt: skip
FOLDERS_OF_ONE_MACHINE = ("tmp", "root", "work", "home", "farm")


def tracked_files() -> list[Path]:
    """The files that git tracks, or would if they were added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_nothing_is_left_at_the_top():
    """Such as what a test wrote into the folder in which it ran."""
    assert {path.relative_to(ROOT).parts[0] for path in tracked_files()} <= TOP


def test_no_file_over_10_megabytes():
    assert [path.name for path in tracked_files() if path.stat().st_size > 10_000_000] == []


def test_no_machine_paths_or_registries():
    odd = re.compile(
        rf"(?<![\w.])/({'|'.join(FOLDERS_OF_ONE_MACHINE)})/|pypi\.org|files\.pythonhosted|registry\.npmjs|deb\.debian"
    )
    found = []
    for path in tracked_files():
        if path.suffix in {".json", ".safetensors", ".gz", ".png", ".bin"} or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if odd.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_notebooks_are_python_without_outputs():
    assert [path.name for path in tracked_files() if path.suffix == ".ipynb"] == []


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them without their folders: of two with one name it collects one, and an error."""
    names = Counter(path.name for path in tracked_files() if path.name.startswith("test_"))
    assert not [name for name, count in names.items() if count > 1]
