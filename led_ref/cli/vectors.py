"""`led-ref vectors check | write | answer`: the conformance vectors, from the definition to a verdict."""

import argparse
import importlib
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

from led_ref.cli.shared_options import Misused, add_shared
from led_ref.errors import InputError, LEDError, MissingFileError
from led_ref.files.staging import new_file, to_write
from led_ref.tools.terminal import print_json, reader_may_leave, say

SUMMARY = "check an implementation of LED, in any language, by known answers"
EXAMPLES = """
  led-ref vectors check tests/vectors/v1                              led_ref itself
  led-ref vectors check tests/vectors/v1 --cmd 'my-led --in {in} --out {out}' --dtype float32
  led-ref vectors check tests/vectors/v1 --level L1 L2 --junit vectors.xml
  led-ref vectors write tests/vectors/v1                              make them anew, the same to the bit
"""
DTYPES = ("float64", "float32", "float16", "bfloat16")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the three actions of `led-ref vectors` with their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    check = actions.add_parser(
        "check", help="ask led_ref or a program, and print what passed and what failed, by level"
    )
    check.add_argument("folder", metavar="DIR", help="the vectors, such as tests/vectors/v1")
    check.add_argument("--cmd", metavar="COMMAND", help="the program to ask, with {in} and {out} (default: led_ref)")
    check.add_argument("--level", nargs="+", metavar="L0...L8", help="only these levels")
    check.add_argument("--dtype", choices=DTYPES, default="float64", help="what to compute in, and whose tolerances")
    check.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for a call of the program (300)")
    check.add_argument("--checkpoint", metavar="DIR", help="led-base-16384, for level 7")
    check.add_argument("--junit", metavar="FILE", help="also write JUnit XML")
    add_shared(check, "--threads", help="threads of led_ref itself (default: 1)")
    add_shared(check, "--json")

    write = actions.add_parser("write", help="make all vectors from the definition")
    write.add_argument("folder", metavar="DIR", help="where to; existing files of the same names are replaced")
    add_shared(write, "--json")

    answer = actions.add_parser("answer", help="led_ref as the program that is asked: for trying out --cmd")
    answer.add_argument("--in", dest="questions", required=True, metavar="DIR", help="the questions")
    add_shared(answer, "--threads", help="threads (default: 1)")
    answer.add_argument("--out", dest="results", required=True, metavar="DIR", help="where the answers go")


def run(options: argparse.Namespace) -> int:
    """Do the action. 0 if all went well; 1 if a case failed."""
    if options.action == "write":
        return _write(options)
    if options.action == "check":
        return _check(options)
    from led_ref.oracle.vectors.ask_program import write_answers

    write_answers(options.questions, options.results, threads=options.threads or 1)
    return 0


def _write(options: argparse.Namespace) -> int:
    """Make all vectors anew."""
    from led_ref.api import bundled_model

    writers = bundled_model().parent.parent / "tests" / "vectors"
    if not (writers / "make").is_dir():
        raise MissingFileError(
            "The writers of the vectors are not installed: they lie in led_ref's repository, in tests/vectors/make. "
            "Clone it, and run this there."
        )
    sys.path.append(str(writers))
    write_suite = importlib.import_module("make.write").write_suite
    folder = to_write("folder", options.folder)
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
    from led_ref.api import bundled_model
    from led_ref.oracle.vectors.ask_led_ref import LedRef
    from led_ref.oracle.vectors.ask_program import ask_program, parse_command
    from led_ref.oracle.vectors.format import read_suite
    from led_ref.oracle.vectors.judge import FAILED, SKIPPED, as_json, as_junit, summary_lines, verdicts
    from led_ref.oracle.vectors.mistakes import likely_mistakes

    if options.cmd is not None and options.threads is not None:
        raise Misused("--threads are led_ref's own; give those of the program in --cmd")
    command = None if options.cmd is None else parse_command(options.cmd)
    if not options.timeout > 0:  # NaN is not, either
        raise InputError(f"--timeout is {options.timeout:g}; give a number of seconds above 0.")
    checkpoints = {} if options.checkpoint is None else {"led-base-16384": options.checkpoint}
    suite = read_suite(options.folder, levels=options.level)
    if options.junit is not None:
        to_write("--junit", options.junit)
    started = time.perf_counter()
    if command is None:
        subject = LedRef(suite, options.dtype, checkpoints, threads=options.threads or 1)
        found = list(verdicts(suite.cases, subject.answer, options.dtype))
    else:
        with_bundled = {"bundled": bundled_model(), **checkpoints}
        answers = ask_program(command, suite, options.dtype, timeout=options.timeout, checkpoints=with_bundled)
        found = list(verdicts(suite.cases, lambda case: answers[case.id], options.dtype))
    seconds = round(time.perf_counter() - started, 2)
    failures = {verdict.case.id: verdict.status == FAILED for verdict in found if verdict.status != SKIPPED}
    likely = likely_mistakes(failures, options.dtype)
    if options.junit is not None:
        try:
            with new_file(Path(options.junit)) as unfinished:
                unfinished.write_bytes(as_junit(found, "led-vectors"))
        except OSError as error:
            raise LEDError(f"{options.junit} could not be written ({error.strerror}). Name another file.") from error
    with reader_may_leave():
        if options.json:
            subject_name = "led_ref" if command is None else shlex.join(command)
            about = {"vectors": str(options.folder), "tested": subject_name, "dtype": options.dtype, "seconds": seconds}
            print_json({**as_json(found, about), "likely_mistakes": asdict(likely)})
        else:
            for line in (*summary_lines(found), *likely.lines()):
                print(line)
    failed = sum(verdict.status == FAILED for verdict in found)
    if failed:
        say(f"{failed} of {len(found)} cases failed")
    return 1 if failed else 0
