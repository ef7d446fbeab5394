"""`led-ref exercise`: hand out an exercise of the book, check what the reader made of it, show how it can be solved."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from led_ref.errors import InputError
from led_ref.files.staging import new_file, to_write
from led_ref.tools.terminal import reader_may_leave, say

if TYPE_CHECKING:
    from led_ref.tools.exercises.handout import Exercise

SUMMARY = "hand out an exercise of the book, and check what you wrote"
EXAMPLES = """
  led-ref exercise                                  list the exercises, by chapter of the book
  led-ref exercise 4                                write exercise_04_window.py here, and check it; again: check it
  led-ref exercise 4 --solution                     one way to do it
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref exercise`."""
    parser.add_argument("number", type=int, nargs="?", metavar="N", help="the chapter's number; nothing: list all")
    parser.add_argument("--folder", default=".", metavar="DIR", help="where your file is (default: here)")
    parser.add_argument("--solution", action="store_true", help="print one way to do it")


def run(options: argparse.Namespace) -> int:
    """List the exercises; or write the reader's file if it does not exist, and check it. 0: all checks pass."""
    from led_ref.tools.exercises.handout import exercise, exercises, handout, solutions

    if options.number is None:
        for one in exercises():
            print(f"{one.number:3}  {one.title}")
        return 0
    one = exercise(options.number)
    if options.solution:
        print(solutions(one.solved), end="")
        return 0
    path = to_write("--folder", options.folder) / one.file_name
    if not path.exists():
        try:
            with new_file(path) as unfinished:
                unfinished.write_text(handout(one.solved), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path} could not be written ({error.strerror}). Give another --folder.") from error
        say(f"wrote {path}: read it, write its functions, and run this command again")
    return _check(one, path)


def _check(one: "Exercise", path: Path) -> int:
    """Print the outcome of each check; the exit code."""
    from led_ref.tools.exercises.handout import run_checks

    failed = 0
    for outcome in run_checks(one, path):
        failed += outcome.failure is not None
        with reader_may_leave():
            print(f"{'fails' if outcome.failure else 'ok':6}{outcome.name}", flush=True)
            if outcome.failure:
                print(f"      {outcome.failure}")
    if failed:
        say(f"{failed} to go. `led-ref exercise {one.number} --solution` shows one way to do it")
        return 1
    say(f"solved. What led_ref does in its place is in the last check of {one.path.name}, in led_ref/tools/exercises")
    return 0
