"""The layout rules of CONTRIBUTING.md, held by reading the source: who may import whom, and how long things may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted([*(ROOT / "led_ref").rglob("*.py"), *(ROOT / "backends" / "led_backends").rglob("*.py")])

# The parts, lowest first, and what each may import of the parts above it in this table. All may import themselves and errors.
MAY_IMPORT = {
    "errors": "",
    "files": "",
    "lazy": "",
    "bundled": "",
    "config": "files",
    "led_backends": "",
    "tokenizer": "files",
    "generation": "",
    "model": "config led_backends",
    "oracle.definition": "config tokenizer",  # of the tokenizer, one table: see the test of what the definitions share
    "weights": "config files led_backends model",
    "costs": "config led_backends model weights",
    "classes": "config costs generation files led_backends model tokenizer weights",
    "training": "classes config costs generation files led_backends model tokenizer weights",
    "oracle.traces": "files led_backends model training weights",
    "oracle.vectors": "classes config generation files led_backends model tokenizer training weights",
    "pipelines": "classes config costs files generation led_backends tokenizer weights",
    "api": "led_backends pipelines training",
    "tools": "api classes config costs files generation led_backends model oracle.definition oracle.traces pipelines tokenizer "
    "training weights",
    "cli": "api bundled classes config costs files led_backends oracle.traces oracle.vectors pipelines tokenizer tools "
    "training weights",
}


def module_name(path: Path) -> str:
    """The dotted name of a file of the library."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "backends" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in LIBRARY}


def imported_modules(tree: ast.AST) -> set[str]:
    """The modules of ours that a file imports: at its top, inside functions and under TYPE_CHECKING alike."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES and name != "led_ref"}


def import_graph() -> dict[str, set[str]]:
    """Every module with the modules that it imports. `led_ref/__init__.py` hands on names of all, and is not counted."""
    graph = {name: imported_modules(ast.parse(path.read_text(encoding="utf-8"))) for name, path in MODULES.items()}
    del graph["led_ref"]
    return graph


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none: []."""
    finished: set[str] = set()

    def search(path: list[str]) -> list[str]:
        for target in sorted(graph[path[-1]]):
            if target in path:
                return [*path[path.index(target) :], target]
            if target not in finished and (found := search([*path, target])):
                return found
        finished.add(path[-1])
        return []

    return next((found for name in sorted(graph) if name not in finished and (found := search([name]))), [])


def part_of(module: str) -> str:
    """The part that a module belongs to."""
    names = module.split(".")
    if names[0] == "led_backends":
        return "led_backends"
    if names[1] == "__main__":
        return "cli"
    return ".".join(names[1:3]) if names[1] == "oracle" else names[1].removesuffix("_formats")  # config_formats


def test_few_modules_at_the_top():
    assert len([path for path in LIBRARY if path.parent == ROOT / "led_ref" and path.name != "__init__.py"]) <= 6


def test_no_circle_of_imports():
    assert find_circle(import_graph()) == []


def test_added_import_circle_is_found():
    graph = import_graph()
    assert "led_ref.model.masks" in graph["led_ref.model.sliding_window"]
    graph["led_ref.model.masks"].add("led_ref.model.encoder")  # which imports the sliding window
    assert {"led_ref.model.masks", "led_ref.model.encoder"} <= set(find_circle(graph))


def test_import_direction():
    order = list(MAY_IMPORT)
    assert len(order) <= 20
    for part, allowed in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(part) for other in allowed.split()), part
    for module, targets in import_graph().items():
        part = part_of(module)
        allowed = {part, "errors", *MAY_IMPORT.get(part, "").split()}
        if MODULES[module].name == "__init__.py":  # it hands on names of its own files
            allowed |= {"lazy", *(other for other in order if other.startswith(f"{part}."))}
        for target in targets:
            assert part_of(target) in allowed, f"{module} ({part}) imports {target}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "led_ref" / "oracle" / "definition").glob("*.py")), ids=lambda path: path.name
)
def test_definition_shares_no_code(path):
    found = imported_modules(ast.parse(path.read_text(encoding="utf-8")))
    found = {name for name in found if not name.startswith("led_ref.oracle.definition")}
    assert found <= {"led_ref.config", "led_ref.tokenizer.unicode_ranges"}


def test_trace_imports_recorder_only():
    hooks = {
        f"led_ref.model.{name}"
        for name in ("hooks", "backward_hooks", "intermediates", "attention_maps", "ops", "losses")
    }  # for their file names and lines
    for path in (ROOT / "led_ref" / "oracle" / "traces").glob("*.py"):
        found = imported_modules(ast.parse(path.read_text(encoding="utf-8")))
        assert {name for name in found if name.startswith("led_ref.model.")} <= hooks


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_and_function_length(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= 60, f"{path.name}: {node.name} has {lines} lines beside its docstring"


def test_model_array_namespace_is_listed():
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


def test_import_needs_numpy_only():
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


def test_array_name_letters_in_dimension_key():
    import led_ref.config

    key = set(re.findall(r"(?:^|\s\s)([A-Zh])  \S", led_ref.config.__doc__, flags=re.MULTILINE))
    assert {"B", "T", "D", "N", "Z", "h"} <= key
    for path in [*(ROOT / "led_ref" / "model").glob("*.py"), *(ROOT / "led_ref" / "generation").glob("*.py")]:
        for name in re.findall(r"\b[a-z]\w*_([A-Z0-9h]*[A-Z][A-Z0-9]*)\b", path.read_text(encoding="utf-8")):
            unknown = set(re.sub(r"[0-9]", "", name)) - key
            assert not unknown, f"{path.name}: _{name} has {unknown}, which is not in config.py's dimension key"
