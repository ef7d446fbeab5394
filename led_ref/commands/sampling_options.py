"""The options of `summarize` and `generate` that are about chance, and about text that comes as it is written."""

import argparse
import secrets
from typing import Any


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """--sample, --seed, --temperature, --top-p, --stream."""
    parser.add_argument(
        "--sample", action="store_true", help="draw the text by chance; with 1 beam unless --num-beams is given"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="with --sample: the same number draws the same text again"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="X", help="with --sample: below 1 more likely, above 1 bolder"
    )
    parser.add_argument(
        "--top-p", type=float, metavar="X", help="with --sample: draw from the likeliest that have this share"
    )
    parser.add_argument(
        "--stream", action="store_true", help="print the text as it is written; needs --num-beams 1 or --sample"
    )


def sampling_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What these options set."""
    named = {name: getattr(options, name) for name in ("seed", "temperature", "top_p")}
    settings = {name: value for name, value in named.items() if value is not None}
    if options.sample:
        settings["do_sample"] = True
        if options.num_beams is None:
            settings["num_beams"] = 1
    return settings


def fresh_seed() -> int:
    """A seed for a text that nobody has given one, short enough to be typed again."""
    return secrets.randbits(32)
