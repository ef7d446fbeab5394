"""The layout rules of CONTRIBUTING.md, held by reading the source: who may import whom, and how long things may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted([*(ROOT / "led_ref").rglob("*.py"), *(ROOT / "backends" / "led_backends").rglob("*.py")])

# What each part may import of led_ref and led_backends. A part is the first name under led_ref; all may import errors.
LEAVES = {"errors"}
MAY_IMPORT = {
    "led_backends": {"led_backends"},
    "errors": set(),
    "json_file": set(),
    "labels": set(),
    "config": {"json_file", "labels"},
    "model": {"led_backends", "config", "model"},
    "tokenizer": {"tokenizer"},
    "generation": {"generation"},
    "oracle": {"config"},
    "oracle.dense_tokenizer": {"tokenizer"},  # one table of it: see the test of what the definitions share
    "oracle.trace": {"led_backends", "model", "oracle", "weights"},  # of the model, only its tap: see the test
    "oracle.diff": {"led_backends", "oracle"},
    "oracle.vectors": {"led_backends", "config", "generation", "led", "model", "oracle", "tokenizer", "weights"},
    "documents": set(),
    "inputs": {"led_backends", "config", "labels", "model"},
    "device": {"led_backends", "config", "memory_plan", "planning"},
    "planning": {"config"},
    "memory_plan": {"config", "led_backends", "planning"},
    "weights": {"led_backends", "config", "json_file", "model", "weights"},
    "pretrained": {"device", "led_backends", "config", "json_file", "model", "weights"},
    "batches": {"tokenizer", "device", "config", "generation", "led", "memory_plan", "model", "planning", "reading"},
    "reading": {"planning", "device", "led_backends", "config", "inputs", "model"},
    "writing": {"planning", "device", "led_backends", "config", "inputs", "model", "generation", "led", "reading"},
    "generating": {"led_backends", "generation", "led", "model", "reading", "tokenizer", "writing"},
    "led": {
        "generating",
        "device",
        "led_backends",
        "config",
        "inputs",
        "model",
        "weights",
        "pretrained",
        "reading",
        "writing",
    },
    "led_heads": {"led_backends", "config", "inputs", "labels", "led", "model", "pretrained", "reading"},
    "global_mask": {"led_backends"},
    "streaming": {"api", "batches", "global_mask", "reading", "tokenizer"},
    "api": {
        "streaming",
        "batches",
        "global_mask",
        "led_backends",
        "config",
        "led",
        "reading",
        "tokenizer",
        "weights",
        "model",
        "pretrained",
    },
    "spans": {"led_backends"},
    "answering": {"led_backends", "api", "led_heads", "reading", "spans", "tokenizer"},
    "classifying": {"global_mask", "led_backends", "api", "labels", "led_heads", "reading", "spans", "tokenizer"},
    "explorer": {"led_backends", "api", "explorer", "generation", "model"},  # of the model, its tap
    "commands": {
        "global_mask",
        "led_backends",
        "explorer",
        "answering",
        "api",
        "classifying",
        "batches",
        "led",
        "commands",
        "config",
        "documents",
        "exercises",
        "memory_plan",
        "model",
        "oracle",
        "planning",
        "pretrained",
        "tokenizer",
        "weights",
    },
    "exercises": {"led_backends", "api", "exercises", "model", "oracle", "planning", "tokenizer", "weights"},
    "cli": {"commands"},
    "__init__": {
        "answering",
        "api",
        "classifying",
        "config",
        "generation",
        "led",
        "led_heads",
        "model",
        "oracle",
        "tokenizer",
    },  # for type checkers; at run time fetched late
}


def part_of(module: str) -> str:
    """The part that a dotted name belongs to."""
    names = module.split(".")
    return names[0] if names[0] == "led_backends" else (names[1] if len(names) > 1 else "__init__")


def part_of_file(path: Path) -> str:
    """The part that a file belongs to."""
    relative = path.relative_to(ROOT).with_suffix("").parts
    if relative[:2] == ("led_ref", "oracle"):  # the definitions know nothing; what compares knows what it compares
        names = (f"oracle.{relative[2]}", f"oracle.{relative[2].split('_')[0]}")
        return next((name for name in names if name in MAY_IMPORT), "oracle")
    return "led_backends" if relative[0] == "backends" else relative[1]


def imported_modules(tree: ast.AST) -> set[str]:
    """The dotted names of ours that a file imports, at any level."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("led_ref", "led_backends")}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    part = part_of_file(path)
    for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
        target = part_of(module)
        if module == "led_ref.__version__":
            continue
        assert target in MAY_IMPORT[part] | LEAVES, f"{path.name} ({part}) imports {module} ({target})"


@pytest.mark.parametrize("path", sorted((ROOT / "led_ref" / "oracle").glob("dense*.py")), ids=lambda path: path.name)
def test_a_definition_shares_no_code_with_what_it_judges(path):
    data = {"led_ref.config.LEDConfig", "led_ref.tokenizer.unicode_ranges"}
    found = imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    assert {name for name in found if not name.startswith(tuple(data))} == set()


def test_a_trace_listens_to_the_model_and_touches_nothing_of_it():
    for path in (ROOT / "led_ref" / "oracle").glob("trace*.py"):
        found = imported_modules(ast.parse(path.read_text(encoding="utf-8")))
        assert {name for name in found if name.startswith("led_ref.model.") and ".tap" not in name} == set()


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_above_400_lines_and_no_function_above_60(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= 60, f"{path.name}: {node.name} has {lines} lines beside its docstring"


def test_the_model_uses_only_the_listed_names_of_the_array_namespace():
    from led_backends.contract import XP_NAMES

    used = set()
    for path in (ROOT / "led_ref" / "model").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and (
                (isinstance(node.value, ast.Name) and node.value.id == "xp")
                or (isinstance(node.value, ast.Attribute) and node.value.attr == "xp")
            ):
                used.add(node.attr)
    assert used == XP_NAMES


def test_led_ref_needs_numpy_and_nothing_else_until_more_is_asked_for():
    program = (
        "import sys, led_ref; assert 'numpy' not in sys.modules; names = [getattr(led_ref, n) for n in led_ref.__all__];"
        "print(sorted({m.split('.')[0] for m in sys.modules if '__' not in m} - sys.stdlib_module_names))"
    )
    clean = [
        sys.executable,
        "-S",
        "-c",
        f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'backends'), *_numpy_folder()]}; {program}",
    ]
    done = subprocess.run(clean, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['led_backends', 'led_ref', 'numpy']"


def _numpy_folder() -> list[str]:
    import numpy

    return [str(Path(numpy.__file__).parent.parent)]


def test_the_letters_of_array_names_are_in_the_dimension_key():
    import led_ref.config

    key = set(re.findall(r"(?:^|\s\s)([A-Zh])  \S", led_ref.config.__doc__, flags=re.MULTILINE))
    assert {"B", "T", "D", "N", "Z", "h"} <= key
    for path in [*(ROOT / "led_ref" / "model").glob("*.py"), *(ROOT / "led_ref" / "generation").glob("*.py")]:
        for name in re.findall(r"\b[a-z]\w*_([A-Z0-9h]*[A-Z][A-Z0-9]*)\b", path.read_text(encoding="utf-8")):
            unknown = set(re.sub(r"[0-9]", "", name)) - key
            assert not unknown, f"{path.name}: _{name} has {unknown}, which is not in config.py's dimension key"
