"""`led-ref convert`: write a checkpoint as safetensors, or the LED that a BART becomes."""

import argparse

from led_ref.cli.shared_options import QUANTIZATIONS, Misused, add_shared, given
from led_ref.tools.terminal import megabytes, print_json, print_values, say

SUMMARY = "write a checkpoint as safetensors, and verify what was written"
EXAMPLES = """
  led-ref convert ./led-base-16384 ./led-base-safetensors
  led-ref convert ./led-base-16384 ./led-base-half --dtype float16
  led-ref convert --from-bart facebook/bart-base ./my-led --max-positions 16384 --attention-window 1024
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref convert`."""
    parser.add_argument("source", metavar="SRC", help="a folder or Hub name: .bin, safetensors, allenai's original")
    parser.add_argument("destination", metavar="DST", help="the folder to make")
    add_shared(parser, "--revision")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: as it is")
    parser.add_argument("--quantize", choices=QUANTIZATIONS, help="round the matrices; embeddings and norms stay")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is at DST")
    parser.add_argument("--from-bart", action="store_true", help="SRC is a BART: write the LED that it becomes")
    parser.add_argument("--max-positions", type=int, metavar="N", help="of that LED's encoder (default: 16384)")
    parser.add_argument("--attention-window", type=int, metavar="N", help="its width, 2R (default: 1024)")
    add_shared(parser, "--json")
    add_shared(parser, "--quiet", help="no progress and notices")


def run(options: argparse.Namespace) -> int:
    """Convert, verify, and print what was written."""
    sizes = given(options, "max_positions", "attention_window")
    if sizes and not options.from_bart:
        raise Misused("--max-positions and --attention-window are for a BART; add --from-bart")
    from dataclasses import asdict

    from led_ref.weights.convert import convert
    from led_ref.weights.find_files import resolve
    from led_ref.weights.from_bart import convert_bart

    notice = None if options.quiet else say
    folder = resolve(options.source, revision=options.revision, notice=notice)
    common = {"dtype": options.dtype, "quantize": options.quantize, "overwrite": options.overwrite, "notice": notice}
    if options.from_bart:
        report = convert_bart(folder, options.destination, **sizes, **common)
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
