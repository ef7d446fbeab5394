"""The options of `led-ref explore`, apart from cli.py, which is long enough. What runs is fetched when it is asked for."""

import argparse
from collections.abc import Callable
from typing import Any

EXAMPLES = """
  led-ref explore page.txt                          writes page.html: open it in a browser
  led-ref explore paper.txt --out paper.html --global-attention 0,100 --num-beams 6
  man gzip | led-ref explore - --out gzip.html
"""


def add_explore_command(
    commands: Any, command: Callable[..., argparse.ArgumentParser], global_attention: Callable[[str], Any]
) -> None:
    """Add `explore`.

    Args:
        commands: the subparsers of `led-ref`.
        command: cli.py's way to add one.
        global_attention: cli.py's way to read a choice of global tokens.
    """
    explore = command(
        commands, "explore", run, "write one HTML page in which attention and search can be walked through"
    )
    explore.add_argument("file", metavar="FILE", help="the document, as for summarize; - for standard input")
    explore.add_argument("--out", metavar="PAGE.html", help="the page to write (default: FILE's name with .html, here)")
    explore.add_argument("--model", metavar="NAME|DIR", help="a folder or Hub name (default: the small bundled model)")
    explore.add_argument("--revision", help="branch, tag or commit on the Hub")
    explore.add_argument("--num-beams", type=int, metavar="N", help="beams (default: the checkpoint's own, or 4)")
    explore.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens to write")
    explore.add_argument(
        "--global-attention", type=global_attention, default="first", metavar="first|none|0,5,9",
        help="which tokens see everything: first (default), none, or positions",
    )  # fmt: skip
    explore.add_argument(
        "--truncate", action="store_true", help="read only the beginning of a document that is too long"
    )
    explore.add_argument("--overwrite", action="store_true", help="replace a page that is there")
    explore.add_argument("--quiet", action="store_true", help="no notices")


def run(options: argparse.Namespace) -> int:
    """`led-ref explore`: a page to walk through."""
    from led_ref.cli.exploring import explore

    return explore(options)
