"""`led-ref`: LED from the command line. Results go to standard output, everything else to standard error.

Exit codes: 0 done, 1 failed (the reason is one message on standard error), 2 wrong usage, 130 interrupted.
Each command is one file of this folder, which has a SUMMARY, EXAMPLES, `add_options` and `run`. NumPy and what needs it are
imported inside `run`, so that `led-ref --help` is quick.
"""

try:
    import argparse
    import contextlib
    import datetime  # noqa: F401  NumPy fetches it from C, where a Ctrl-C would become a broken NumPy
    import errno
    import io
    import os
    import sys
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

    from led_ref.cli import (
        answer,
        bench,
        classify,
        convert,
        demo,
        diff,
        doctor,
        estimate,
        evaluate,
        exercise,
        explore,
        gather,
        generate,
        inspect,
        steps,
        summarize,
        tokenize,
        trace,
        train,
        vectors,
    )
    from led_ref.cli.shared_options import Misused
    from led_ref.errors import LEDError, nearest
    from led_ref.tools.terminal import forget_output, say
except KeyboardInterrupt:  # Ctrl-C before `main` could catch it
    raise SystemExit(130) from None

# The commands by name, in the order of `led-ref --help`. The file of a command has its name.
COMMANDS: dict[str, Any] = {
    command.__name__.rpartition(".")[2]: command
    for command in (
        summarize, generate, tokenize, answer, classify, gather,  # text in, text out
        train, evaluate,  # checkpoint and documents in, checkpoint or scores out
        inspect, convert,  # checkpoints
        trace, steps, diff, explore, vectors,  # the numbers inside a run
        demo, doctor, bench, estimate, exercise,  # this machine, and the book
    )
}  # fmt: skip
EXAMPLES = """
  led-ref summarize paper.txt                       a line from the small bundled model
  man gzip | led-ref summarize -                     the same, from a pipe
  led-ref summarize paper.txt --model allenai/led-large-16384-arxiv --num-beams 4 --max-new-tokens 256
  led-ref doctor                                    what works here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    with _standard_error():
        return _run(arguments)


@contextlib.contextmanager
def _standard_error() -> Iterator[None]:
    """Where there is no standard error (pythonw, `2>&-`), the null device takes its place, and that of its descriptor.

    Else the next file that is opened would get the descriptor, and what a library writes to standard error.
    """
    if sys.stderr is not None:
        yield
        return
    opened = [os.open(os.devnull, os.O_RDWR)]
    while opened[-1] < 2:
        opened.append(os.open(os.devnull, os.O_RDWR))
    with open(opened[-1], "w", encoding="utf-8", closefd=opened[-1] > 2) as null, contextlib.redirect_stderr(null):
        yield


def _run(arguments: Sequence[str] | None) -> int:
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and not stream.closed:
                # Files and pipes get UTF-8. On a terminal, letters that its encoding lacks become escapes.
                encoding = None if stream.isatty() else "utf-8"
                stream.reconfigure(encoding=encoding, errors="backslashreplace")
        options = build_parser().parse_args(arguments)
        if sys.stdout is None:
            raise OSError("standard output is closed: there is nowhere to write results to")
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except Misused as misuse:
        say(f"{misuse}. led-ref {options.command} --help shows examples.", command=f"led-ref {options.command}")
        return 2
    except LEDError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
        return 130
    except BrokenPipeError:  # the reader (head, a pager) has closed the pipe
        forget_output()
        return 0
    except MemoryError as error:
        return _fail(
            f"the memory of this machine does not suffice ({error!r:.200}). `led-ref estimate` says what a run needs."
        )
    except OSError as error:  # not caught elsewhere: a full disk, a folder without permission
        forget_output()
        where = "standard output: " if error.filename is None and error.errno == errno.ENOSPC else ""
        return _fail(f"{where}{error}. See to the file's permissions and the disk's space.")


def _fail(reason: str) -> int:
    say(reason)
    return 1


class _Parser(argparse.ArgumentParser):
    """A parser without abbreviations, which reports an unknown option of a command with that command's own usage.

    Of a misspelt option, command or choice it names the one that is meant.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._words: list[str] = []  # of the command line

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but unknown arguments of a command are its own error, and not left to the main parser."""
        self._words = [str(word).partition("=")[0] for word in (sys.argv[1:] if args is None else args)]
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """As in argparse, with the names of the options that misspelt ones mean: an option may be missing because of that."""
        known = self._option_string_actions
        unknown = [word for word in self._words if word.startswith("--") and word not in known]
        meant = dict.fromkeys(near for word in unknown if (near := nearest(word, known)))
        super().error(message + (f". Did you mean {' and '.join(meant)}?" if meant else ""))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if near := nearest(str(value), map(str, action.choices or ())):
                error.message += f". Did you mean {near!r}?"
            raise


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="led-ref",
        description="LED (Longformer-Encoder-Decoder): reads up to 16,384 tokens, writes a summary. NumPy, no PyTorch.",
        epilog="examples:" + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    parser.set_defaults(run=lambda options: _version_or_help(parser, options))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY[0].upper() + command.SUMMARY[1:] + ".",
            epilog="examples:" + command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(subparser)
        subparser.set_defaults(run=command.run, command=name)
    return parser


def _version_or_help(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.version:
        from led_ref import __version__

        print(f"led-ref {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
