"""The options of `led-ref estimate`, apart from cli.py, which is long enough. What runs is fetched when it is asked for."""

import argparse
from collections.abc import Callable
from typing import Any

EXAMPLES = """
  led-ref estimate led-base --tokens 16384 --beams 4 --new-tokens 128
  led-ref estimate ./my-model --tokens 4096 --batch 2 --json
  led-ref estimate led-large --tokens 16384 --weights int8
  led-ref estimate led-large --tokens 16384 --beams 4 --new-tokens 256 --cross-attention folded
"""


def add_estimate_command(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `estimate`.

    Args:
        commands: the subparsers of `led-ref`.
        command: cli.py's way to add one.
    """
    estimate = command(commands, "estimate", run, "say what a run will take in memory and time, before it begins")
    estimate.add_argument(
        "model", metavar="MODEL", help="a folder, a config.json, a name on the Hub, or just: led-base, led-large"
    )
    estimate.add_argument("--tokens", type=int, required=True, metavar="N", help="length of a document")
    estimate.add_argument("--batch", type=int, default=1, metavar="B", help="documents read together (default: 1)")
    estimate.add_argument("--beams", type=int, default=1, metavar="W", help="beams of each document (default: 1)")
    estimate.add_argument("--new-tokens", type=int, default=128, metavar="M", help="0: reading alone (default: 128)")
    estimate.add_argument("--global-tokens", type=int, default=1, metavar="G", help="of each document (default: 1)")
    estimate.add_argument("--dtype", help="what is computed in (default: float32)", default="float32")
    estimate.add_argument(
        "--weights",
        metavar="KIND",
        help="kept smaller: float16, bfloat16, int8, nf4, nf4-double (default: in that dtype)",
    )
    estimate.add_argument("--backend", choices=("numpy", "cupy"), default="numpy", help="cupy: memory only")
    estimate.add_argument(
        "--cross-attention", choices=("cached", "folded"), default="cached",
        help="folded: no keys and values of the document are kept",
    )  # fmt: skip
    estimate.add_argument(
        "--cache-implementation", choices=("dynamic", "static"), default="dynamic",
        help="static: memory for what is written is taken once",
    )  # fmt: skip
    estimate.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> int:
    """`led-ref estimate`: memory and time of a run."""
    from led_ref.cli.estimating import estimate

    return estimate(options)
