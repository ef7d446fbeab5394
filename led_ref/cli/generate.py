"""`led-ref generate`: as `summarize`, with any generation setting; it shows every text of a document with its score."""

import argparse
import json
from typing import Any

from led_ref.cli.shared_options import Misused
from led_ref.cli.summarize import add_writing_options

SUMMARY = "write with any setting, and show every text and its score"
EXAMPLES = """
  led-ref generate page.txt --set num_beams=4 --set num_return_sequences=4 --set no_repeat_ngram_size=3
  led-ref generate page.txt --global-attention none --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref generate`."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="as for summarize")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="any generation setting, for example length_penalty=2.0; may be repeated",
    )  # fmt: skip
    add_writing_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print every text of each document with its score. 0, or 1 if any document failed."""
    settings: dict[str, Any] = {}
    for setting in options.settings:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise Misused(f"--set {setting!r} is not NAME=VALUE, such as length_penalty=2.0")
        if name in settings:
            raise Misused(f"--set {name} is given twice, with {settings[name]!r:.40} and {value:.40}; leave one out")
        try:
            settings[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except (ValueError, RecursionError):  # no JSON: a word, such as early_stopping=never
            settings[name] = value
    from led_ref.cli.writing import write_documents

    return write_documents(options, settings=settings, show_all=True)
