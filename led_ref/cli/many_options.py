"""The options of `led-ref summarize` and `generate` for many documents, apart from cli.py, which is long enough."""

import argparse

EXAMPLES = """
  led-ref summarize *.txt --out summaries            each text into a file of its own
  led-ref summarize *.txt --out summaries --resume   the same, going on where it was cut off
"""


def add_many_options(parser: argparse.ArgumentParser) -> None:
    """Add --out and what belongs to it."""
    many = parser.add_argument_group("many documents")
    many.add_argument("--out", metavar="DIR", help="write each text into a file in DIR, whole or not at all")
    many.add_argument(
        "--resume", action="store_true", help="with --out: keep the texts that DIR holds, and write the others"
    )
    many.add_argument(
        "--batch-size", type=int, metavar="N",
        help="with --out: most documents that are written together (default: 4; 1: each by itself)",
    )  # fmt: skip
    many.add_argument(
        "--batch-memory", type=int, metavar="MB",
        help="with --out: megabytes that these may take beside the weights (default: 1074)",
    )  # fmt: skip


def misuse(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, if anything: those that do nothing without --out."""
    given = {"--resume": options.resume, "--batch-size": options.batch_size, "--batch-memory": options.batch_memory}
    alone = [name for name, value in given.items() if value not in (None, False)]
    return f"{alone[0]} is for a run with results in files; add --out DIR" if alone and options.out is None else None
