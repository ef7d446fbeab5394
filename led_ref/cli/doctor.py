"""`led-ref doctor`: what works on this machine. The checks are in led_ref/tools/doctor.py, those of a GPU in tools/gpu."""

import argparse

from led_ref.cli.shared_options import Misused, add_shared

SUMMARY = "say what works on this machine"
EXAMPLES = """
  led-ref doctor
  led-ref doctor --checkpoint ./led-base-16384      do Ai2's weights give the numbers that they must?
  led-ref doctor --gpu --out gpu.json               does a GPU give the numbers that the CPU gives?
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref doctor`."""
    parser.add_argument("--checkpoint", metavar="DIR", help="check led-base-16384's weights against known numbers")
    add_shared(parser, "--json", "--threads")
    parser.add_argument("--gpu", action="store_true", help="check the GPU instead; takes minutes")
    parser.add_argument("--out", metavar="JSON", help="with --gpu: write the report there, not to standard output")


def run(options: argparse.Namespace) -> int:
    """Check the machine, or with --gpu its GPU. 0: all that was checked works; 1: something failed; 2: no GPU answers."""
    if options.gpu:
        if options.threads:
            raise Misused(f"--threads {options.threads} is for the checks of a CPU; leave out --gpu or --threads")
        from led_ref.tools.gpu.report import examine_gpu

        return examine_gpu(options)
    if options.out:
        raise Misused("--out is for the report of --gpu; add --gpu")
    from led_ref.tools.doctor import examine

    return examine(options)
