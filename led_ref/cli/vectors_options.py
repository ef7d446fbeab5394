"""The options of `led-ref vectors`, apart from cli.py, which is long enough. What runs is fetched when it is asked for."""

import argparse
from collections.abc import Callable
from typing import Any

EXAMPLES = """
  led-ref vectors check tests/vectors/v1                              led_ref itself
  led-ref vectors check tests/vectors/v1 --cmd 'my-led --in {in} --out {out}' --dtype float32
  led-ref vectors check tests/vectors/v1 --level L1 L2 --junit vectors.xml
  led-ref vectors write tests/vectors/v1                              make them anew, the same to the bit
"""
DTYPES = ("float64", "float32", "float16", "bfloat16")


def add_vectors_command(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `vectors` with its three actions.

    Args:
        commands: the subparsers of `led-ref`.
        command: cli.py's way to add one.
    """
    vectors = command(commands, "vectors", run, "check an implementation of LED, in any language, by known answers")
    actions = vectors.add_subparsers(dest="action", metavar="ACTION", required=True)

    check = actions.add_parser(
        "check", help="ask led_ref or a program, and print what passed and what failed, by level"
    )
    check.add_argument("folder", metavar="DIR", help="the vectors, such as tests/vectors/v1")
    check.add_argument("--cmd", metavar="COMMAND", help="the program to ask, with {in} and {out} (default: led_ref)")
    check.add_argument("--level", nargs="+", metavar="L0...L7", help="only these levels")
    check.add_argument("--dtype", choices=DTYPES, default="float64", help="what to compute in, and whose tolerances")
    check.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for a call of the program (300)")
    check.add_argument("--checkpoint", metavar="DIR", help="led-base-16384, for level 7")
    check.add_argument("--junit", metavar="FILE", help="also write JUnit XML")
    check.add_argument("--json", action="store_true", help="one JSON object")

    write = actions.add_parser("write", help="make all vectors from the definition")
    write.add_argument("folder", metavar="DIR", help="where to; existing files of the same names are replaced")
    write.add_argument("--json", action="store_true", help="one JSON object")

    answer = actions.add_parser("answer", help="led_ref as the program that is asked: for trying out --cmd")
    answer.add_argument("--in", dest="questions", required=True, metavar="DIR", help="the questions")
    answer.add_argument("--out", dest="results", required=True, metavar="DIR", help="where the answers go")


def run(options: argparse.Namespace) -> int:
    """`led-ref vectors`: known answers for implementations of LED."""
    from led_ref.cli.vectors import run_vectors

    return run_vectors(options)
