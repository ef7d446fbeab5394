r"""From a solved exercise to the reader's file and back: the file without its solutions, and the checks on the reader's file.

>>> print(handout("def double(x):\n    'Twice x.'\n    return 2 * x"), end="")
def double(x):
    'Twice x.'
    raise NotImplementedError("write me")
"""

import ast
import importlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from led_ref.errors import InputError, MissingFileError

HERE = Path(__file__).parent
TO_WRITE = 'raise NotImplementedError("write me")'


@dataclass(frozen=True)
class Exercise:
    """One exercise: the number of the book's chapter, and the path of the solved file."""

    number: int
    path: Path

    @property
    def title(self) -> str:
        """The first line of its task."""
        return (ast.get_docstring(ast.parse(self.solved)) or "").partition("\n")[0]

    @property
    def solved(self) -> str:
        """The solved file's text."""
        return self.path.read_text(encoding="utf-8")

    @property
    def file_name(self) -> str:
        """The name of the reader's file."""
        return f"exercise_{self.path.stem[1:]}.py"


@dataclass(frozen=True)
class Outcome:
    """The result of one check. `failure` is None if it passed, else the reason."""

    name: str
    failure: str | None


def exercises() -> list[Exercise]:
    """All of them, by number."""
    return [Exercise(int(path.stem[1:3]), path) for path in sorted(HERE.glob("e[0-9]*.py"))]


def exercise(number: int) -> Exercise:
    """The exercise of a chapter.

    Raises:
        InputError: if that chapter has none; the message lists the chapters that have one.
    """
    known = {each.number: each for each in exercises()}
    if number not in known:
        raise InputError(f"There is no exercise {number}. Choose among {', '.join(map(str, known))}.")
    return known[number]


def handout(solved: str) -> str:
    """A solved file without its solutions and checks: docstring, imports, and the functions' signatures and docstrings."""
    lines = solved.splitlines()
    kept: list[list[str]] = []
    for node in ast.parse(solved).body:
        start, stop = node.lineno - 1, node.end_lineno or node.lineno
        if isinstance(node, ast.FunctionDef):
            if node.name.startswith(("check_", "_")):
                continue
            promise = node.body[0].end_lineno or stop
            kept.append([*([""] * 2 if kept else []), *lines[start:promise], f"    {TO_WRITE}"])
        elif not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("led_ref")):
            begins_a_paragraph = bool(kept) and start > 0 and not lines[start - 1].strip()
            kept.append([*([""] if begins_a_paragraph else []), *lines[start:stop]])
    return "\n".join(line for part in kept for line in part) + "\n"


def solutions(solved: str) -> str:
    """The functions of a solved file that the reader is to write."""
    functions = [node for node in ast.parse(solved).body if isinstance(node, ast.FunctionDef)]
    lines = solved.splitlines()
    written = [node for node in functions if not node.name.startswith(("check_", "_"))]
    return "\n\n\n".join("\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in written) + "\n"


def run_checks(one: Exercise, path: Path) -> Iterator[Outcome]:
    """Run the exercise's checks on the reader's file, in order; errors as in `load`."""
    yours = load(path)
    checks = importlib.import_module(f"led_ref.tools.exercises.{one.path.stem}")
    for name, check in vars(checks).items():
        if name.startswith("check_"):
            yield Outcome(name.removeprefix("check_").replace("_", " "), _failure(check, yours, path))


def load(path: Path) -> ModuleType:
    """The reader's file as a module.

    Raises:
        MissingFileError: if there is none.
        InputError: if it does not run at all, naming the line.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no {path}. `led-ref exercise N` writes it.")
    try:
        module = ModuleType(path.stem)
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except Exception as error:
        raise InputError(f"{path} does not run: {_said(error, path)}. Mend that line first.") from error
    return module


def _failure(check: Callable[[Any], None], yours: ModuleType, path: Path) -> str | None:
    """The reason why a check fails, in one line, or None."""
    try:
        check(yours)
    except AssertionError as error:
        return str(error) or _said(error, path)
    except NotImplementedError:
        return "not written yet"
    except Exception as error:  # report whatever the reader's code raises, and go on
        return _said(error, path)
    return None


def _said(error: Exception, path: Path) -> str:
    """An error, with the last line of the reader's own file in its traceback."""
    frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (frames[-1] if frames else None)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" + (f" (line {line})" if line else "")
