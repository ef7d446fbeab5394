"""`led-ref convert`: write a checkpoint as safetensors."""

import argparse
import json

from led_ref.commands.progress import say


def convert_checkpoint(options: argparse.Namespace) -> int:
    """Convert, verify, and say what was written."""
    from dataclasses import asdict

    from led_ref.weights.convert import convert
    from led_ref.weights.hub import resolve

    notice = None if options.quiet else say
    folder = resolve(options.source, revision=options.revision, notice=notice)
    report = convert(folder, options.destination, dtype=options.dtype, overwrite=options.overwrite, notice=notice)
    if options.json:
        print(json.dumps(asdict(report), default=str))
        return 0
    for name, value in asdict(report).items():
        print(f"{name:<24} {value}")
    return 0
