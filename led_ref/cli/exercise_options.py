"""The options of `led-ref exercise`, apart from cli.py, which is long enough. What runs is fetched when it is asked for."""

import argparse
from collections.abc import Callable
from typing import Any

EXAMPLES = """
  led-ref exercise                                  what there is, by chapter of the book
  led-ref exercise 4                                write exercise_04_window.py here, and check it; again: check it
  led-ref exercise 4 --solution                     one way to do it
"""


def add_exercise_command(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `exercise`.

    Args:
        commands: the subparsers of `led-ref`.
        command: cli.py's way to add one.
    """
    exercise = command(commands, "exercise", run, "hand out an exercise of the book, and check what you wrote")
    exercise.add_argument("number", type=int, nargs="?", metavar="N", help="the chapter's number; nothing: list all")
    exercise.add_argument("--folder", default=".", metavar="DIR", help="where your file is (default: here)")
    exercise.add_argument("--solution", action="store_true", help="print one way to do it")


def run(options: argparse.Namespace) -> int:
    """`led-ref exercise`: something to write oneself."""
    from led_ref.cli.exercising import run_exercise

    return run_exercise(options)
