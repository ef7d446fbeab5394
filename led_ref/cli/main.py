"""`led-ref`: LED from the command line. Results go to standard output, everything else to standard error.

Exit codes: 0 done, 1 failed (the reason is one message on standard error), 2 wrong usage, 130 interrupted.
One subcommand is one function; what a subcommand needs is imported inside it, so that `led-ref --help` is quick.
"""

try:
    import argparse
    import contextlib
    import datetime  # noqa: F401  NumPy fetches it from C, where a Ctrl-C would become a broken NumPy
    import io
    import json
    import os
    import sys
    from collections.abc import Callable, Sequence
    from typing import Any

    from led_ref.cli import (
        asking_options,
        estimate_options,
        exercise_options,
        exploring_options,
        many_options,
        sampling_options,
        vectors_options,
    )
    from led_ref.cli.examples import EXAMPLES
    from led_ref.cli.model_options import QUANTIZATIONS, add_model_options
    from led_ref.errors import LEDError
except KeyboardInterrupt:  # Ctrl-C before `main` could begin to listen for it
    raise SystemExit(130) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal's encoding lacks is no reason to fail
                stream.reconfigure(errors="backslashreplace")
        options = build_parser().parse_args(arguments)
        if sys.stdout is None:
            raise OSError("standard output is closed: there is nowhere to write results to")
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except LEDError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    except BrokenPipeError:  # whoever read us (head, a pager) has seen enough
        _forget_output()
        return 0
    except OSError as error:  # what no one nearer to it foresaw: a full disk, a folder without permission
        _forget_output()
        return _fail(f"{error}. See to the file's permissions and the disk's space.")


def _fail(reason: str) -> int:
    with contextlib.suppress(OSError):  # standard error may be a closed pipe, too
        print(f"led-ref: {reason}", file=sys.stderr, flush=True)
    return 1


