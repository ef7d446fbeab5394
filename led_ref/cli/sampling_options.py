"""The options of `summarize` and `generate` that are about chance, and about text that comes as it is written."""

import argparse
import secrets
from typing import Any

from led_ref.cli.progress import say
from led_ref.errors import SettingsError


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
    """What these options set.

    Raises:
        SettingsError: if a text is to be shown as it is written, and also whole.
    """
    if options.stream and (options.json or options.out is not None):
        raise SettingsError(
            "--stream prints a text as it is written, --json and --out are for texts that are whole. Leave one out."
        )
    named = {name: getattr(options, name) for name in ("seed", "temperature", "top_p")}
    settings = {name: value for name, value in named.items() if value is not None}
    if options.sample:
        settings["do_sample"] = True
        if options.num_beams is None:
            settings["num_beams"] = 1
    return settings


def take_seed(effective: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The seed as a setting, where ids are drawn and nobody has given one: short enough to be typed again."""
    if not effective["do_sample"] or effective["seed"] is not None:
        return {}
    effective["seed"] = secrets.randbits(32)
    if not quiet:
        say(f"drawing with a new seed; --seed {effective['seed']} draws the same again")
    return {"seed": effective["seed"]}
