"""`led-ref diff`: find where two traces part."""

import argparse

from led_ref.cli.shared_options import add_shared
from led_ref.errors import LEDError
from led_ref.tools.terminal import print_json, reader_may_leave, say

SUMMARY = "find where two traces part: 0 equal, 1 different, 2 not comparable"
EXAMPLES = """
  led-ref diff ours.safetensors theirs.safetensors
  led-ref diff ours.safetensors theirs.safetensors --rtol 1e-3 --atol 1e-4 --plot errors.png
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref diff`."""
    parser.add_argument("a", metavar="A.safetensors", help="a trace")
    parser.add_argument("b", metavar="B.safetensors", help="a trace of any program; names as led-ref steps lists them")
    parser.add_argument("--rtol", type=float, metavar="X", help="relative tolerance (default: by type; float32 1e-4)")
    parser.add_argument("--atol", type=float, metavar="X", help="absolute tolerance (default: by type; float32 1e-5)")
    parser.add_argument("--plot", metavar="PNG", help="draw the error of every step (needs matplotlib)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    add_shared(parser, "--json")


def run(options: argparse.Namespace) -> int:
    """Compare two files. 0: equal; 1: different; 2: not comparable, or too little of both was compared."""
    from led_ref.oracle.traces.diff import diff
    from led_ref.oracle.traces.trace import Trace, check_target

    try:
        if options.plot is not None:
            check_target(options.plot, overwrite=options.overwrite)
        difference = diff(Trace.load(options.a), Trace.load(options.b), rtol=options.rtol, atol=options.atol)
        if options.plot is not None:
            from led_ref.oracle.traces.diff_plot import save_plot

            save_plot(difference, options.plot)
    except LEDError as error:
        say(str(error), command="led-ref diff")
        return 2
    with reader_may_leave():
        if options.json:
            print_json(difference.to_dict())
        else:
            print(difference)
    # A port that writes a few of our names has been compared wholly; where both have names of their own, names may not fit.
    is_part = not (difference.only_in_a and difference.only_in_b)
    only_inputs = all(step.name.endswith(("input_ids", "attention_mask")) for step in difference.compared)
    if difference.equal and (only_inputs or (difference.mostly_unmatched and not is_part)):
        both = len(difference.compared)
        say(
            f"{both} of {both + len(difference.only_in_a)} steps of a and of "
            f"{both + len(difference.only_in_b)} of b were compared: too few to call the two equal. "
            f"{difference.names_hint and difference.names_hint + '. '}"
            "Name the tensors as `led-ref steps` does, or record fewer: led-ref trace --only PATTERN.",
            command="led-ref diff",
        )
        return 2
    return 0 if difference.equal else 1
