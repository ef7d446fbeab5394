"""`led-ref vectors write | check | answer`: the conformance vectors, from the definition to a verdict."""

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from led_ref.api import bundled_model
from led_ref.cli.output import print_json
from led_ref.cli.progress import say
from led_ref.errors import InputError, LEDError, MissingFileError
from led_ref.oracle.vectors.ask_led_ref import LedRef
from led_ref.oracle.vectors.ask_program import ask_program, parse_command, write_answers
from led_ref.oracle.vectors.format import read_suite
from led_ref.oracle.vectors.judge import FAILED, Verdict, as_json, as_junit, judge, summary_lines


def run_vectors(options: argparse.Namespace) -> int:
    """Do what is asked. 0 if all went well; 1 if a case failed."""
    if options.action == "write":
        return _write(options)
    if options.action == "answer":
        write_answers(options.questions, options.results)
        return 0
    return _check(options)


def _write(options: argparse.Namespace) -> int:
    """Make all vectors anew."""
    writers = bundled_model().parent.parent / "tests" / "vectors"
    if not (writers / "make").is_dir():
        raise MissingFileError(
            "The writers of the vectors are not installed: they lie in led_ref's repository, in tests/vectors/make. "
            "Clone it, and run this there."
        )
    sys.path.append(str(writers))
    write_suite = importlib.import_module("make.write").write_suite
    folder = Path(options.folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder to write the vectors into.")
    counts = write_suite(folder, bundled_model())
    size = sum(path.stat().st_size for path in folder.iterdir())
    shown = {"folder": str(folder), "cases": sum(counts.values()), "levels": counts, "bytes": size}
    if options.json:
        print_json(shown)
    else:
        print(f"wrote {shown['cases']} cases ({size / 1e6:.1f} MB) into {folder}")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Ask led_ref, or a program, and print the verdicts."""
    words = None if options.cmd is None else parse_command(options.cmd)
    if options.timeout <= 0:
        raise InputError(f"--timeout is {options.timeout:g}; give a number of seconds above 0.")
    checkpoints = {} if options.checkpoint is None else {"led-base-16384": options.checkpoint}
    suite = read_suite(options.folder, levels=options.level)
    started = time.perf_counter()
    if words is None:
        subject = LedRef(suite, options.dtype, checkpoints)
        found = [judge(case, subject.answer(case), options.dtype) for case in suite.cases]
    else:
        with_bundled = {"bundled": bundled_model(), **checkpoints}
        answers = ask_program(words, suite, options.dtype, timeout=options.timeout, checkpoints=with_bundled)
        found = [judge(case, answers[case.id], options.dtype) for case in suite.cases]
    who = "led_ref" if words is None else shlex.join(words)
    _report(options, found, {"vectors": str(options.folder), "tested": who, "dtype": options.dtype,
                             "seconds": round(time.perf_counter() - started, 2)})  # fmt: skip
    failed = sum(verdict.status == FAILED for verdict in found)
    if failed:
        say(f"{failed} of {len(found)} cases failed")
    return 1 if failed else 0


def _report(options: argparse.Namespace, found: Sequence[Verdict], about: dict[str, Any]) -> None:
    if options.junit is not None:
        try:
            Path(options.junit).write_bytes(as_junit(found, "led-vectors"))
        except OSError as error:
            raise LEDError(f"{options.junit} could not be written ({error.strerror}). Name another file.") from error
    if options.json:
        print_json(as_json(found, about))
        return
    for line in summary_lines(found):
        print(line)
