"""The options of which model is loaded, and how, apart from cli.py, which is long enough."""

import argparse

QUANTIZATIONS = ("int8", "nf4", "nf4-double")  # led_ref/weights/quantization/rounding.py, which would bring in NumPy


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model, --revision, --backend, --dtype, --quantize and --keep-stored."""
    parser.add_argument("--model", metavar="NAME|DIR", help="a folder or Hub name (default: the small bundled model)")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--backend", default="auto", help="auto, numpy or cupy")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "float16"),
        default="float32",
        help="what to compute in (float16: on a GPU)",
    )
    parser.add_argument(
        "--quantize", choices=QUANTIZATIONS, help="keep the matrices in 8 or 4 bits (default: as they are)"
    )
    parser.add_argument(
        "--keep-stored", action="store_true", help="keep float16 and bfloat16 weights so, in half the memory"
    )
