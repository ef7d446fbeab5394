"""The model computes; few of its lines only show what it computes, and few parameters carry it from function to function."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

MODEL = Path(__file__).parent.parent / "led_ref" / "model"
# Those that record, that draw attention maps, and that list the parameters: not the arithmetic.
NOT_ARITHMETIC = {"hooks.py", "intermediates.py", "attention_maps.py", "params.py", "__init__.py"}
ARITHMETIC = sorted(path for path in MODEL.glob("*.py") if path.name not in NOT_ARITHMETIC)
# Those of them that an observer looks into.
LAYERS = [path for path in ARITHMETIC if path.name in ("encoder.py", "decoder.py", "ops.py", "global_attention.py")]

# A name that is there for observation alone. The first row is today's, the second one that of a recorder.
OBSERVES = re.compile(
    r"tap|tap_\w+|Tap|Recorder|SILENT|wants|tell_attention|window_pictures?|shown|told"
    r"|record|records|recorded|recording|recorders?|record_\w+|recorder_\w+|\w+_recorder|\w*Recorder|\w*intermediates?|hooks?"
)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of every string that stands alone as a statement."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= set(range(node.lineno, node.end_lineno + 1))
    return found


def observing_statements(tree: ast.AST) -> set[int]:
    """The lines of statements that as a whole observe: `tap(...)`, `shown = ...`, and what runs only `if tap.wants(...)`."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and observes(node.test):
            found |= set(range(node.lineno, node.body[-1].end_lineno + 1))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and observes(node.value.func):
            found |= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(observes(target) for target in targets):
                found |= set(range(node.lineno, node.end_lineno + 1))
    return found


def observes(tree: ast.AST) -> bool:
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names += [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return any(OBSERVES.fullmatch(name) for name in names)


def count_lines(text: str) -> tuple[int, int]:
    """(lines of code, those of them that observe: they name what observes, or belong to a statement that does)."""
    code: set[int] = set()
    tree = ast.parse(text)
    observing = observing_statements(tree)
    documentation = docstring_lines(tree)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in NO_CODE or token.start[0] in documentation:
            continue
        code |= set(range(token.start[0], token.end[0] + 1))
        if token.type == tokenize.NAME and OBSERVES.fullmatch(token.string):
            observing.add(token.start[0])
    return len(code), len(observing & code)


def test_observation_rule():
    text = '"""A tap."""\n\n\ndef f(x, tap):\n    """Tell tap."""\n    # tap\n    y = x  # tap\n    tap("y", y)\n    return y\n'
    assert count_lines(text) == (4, 2)
    assert count_lines(text.replace("tap", "recorder")) == (4, 2)
    wanted = text.replace('    tap("y", y)', '    if tap.wants("y"):\n        z = y + 1\n        tap("y", z)')
    assert count_lines(wanted) == (6, 4)
    assert count_lines(text.replace("tap", "taper")) == (4, 0)


@pytest.mark.parametrize("paths", [ARITHMETIC, LAYERS], ids=["arithmetic", "layers"])
def test_share_of_observing_lines(paths):
    counts = {path.name: count_lines(path.read_text(encoding="utf-8")) for path in paths}
    code, observing = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    table = "\n".join(f"    {name}: {lines} of {all_lines}" for name, (all_lines, lines) in counts.items() if lines)
    assert observing < 0.05 * code, f"{observing} of {code} lines ({observing / code:.1%}) only observe:\n{table}"


@pytest.mark.parametrize("path", sorted(MODEL.glob("*.py")), ids=lambda path: path.name)
def test_at_most_six_parameters(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            given = node.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names += [argument.arg for argument in (given.vararg, given.kwarg) if argument is not None]
            name = getattr(node, "name", "a lambda")
            assert len(names) <= 6, f"{path.name}: {name} has {len(names)} parameters: {', '.join(names)}"
