"""`led-ref bench`: measure speed and memory on this machine. What runs is in led_ref/tools/bench."""

import argparse

from led_ref.cli.shared_options import add_shared

SUMMARY = "measure speed and memory on this machine"
EXAMPLES = """
  led-ref bench --quick
  led-ref bench --against transformers --plot lengths.svg
  led-ref bench --only encode-4k encode-16k --runs 5 --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref bench`."""
    add = parser.add_argument
    add_shared(parser, "--model", help="default: random weights of led-base's size (needs 650 MB of disk)")
    add("--quick", action="store_true", help="shorter documents and one run: under 90 seconds")
    add("--only", nargs="+", metavar="CASE", help="load, encode-1k, decode-4k-1beam, generate-16k-4beams, ...")
    add("--against", choices=("transformers",), help="the same cases there as well, taking turns (extra `peer`)")
    add("--runs", type=int, metavar="N", help="how often each case is measured (default: 3; quick: 1)")
    add("--plot", metavar="FILE", help="draw time and memory against length (extra `plot`)")
    add_shared(parser, "--threads", help="of both sides (default: as doctor says)")
    add_shared(parser, "--json")
    add_shared(parser, "--quiet", help="no progress on standard error")


def run(options: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    from led_ref.tools.bench.run import run_bench

    return run_bench(options)
