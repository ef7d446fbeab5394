"""`led-ref convert`: write a checkpoint as safetensors, or the LED that a BART becomes."""

import argparse
from dataclasses import asdict

from led_ref.cli.output import megabytes, print_json, print_values
from led_ref.cli.progress import say
from led_ref.weights.convert import convert
from led_ref.weights.from_bart import convert_bart
from led_ref.weights.hub import resolve


def convert_checkpoint(options: argparse.Namespace) -> int:
    """Convert, verify, and say what was written."""
    notice = None if options.quiet else say
    folder = resolve(options.source, revision=options.revision, notice=notice)
    common = {"dtype": options.dtype, "quantize": options.quantize, "overwrite": options.overwrite, "notice": notice}
    if options.from_bart:
        sizes = {"max_positions": options.max_positions, "attention_window": options.attention_window}
        given = {name: value for name, value in sizes.items() if value is not None}
        report = convert_bart(folder, options.destination, **given, **common)
    else:
        report = convert(folder, options.destination, **common)
    if options.json:
        print_json(asdict(report))
        return 0
    print_values(
        {
            "read": f"{', '.join(path.name for path in report.source)} ({megabytes(report.bytes_read)})",
            "wrote": f"{report.destination} ({megabytes(report.bytes_written)})",
            "parameters": report.parameters,
            "tensors": f"{report.tensors} in {' and '.join(report.dtypes)}, each read back and compared bit for bit",
            "copied": report.copied or "nothing",
        }
    )
    return 0
