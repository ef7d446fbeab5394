"""`led-ref summarize`: documents in, one text for each of them out. What runs is in writing.py, as for `generate`."""

import argparse

from led_ref.cli import many
from led_ref.cli.shared_options import add_run_options

SUMMARY = "summarize documents"
EXAMPLES = """
  led-ref summarize paper.txt
  led-ref summarize a.txt b.md.gz --json
  man gzip | led-ref summarize - --quiet
  led-ref summarize book.txt --truncate --model DIR --num-beams 4 --max-new-tokens 256
  led-ref summarize papers --out summaries           the .txt, .md and .gz of a folder
  led-ref summarize *.txt --out summaries            each text into a file of its own
  led-ref summarize *.txt --out summaries --resume   the same, going on where it was cut off
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref summarize`."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE",
        help="text, Markdown, .gz, a rendered manual page, a folder of these; - or nothing: what comes through a pipe",
    )  # fmt: skip
    add_writing_options(parser)


def add_writing_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `summarize` and `generate` share: model, search, results in files, sampling, streaming."""
    add = parser.add_argument
    add_run_options(parser)
    many.add_options(parser)
    add(
        "--split", choices=("join", "again"),
        help="of a document that is too long, write of its pieces: join these texts, or summarize them again",
    )  # fmt: skip
    add("--overlap", type=int, metavar="N", help="with --split: most tokens that a piece repeats (default: 64)")
    add("--sample", action="store_true", help="draw the text by chance; with 1 beam unless --num-beams is given")
    add("--seed", type=int, metavar="N", help="with --sample: the same number draws the same text again")
    add("--temperature", type=float, metavar="X", help="with --sample: below 1 more likely, above 1 bolder")
    add("--top-p", type=float, metavar="X", help="with --sample: draw from the likeliest that have this share")
    add(
        "--lookup", type=int, metavar="N",
        help="read up to N ids of the document ahead: the same text, sooner where it is copied; with 1 beam unless "
        "--num-beams is given",
    )  # fmt: skip
    add(
        "--stream",
        action="store_true",
        help="print the text as it is written; needs --num-beams 1, --sample or --lookup",
    )


def run(options: argparse.Namespace) -> int:
    """Print the best text of each document. 0, or 1 if any document failed."""
    from led_ref.cli.writing import write_documents

    return write_documents(options, settings={}, show_all=False)
