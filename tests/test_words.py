"""The words of the field: which words led_ref uses and which it has left, how long its names are, and how large it is."""

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted([*(ROOT / "led_ref").rglob("*.py"), *(ROOT / "backends" / "led_backends").rglob("*.py")])
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LEFT = (r"\btap\b", r"(?<!\.)\btells?\b", r"\btold\b", r"\bhears?\b", r"\bheard\b", r"\bin\s+vain\b", r"\bshuns\b")
LEFT += (r"\bsee\s+there\b", r"\bplanted\s+bugs?\b")

# A term of the field, and the file in which a reader looks for it.
TERMS = {
    "residual": "led_ref/model/ops.py",
    "KV cache": "led_ref/model/kv_cache.py",
    "key-value": "led_ref/model/kv_cache.py",
    "attention map": "led_ref/model/attention_maps.py",
    "padding mask": "led_ref/model/masks.py",
    "causal": "led_ref/model/decoder.py",
    "teacher forcing": "led_ref/model/losses.py",
    "head dimension": "led_ref/model/ops.py",
    "hypothesis": "led_ref/generation/beam_search.py",
    "autoregressive": "led_ref/generation/step.py",
}

# Files of other projects that ours name.
FOREIGN = {"longformer/longformerencoderdecoder.py", "longformerencoderdecoder.py"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_words_that_were_left():
    found = []
    for path in [*LIBRARY, *PAGES]:
        text = path.read_text(encoding="utf-8")
        for word in LEFT:
            for match in re.finditer(word, text, flags=re.IGNORECASE):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{relative(path)}:{line}: {match[0]}")
    assert not found, "\n".join([f"{len(found)} words that led_ref does not use:", *sorted(found)])


@pytest.mark.parametrize(("term", "name"), TERMS.items())
def test_terms_of_the_field(term, name):
    assert (ROOT / name).is_file(), f"{name}: no such file; name the one that {term!r} belongs to"
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())  # a term may be broken over two lines
    assert re.search(rf"\b{term}", text, flags=re.IGNORECASE), f"{name} does not say {term!r}"


def test_names_of_test_functions():
    long = []
    for path in TESTS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        long += [f"{relative(path)}::{name}" for name in names if name.startswith("test_") and len(name) >= 60]
    assert not long, "\n".join([f"{len(long)} test functions have names of 60 characters or more:", *long])


def prose_of(text: str) -> str:
    """The docstrings and comments of a file."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    return "\n".join([*comments, *(ast.get_docstring(node, clean=False) or "" for node in nodes)])


def files_of_the_repository() -> set[str]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, capture_output=True, text=True, cwd=ROOT)
    if done.returncode == 0:
        return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
    folders = ("led_ref", "backends", "tests", "docs", "notebooks")  # without git: an unpacked archive
    return {relative(path) for folder in folders for path in (ROOT / folder).rglob("*.py")}


def test_named_files_exist():
    existing = {f"/{name}" for name in files_of_the_repository()}
    missing = []
    for path in LIBRARY:
        named = set(re.findall(r"(?<![\w/.*<-])[\w/]*\w\.py\b", prose_of(path.read_text(encoding="utf-8")))) - FOREIGN
        absent = {name for name in named if not any(file.endswith(f"/{name}") for file in existing)}
        missing += [f"{relative(path)} names {name}" for name in sorted(absent)]
    assert not missing, "\n".join(["No such files:", *missing])


def test_modules_at_the_top():
    modules = sorted(path.name for path in (ROOT / "led_ref").glob("*.py") if not path.name.startswith("__"))
    assert len(modules) <= 6, ", ".join(modules)


def test_lines_of_the_library():
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY)
    # 23,100 when the house was put in order; training, more checks of what people give and the demo of three models came after.
    assert lines <= 41_800
