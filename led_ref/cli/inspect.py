"""`led-ref inspect`: a checkpoint's configuration, tensors and memory, read from its files' headers alone."""

import argparse
from typing import TYPE_CHECKING

from led_ref.cli.shared_options import add_shared
from led_ref.tools.terminal import in_words, megabytes, print_json, print_values, reader_may_leave, say

if TYPE_CHECKING:
    from led_ref.weights.summary import CheckpointSummary

SUMMARY = "print a checkpoint's configuration, tensors and memory"
EXAMPLES = """
  led-ref inspect                                   the bundled model
  led-ref inspect ./led-base-16384 --tensors
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref inspect`."""
    parser.add_argument("model", nargs="?", metavar="NAME|DIR", help="default: the bundled model")
    add_shared(parser, "--revision")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    add_shared(parser, "--json")


def run(options: argparse.Namespace) -> int:
    """Print what a checkpoint holds. 1 if it cannot be loaded as it is."""
    from led_ref.api import bundled_model
    from led_ref.weights.find_files import resolve
    from led_ref.weights.summary import summarize_checkpoint

    folder = bundled_model() if options.model is None else resolve(options.model, revision=options.revision)
    summary = summarize_checkpoint(folder)
    with reader_may_leave():
        if options.json:
            print_json(summary.to_dict())
        else:
            _print_summary(summary, tensors=options.tensors)
    if summary.problem is not None:
        say(f"{folder}: {summary.problem}")
        return 1
    return 0


def _print_summary(summary: "CheckpointSummary", *, tensors: bool) -> None:
    print_values(
        {
            "files": f"{', '.join(summary.files)} ({megabytes(summary.bytes_on_disk)})",
            "parameters": summary.parameters,
            "memory": f"{megabytes(summary.bytes_in_float32)} in float32, {megabytes(2 * summary.bytes_in_float32)} in float64",
            "tensors": ", ".join(f"{count} of {dtype}" for dtype, count in summary.dtypes.items()),
            "window, total (2R)": summary.windows,
            "radius, each side (R)": summary.radii,
            "can be loaded": summary.problem is None,
        }
    )
    print("config.json")
    config = summary.config.to_dict()
    width = max(map(len, config))
    for name, value in config.items():
        if value is None:  # not set: says nothing
            continue
        # Numbers as they stand in the file; lists in words.
        print(f"  {name:<{width}}  {in_words(value) if isinstance(value, list | bool) else value}")
    if tensors:
        print("tensors")
        for tensor in summary.tensors:
            print(f"  {tensor.name:<72} {tensor.dtype:>5} {list(tensor.shape)}")