def _forget_output() -> None:
    """Point standard output nowhere, so that Python's own last flush cannot fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and shows a subcommand's own usage to whom mistook an option of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but what a subcommand does not know is its error and not left to the program's."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = _Parser(
        prog="led-ref",
        description="LED (Longformer-Encoder-Decoder): reads up to 16,384 tokens, writes a summary. NumPy, no PyTorch.",
        epilog="examples:" + EXAMPLES["led-ref"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    parser.set_defaults(run=lambda options: _version_or_help(parser, options))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_text_commands(commands)
    asking_options.add_asking_commands(commands, _command, _global_attention, _need_files)
    _add_checkpoint_commands(commands)
    _add_trace_commands(commands)
    exploring_options.add_explore_command(commands, _command, _global_attention)
    vectors_options.add_vectors_command(commands, _command)
    _add_machine_commands(commands)
    estimate_options.add_estimate_command(commands, _command)
    exercise_options.add_exercise_command(commands, _command)
    return parser


def _add_text_commands(commands: Any) -> None:
    """The commands that read text: summarize, generate, tokenize."""
    summarize = _command(commands, "summarize", run_summarize, "summarize documents")
    summarize.add_argument(
        "files", nargs="*", metavar="FILE",
        help="text, Markdown, .gz, a rendered manual page; - or nothing: what comes through a pipe",
    )  # fmt: skip

    generate = _command(commands, "generate", run_generate, "write with any setting, and show every text and its score")
    generate.add_argument("files", nargs="*", metavar="FILE", help="as for summarize")
    generate.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="any generation setting, for example length_penalty=2.0; may be repeated",
    )  # fmt: skip
    for command in (summarize, generate):
        add_model_options(command)
        _add_writing_options(command)
        many_options.add_many_options(command)
        sampling_options.add_sampling_options(command)

    tokenize = _command(commands, "tokenize", run_tokenize, "show the ids, pieces and offsets of a text")
    tokenize.add_argument("file", nargs="?", metavar="FILE", help="a file; - or nothing: what comes through a pipe")
    tokenize.add_argument("--text", help="the text itself")
    tokenize.add_argument("--model", metavar="NAME|DIR", help="whose vocabulary (default: the bundled model's)")
    tokenize.add_argument(
        "--engine", choices=("python", "rust"), default="python", help="which of the two equal engines"
    )
    tokenize.add_argument("--json", action="store_true", help="one JSON object")


def _add_checkpoint_commands(commands: Any) -> None:
    """The commands about checkpoints: inspect, convert."""
    inspect = _command(commands, "inspect", run_inspect, "print a checkpoint's configuration, tensors and memory")
    inspect.add_argument("model", nargs="?", metavar="NAME|DIR", help="default: the bundled model")
    inspect.add_argument("--revision", help="branch, tag or commit on the Hub")
    inspect.add_argument("--tensors", action="store_true", help="list every tensor")
    inspect.add_argument("--json", action="store_true", help="one JSON object")

    convert = _command(
        commands, "convert", run_convert, "write a checkpoint as safetensors, and verify what was written"
    )
    convert.add_argument("source", metavar="SRC", help="a folder or Hub name: .bin, safetensors, allenai's original")
    convert.add_argument("destination", metavar="DST", help="the folder to make")
    convert.add_argument("--revision", help="branch, tag or commit on the Hub")
    convert.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: as it is")
    convert.add_argument("--quantize", choices=QUANTIZATIONS, help="round the matrices; embeddings and norms stay")
    convert.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is at DST")
    convert.add_argument("--from-bart", action="store_true", help="SRC is a BART: write the LED that it becomes")
    convert.add_argument("--max-positions", type=int, metavar="N", help="of that LED's encoder (default: 16384)")
    convert.add_argument("--attention-window", type=int, metavar="N", help="its width, 2R (default: 1024)")
    convert.add_argument("--json", action="store_true", help="one JSON object")
    convert.add_argument("--quiet", action="store_true", help="no progress and notices")


def _add_trace_commands(commands: Any) -> None:
    """The commands about what happens inside: trace, steps, diff."""
    trace = _command(commands, "trace", run_trace, "record every named intermediate of a run as safetensors")
    trace.add_argument("file", metavar="FILE", help="the document, as for summarize; - for standard input")
    trace.add_argument("--out", required=True, metavar="FILE.safetensors", help="the file to write")
    trace.add_argument(
        "--only", action="append", metavar="PATTERN", help="only names like this: '*.probs', fc1; may be repeated"
    )
    trace.add_argument("--layer", type=int, metavar="N", help="only what is inside the layers of this number")
    trace.add_argument("--generate", action="store_true", help="a whole generation, not one step of the decoder")
    trace.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    add_model_options(trace)
    _add_writing_options(trace)

    steps = _command(commands, "steps", run_steps, "list all steps with equation, shape and line of code")
    steps.add_argument("--json", action="store_true", help="one JSON object")

    diff = _command(commands, "diff", run_diff, "find where two traces part: 0 equal, 1 different, 2 not comparable")
    diff.add_argument("a", metavar="A.safetensors", help="a trace")
    diff.add_argument("b", metavar="B.safetensors", help="a trace of any program; names as led-ref steps lists them")
    diff.add_argument("--rtol", type=float, metavar="X", help="relative tolerance (default: by type; float32 1e-4)")
    diff.add_argument("--atol", type=float, metavar="X", help="absolute tolerance (default: by type; float32 1e-5)")
    diff.add_argument("--plot", metavar="PNG", help="draw the error of every step (needs matplotlib)")
    diff.add_argument("--overwrite", action="store_true", help="replace a picture that is there")
    diff.add_argument("--json", action="store_true", help="one JSON object")


def _add_machine_commands(commands: Any) -> None:
    """The commands about this machine: doctor, bench."""
    doctor = _command(commands, "doctor", run_doctor, "say what works on this machine")
    doctor.add_argument("--checkpoint", metavar="DIR", help="check led-base-16384's weights against known numbers")
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.add_argument("--gpu", action="store_true", help="check and measure the GPU instead; takes minutes")
    doctor.add_argument("--out", metavar="JSON", help="with --gpu: write the report there, not to standard output")
    doctor.add_argument("--page", metavar="MD", help="with --gpu: write the report as a page, too")

    bench = _command(commands, "bench", run_bench, "measure speed and memory on this machine")
    bench.add_argument(
        "--model", metavar="NAME|DIR", help="default: random weights of led-base's size (needs 650 MB of disk)"
    )
    bench.add_argument("--quick", action="store_true", help="shorter documents and one run: under 90 seconds")
    bench.add_argument(
        "--only", nargs="+", metavar="CASE", help="load, encode-1k, decode-4k-1beam, generate-16k-4beams, ..."
    )
    bench.add_argument(
        "--against", choices=("transformers",), help="the same cases there as well, taking turns (extra `peer`)"
    )
    bench.add_argument("--runs", type=int, metavar="N", help="how often each case is measured (default: 3; quick: 1)")
    bench.add_argument("--plot", metavar="FILE", help="draw time and memory against length (extra `plot`)")
    bench.add_argument("--json", action="store_true", help="one JSON object")
    bench.add_argument("--quiet", action="store_true", help="no progress on standard error")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:" + EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_writing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-beams", type=int, metavar="N", help="beams (default: the checkpoint's own setting)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens to write")
    parser.add_argument(
        "--global-attention", type=_global_attention, default="first", metavar="first|none|all|0,5,9",
        help="which tokens see everything: first (default), none, all, or positions",
    )  # fmt: skip
    parser.add_argument(
        "--truncate", action="store_true", help="read only the beginning of a document that is too long"
    )
    parser.add_argument(
        "--cross-attention", choices=("cached", "folded"), default="cached",
        help="folded: keep no keys and values of the document; slower, and far smaller",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a document, one a line")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and notices")


def _version_or_help(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.version:
        from led_ref import __version__

        print(f"led-ref {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return 2


def _global_attention(given: str) -> str | list[int]:
    """A name as it is, or positions with commas between as a list."""
    if given in ("first", "none", "all"):
        return given
    try:
        return [int(position) for position in given.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{given!r}; give first, none, all, or positions such as 0,5,9") from None


def _is_piped() -> bool:
    """Whether text may come through standard input: it is there, and no person sits at it."""
    return sys.stdin is not None and not sys.stdin.isatty()


# ---- the subcommands ----------------------------------------------------------------------------------------------------


def run_summarize(options: argparse.Namespace) -> int:
    """`led-ref summarize`: one text for each document."""
    return _write("summarize", options, settings={}, show_all=False)


def run_generate(options: argparse.Namespace) -> int:
    """`led-ref generate`: every text that was found for each document, with its score."""
    settings: dict[str, Any] = {}
    for given in options.settings:
        name, equals, value = given.partition("=")
        if not (name and equals):
            return _misused("generate", f"--set {given!r} is not NAME=VALUE, such as length_penalty=2.0")
        try:
            settings[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except (ValueError, RecursionError):
            settings[name] = value
    return _write("generate", options, settings=settings, show_all=True)


def _write(command: str, options: argparse.Namespace, *, settings: dict[str, Any], show_all: bool) -> int:
    if (mistaken := _need_files(command, options)) is not None:
        return mistaken
    if (mistake := many_options.misuse(options)) is not None:
        return _misused(command, mistake)
    from led_ref.cli.writing import write_documents

    return write_documents(options, settings=settings, show_all=show_all)


def _need_files(command: str, options: argparse.Namespace) -> int | None:
    """Put - where no files are named; without a pipe that is wrong usage, whose exit code is given."""
    if not options.files and not _is_piped():
        return _misused(command, "give a FILE, or send text through a pipe")
    options.files = options.files or ["-"]
    return None


def _misused(command: str, reason: str) -> int:
    print(f"led-ref {command}: {reason}. led-ref {command} --help shows examples.", file=sys.stderr)
    return 2


def run_tokenize(options: argparse.Namespace) -> int:
    """`led-ref tokenize`: ids, pieces and offsets."""
    if options.file is not None and options.text is not None:
        return _misused("tokenize", "give a FILE or --text TEXT, not both")
    if options.file is None and options.text is None:
        if not _is_piped():
            return _misused("tokenize", "give a FILE or --text TEXT, or send text through a pipe")
        options.file = "-"
    from led_ref.cli.showing import show_tokens

    return show_tokens(options)


def run_inspect(options: argparse.Namespace) -> int:
    """`led-ref inspect`: what a checkpoint holds."""
    from led_ref.cli.showing import show_checkpoint

    return show_checkpoint(options)


def run_convert(options: argparse.Namespace) -> int:
    """`led-ref convert`: a checkpoint as safetensors."""
    if not options.from_bart and (options.max_positions is not None or options.attention_window is not None):
        return _misused("convert", "--max-positions and --attention-window are for a BART; add --from-bart")
    from led_ref.cli.converting import convert_checkpoint

    return convert_checkpoint(options)


def run_trace(options: argparse.Namespace) -> int:
    """`led-ref trace`: what a run computes on the way."""
    if not options.generate and (options.num_beams is not None or options.max_new_tokens is not None):
        return _misused("trace", "--num-beams and --max-new-tokens are for a generation; add --generate")
    from led_ref.cli.tracing import record_trace

    return record_trace(options)


def run_steps(options: argparse.Namespace) -> int:
    """`led-ref steps`: what every step is."""
    from led_ref.cli.tracing import list_steps

    return list_steps(options)


def run_diff(options: argparse.Namespace) -> int:
    """`led-ref diff`: where two traces part."""
    from led_ref.cli.tracing import compare_traces

    return compare_traces(options)


def run_doctor(options: argparse.Namespace) -> int:
    """`led-ref doctor`: what works here."""
    if options.gpu:
        from led_ref.tools.gpu.report import examine_gpu

        return examine_gpu(options)
    if options.out or options.page:
        return _misused("doctor", "--out and --page are for the report of --gpu; add --gpu")
    from led_ref.tools.doctor import examine

    return examine(options)


def run_bench(options: argparse.Namespace) -> int:
    """`led-ref bench`: speed and memory."""
    from led_ref.tools.bench.run import run_bench as run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
