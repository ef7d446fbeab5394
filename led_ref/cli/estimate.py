"""`led-ref estimate`: what a run will take in memory and time on this machine. It is computed in tools/estimate.py."""

import argparse

from led_ref.cli.shared_options import Misused, add_shared
from led_ref.cli.train import for_argparse
from led_ref.errors import InputError
from led_ref.tools.terminal import megabytes, print_json
from led_ref.training.settings import SETTINGS, TrainingArguments

_OF_TRAINING = ("lora_rank", "lora_targets", "freeze", "keep_activations", "documents_at_once")

SUMMARY = "say what a run will take in memory and time, before it begins"
EXAMPLES = """
  led-ref estimate led-base --tokens 16384 --beams 4 --new-tokens 128
  led-ref estimate ./my-model --tokens 4096 --batch 2 --json
  led-ref estimate led-large --tokens 16384 --weights int8
  led-ref estimate led-large --tokens 16384 --beams 4 --new-tokens 256 --cross-attention folded
  led-ref estimate led-large --tokens 8192 --batch 4 --beams 4 --new-tokens 200 --documents 1000000
  led-ref estimate led-base --tokens 16384 --new-tokens 512 --training adafactor
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref estimate`."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a folder, a config.json, a name on the Hub, or just: led-base, led-large")
    add("--tokens", type=int, required=True, metavar="N", help="length of a document")
    add("--batch", type=int, default=1, metavar="B", help="documents read together (default: 1)")
    add("--documents", type=int, metavar="N", help="of so many such documents: hours, and hours of a processor")
    add("--beams", type=int, default=1, metavar="W", help="beams of each document (default: 1)")
    add("--new-tokens", type=int, default=128, metavar="M", help="0: reading alone (default: 128)")
    add("--global-tokens", type=int, default=1, metavar="G", help="of each document (default: 1)")
    add("--dtype", help="what is computed in (default: float32)", default="float32")
    add(
        "--weights", metavar="KIND",
        help="kept smaller: float16, bfloat16, int8, nf4, nf4-double (default: as the model's matrices are quantized)",
    )  # fmt: skip
    add("--backend", choices=("numpy", "cupy"), default="numpy", help="cupy: memory only")
    add_shared(parser, "--threads")
    add_shared(parser, "--cross-attention", help="folded: no keys and values of the document are kept")
    add(
        "--cache-implementation", choices=("dynamic", "static"), default="dynamic",
        help="static: memory for what is written is taken once",
    )  # fmt: skip
    add(
        "--training", metavar="OPTIMIZER", choices=("adamw", "adafactor"),
        help="of a training step on B documents with targets of M tokens, with adamw or adafactor",
    )  # fmt: skip
    add_shared(parser, "--json")
    training = parser.add_argument_group(
        "with --training", "settings of led-ref train that its memory and time depend on"
    )
    for name in _OF_TRAINING:
        training.add_argument(SETTINGS[name].option, dest=name, default=None, **for_argparse(name, SETTINGS[name]))


def run(options: argparse.Namespace) -> int:
    """Print memory and time, or give them as JSON."""
    from led_ref.costs.operations import Workload
    from led_ref.tools.estimate import divided_for, estimate, estimate_training, find_config
    from led_ref.weights.quantization.file_format import kind_of

    settings = {name: getattr(options, name) for name in _OF_TRAINING if getattr(options, name) is not None}
    if settings and not options.training:
        raise Misused(f"{SETTINGS[next(iter(settings))].option} is for a training; add --training adamw or adafactor")
    if options.training and (options.backend, options.beams, options.weights) != ("numpy", 1, None):
        raise Misused("--training is estimated for a CPU, without --beams and --weights")
    if options.documents is not None and (options.training or options.backend != "numpy" or options.documents < 1):
        raise Misused("--documents is a number of at least 1, for documents that are read on a CPU, without --training")
    if options.training and options.dtype == "float16":
        raise Misused("--training is estimated for a CPU, which does not compute in float16; give --dtype float32")
    config = find_config(options.model)
    stored = kind_of(config)
    if options.weights is None:
        options.weights = stored
    elif stored is not None and options.weights != stored:
        raise InputError(f"--weights is {options.weights}, but the matrices of {options.model} are {stored} already.")
    asked = Workload(
        globals_=options.global_tokens,
        folded=options.cross_attention == "folded",
        cache=options.cache_implementation,
        **{name: getattr(options, name) for name in ("tokens", "batch", "beams", "new_tokens", "dtype", "weights")},
    )
    if options.threads and options.backend == "cupy":
        raise Misused(f"--threads {options.threads} is for a CPU; leave out --backend cupy or --threads")
    load = divided_for(options.backend, config, asked, options.threads)
    if options.training:
        together = {"per_device_train_batch_size": load.batch, "optim": options.training}
        report = estimate_training(options.model, config, load, TrainingArguments(**together, **settings))
    else:
        report = estimate(options.model, config, load, backend=options.backend, documents=options.documents)
    if options.json:
        print_json(report)
        return 0
    what = (
        f"targets of {load.new_tokens:,}" if options.training else f"{load.beams} beams, {load.new_tokens:,} new tokens"
    )
    print(f"{options.model}: {load.batch} x {load.tokens:,} tokens, {what}")
    _print("memory", {name: megabytes(size) for name, size in report["memory"].items()})
    if options.backend != "numpy":
        print("time is not estimated for a GPU: docs/gpu.md has what the sizes alone allow")
        return 0
    _print("time", {name: f"{value:.3f} s " for name, value in report["seconds"].items()})
    if "hours" in report:
        _print(f"of {options.documents:,} documents", {name: f"{n:,.1f} h " for name, n in report["hours"].items()})
    _print(
        "measured just now, a second",
        {n: f"{v / 1e9:.2f} billion" if v > 1e7 else f"{v:,.0f}" for n, v in report["speeds"].items()},
    )
    _print("assumed", dict.fromkeys(report["assumes"], ""))
    if "lower" in report:
        print(f"this is more than the {megabytes(report['free']).strip()} that are free; each of these lowers it:")
        for option in report["lower"]:
            print(f"  {option}")
    return 0


def _print(title: str, lines: dict[str, str]) -> None:
    print(title)
    for name, value in lines.items():
        print(f"  {name:<34} {value:>14}".rstrip())
