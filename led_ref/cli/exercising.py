"""`led-ref exercise`: hand out an exercise of the book, check what the reader made of it, show how it can be solved."""

import argparse
from pathlib import Path

from led_ref.cli.progress import say
from led_ref.errors import InputError
from led_ref.tools.exercises.handout import Exercise, exercise, exercises, handout, run_checks, solutions


def run_exercise(options: argparse.Namespace) -> int:
    """List the exercises; or write the reader's file if it is not there, and check it. 0: all checks pass."""
    if options.number is None:
        for one in exercises():
            print(f"{one.number:3}  {one.title}")
        return 0
    one = exercise(options.number)
    if options.solution:
        print(solutions(one.solved), end="")
        return 0
    path = Path(options.folder) / one.file_name
    if not path.exists():
        _hand_out(one, path)
    return _check(one, path)


def _hand_out(one: Exercise, path: Path) -> None:
    """Write the reader's file."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(handout(one.solved))
    except OSError as error:
        raise InputError(f"{path} could not be written ({error.strerror}). Give another --folder.") from error
    say(f"wrote {path}: read it, write its functions, and run this command again")


def _check(one: Exercise, path: Path) -> int:
    """Print what each check says; the exit code."""
    failed = 0
    for outcome in run_checks(one, path):
        failed += outcome.failure is not None
        print(f"{'fails' if outcome.failure else 'ok':6}{outcome.name}")
        if outcome.failure:
            print(f"      {outcome.failure}")
    if failed:
        say(f"{failed} to go. `led-ref exercise {one.number} --solution` shows one way to do it")
        return 1
    say(f"solved. What led_ref does in its place is in the last check of {one.path.name}, in led_ref/exercises")
    return 0
