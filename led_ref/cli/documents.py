"""Documents that are read one after the other: `summarize`, `generate`, `answer` and `classify` report on each of them.

A document that fails is named on standard error, and the others go on.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from led_ref.errors import LEDError
from led_ref.pipelines.corpus import Corpus, expand
from led_ref.pipelines.progress import ProgressBars
from led_ref.tools.terminal import forget_output, has_bars, print_json, say

Item = TypeVar("Item")


def expand_files(options: argparse.Namespace) -> None:
    """Put the documents of each folder and pattern in its place among `options.files`, and say what else is in a folder.

    Raises:
        LEDError: as corpus.expand.
    """
    out = getattr(options, "out", None)
    options.files, left = expand(options.files, out=None if out is None else Path(out))
    for folder, others in left.items():
        if others and not options.quiet:
            count = sum(Path(folder) in Path(file).parents for file in options.files)
            say(f"{folder}: {count} documents; not read: {', '.join(others):.200}")


def corpus_of(options: argparse.Namespace, files: Sequence[str]) -> Corpus:
    """The documents of some files."""
    return Corpus(files, options.text_field, options.id_field)


def read_all(options: argparse.Namespace) -> list[tuple[str, str]]:
    """The names and texts of the documents that can be read; for each of the others an error is printed.

    `options.files` become the names of all documents: a file may hold many.
    """
    documents, names = [], []
    for given in corpus_of(options, options.files).read():
        names.append(given.name)
        if isinstance(given.text, LEDError):
            complain(given.name, given.text)
        else:
            documents.append((given.name, given.text))
    options.files = names
    return documents


def complain(file: str, error: LEDError) -> None:
    """Print on standard error what is wrong with a document."""
    name = title(file)
    say(f"{'' if name in str(error) else f'{name}: '}{error}")


def title(file: str) -> str:
    """A document's name in messages."""
    return "standard input" if file == "-" else file


def bars(options: argparse.Namespace, file: str) -> ProgressBars:
    """The progress bars of one document: shown on a terminal, unless --quiet is given."""
    return ProgressBars(Path(title(file)).name, enabled=shows_bars(options))


def shows_bars(options: argparse.Namespace) -> bool:
    """Whether progress bars are shown."""
    return not options.quiet and has_bars()


def report_on_each(
    options: argparse.Namespace,
    documents: Iterable[tuple[str, Item]],
    find: Callable[[str, Item, ProgressBars], dict[str, Any]],
    lines: Callable[[dict[str, Any]], list[str]],
    *,
    says_seconds: bool = False,
) -> int:
    """Find something out about each document, and print it: as JSON, or as lines for people.

    Args:
        options: files, json, quiet.
        documents: name and content of each.
        find: given name, content and progress bars, what is found out: JSON-ready.
        lines: what is found out as lines for people.
        says_seconds: whether a notice gives the time that each document took.

    Returns:
        How many documents failed.
    """

    def report(file: str, document: Item) -> bool:
        started = time.perf_counter()
        try:
            with bars(options, file) as progress:
                found = {"file": file, **find(file, document, progress)}
        except LEDError as error:
            complain(file, error)
            return False
        seconds = time.perf_counter() - started
        if options.json:
            print_json({**found, "seconds": round(seconds, 3)})
            return True
        for line in lines(found):
            print(f"{file}: {line}" if len(options.files) > 1 else line, flush=True)
        if says_seconds and not options.quiet:
            say(f"{title(file)}: done in {seconds:.1f} s")
        return True

    return failures(report(file, document) for file, document in documents)


def failures(done: Iterable[bool]) -> int:
    """How many documents failed. Where the reader of standard output leaves (`| head -1`), the others are not begun."""
    failed = 0
    try:
        for is_done in done:
            failed += not is_done
    except BrokenPipeError:
        forget_output()
    return failed
