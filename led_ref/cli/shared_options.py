"""What several commands share: options, the documents that a command line names, and how wrong usage is reported."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from led_ref.errors import InputError, LEDError, printable, quoted
from led_ref.files.json_file import read_json_object
from led_ref.tools.terminal import say

if TYPE_CHECKING:
    from led_ref.api import LED
    from led_ref.pipelines.loading import TextPipeline

QUANTIZATIONS = ("int8", "nf4", "nf4-double")  # those of weights/quantization/rounding.py, which would import NumPy
FILES = "text, as for summarize; - or nothing: what comes through a pipe"


def global_attention(given: str) -> "str | list[int | str] | dict[str, Any]":
    """The value of --global-attention: a name; positions and <tokens> with commas between; or of a JSON file, by document."""
    if given in ("first", "none", "all"):
        return given
    if given.endswith(".json"):
        try:
            return read_json_object(Path(given))
        except LEDError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    parts = given.split(",")
    if not all(part.isdecimal() or (part[:1] == "<" and part[-1:] == ">") for part in parts):
        raise argparse.ArgumentTypeError(
            f"{given!r}; give first, none, all, or positions such as 0,5,9, tokens such as '<doc-sep>', or a .json file that "
            "names those of each document"
        )
    return [int(part) if part.isdecimal() else part for part in parts]


def global_attention_of(options: argparse.Namespace, file: str) -> Any:
    """The global attention of one document: of a JSON file, the entry of its path or name.

    Raises:
        InputError: if the JSON file has no entry for it, or one that is neither a name nor a list.
    """
    chosen = options.global_attention
    if not isinstance(chosen, dict):
        return chosen
    name = Path(file).name
    own = chosen.get(file, chosen.get(name))
    if not isinstance(own, str | list):
        raise InputError(
            f"The file of --global-attention has {'no entry' if own is None else quoted(own, 60)} for {printable(name)}; give "
            '"first", "none", "all", or a list of positions and tokens.'
        )
    return own


def at_least_one(given: str) -> int:
    """The value of --threads."""
    if not (given.isdecimal() and int(given[:9]) > 0):
        raise argparse.ArgumentTypeError(f"{given!r}; give a whole number of at least 1")
    return int(given)


OPTIONS: dict[str, dict[str, Any]] = {
    "--model": {"metavar": "NAME|DIR", "help": "a folder or Hub name (default: the small bundled model)"},
    "--revision": {"help": "branch, tag or commit on the Hub"},
    "--backend": {"default": "auto", "help": "auto, numpy or cupy"},
    "--threads": {
        "type": at_least_one, "metavar": "N",
        "help": "threads on a CPU (default: OMP_NUM_THREADS, else the processors it may use)",
    },
    "--dtype": {
        "choices": ("float32", "float64", "float16"), "default": "float32",
        "help": "what to compute in (float16: on a GPU)",
    },
    "--quantize": {"choices": QUANTIZATIONS, "help": "keep the matrices in 8 or 4 bits (default: as they are)"},
    "--keep-stored": {"action": "store_true", "help": "keep float16 and bfloat16 weights so, in half the memory"},
    "--num-beams": {"type": int, "metavar": "N", "help": "beams (default: the checkpoint's own setting)"},
    "--max-new-tokens": {"type": int, "metavar": "N", "help": "most tokens to write"},
    "--global-attention": {
        "type": global_attention, "default": "first", "metavar": "first|none|all|0,5,9",
        "help": "which tokens see everything: first (default), none, all, positions and tokens (0,<doc-sep>), or a .json file "
        "with the list of each document",
    },
    "--truncate": {"action": "store_true", "help": "read only the beginning of a document that is too long"},
    "--cross-attention": {
        "choices": ("cached", "folded"), "default": "cached",
        "help": "folded: keep no keys and values of the document; slower, and far smaller",
    },
    "--json": {"action": "store_true", "help": "one JSON object"},
    "--quiet": {"action": "store_true", "help": "no progress bar and notices"},
}  # fmt: skip


def add_shared(parser: argparse.ArgumentParser, *names: str, **changed: Any) -> None:
    """Add options of `OPTIONS`; `changed` replaces what argparse is given for each of them, such as its help."""
    for name in names:
        parser.add_argument(name, **OPTIONS[name] | changed)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that loads any model and runs it on documents."""
    add_shared(parser, "--model", "--revision", "--backend", "--threads", "--dtype", "--quantize", "--keep-stored")
    add_shared(parser, "--num-beams", "--max-new-tokens", "--global-attention", "--truncate", "--cross-attention")
    add_output_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add --json and --quiet of a command that reads documents."""
    add_shared(parser, "--json", help="one JSON object a document, one a line")
    add_shared(parser, "--quiet")


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that the user gave, by name; without a default an option is None."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def loading(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of a `load` function: the options about loading that the command has, and `notice`."""
    from led_backends.notices import inform

    names = ("revision", "dtype", "quantize", "keep_stored")
    found = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return {**found, "backend": chosen_backend(options), "notice": inform if options.quiet else say}


def chosen_backend(options: argparse.Namespace) -> Any:
    """The backend's name; with --threads, the CPU with so many.

    Raises:
        Misused: for the threads of a GPU.
    """
    backend = getattr(options, "backend", "auto")
    if options.threads is None:
        return backend
    if backend == "cupy":
        raise Misused(f"--threads {options.threads} is for a CPU; leave out --backend cupy or --threads")
    from led_backends.numpy_backend import NumpyBackend

    return NumpyBackend(threads=options.threads)


def quietly(options: argparse.Namespace) -> argparse.Namespace:
    """The same command line for a worker: without notices."""
    return argparse.Namespace(**{**vars(options), "quiet": True})


def load_model(options: argparse.Namespace) -> "LED":
    """The model and tokenizer that the options name."""
    from led_ref.api import load

    return load(options.model, **loading(options))


def run_of_model(options: argparse.Namespace, pipeline: "TextPipeline[Any]") -> dict[str, Any]:
    """What of a loaded model decides how its results come out: JSON-ready."""
    from led_ref.pipelines import many

    settings = {name: getattr(options, name) for name in ("quantize", "keep_stored") if hasattr(options, name)}
    return many.run_of_model(pipeline, options.model, revision=options.revision, **settings)


# ---- usage --------------------------------------------------------------------------------------------------------------


class Misused(Exception):
    """Wrong usage that argparse cannot see: the reason, without a full stop. `main` reports it, with exit code 2."""


def is_piped() -> bool:
    """Whether text may come through standard input: it is open, and not a terminal."""
    return sys.stdin is not None and not sys.stdin.isatty()


def need_files(options: argparse.Namespace) -> None:
    """Set options.files to ["-"] where the command line names none; Misused if there is no pipe either."""
    if not options.files and not is_piped():
        raise Misused("give a FILE, or send text through a pipe")
    options.files = options.files or ["-"]
