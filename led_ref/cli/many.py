"""Results in files: what `summarize`, `generate`, `answer` and `classify` do with --out, and the options that belong to it."""

import argparse
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from led_ref.cli.documents import complain, expand_folders, read_all, report_on_each, shows_bars
from led_ref.cli.shared_options import Misused, loading, need_files, run_of_model
from led_ref.errors import LEDError, printable
from led_ref.pipelines.many import Corpus, Found, Work, blocks, digests, results
from led_ref.pipelines.progress import ProgressBars, count_documents
from led_ref.pipelines.result_folder import ResultFolder
from led_ref.pipelines.shards import shard_of
from led_ref.tools.terminal import reader_may_leave, say

BATCH_SIZE = 4


class Job(Work, Protocol):
    """What a command does with a document, and what decides how a result comes out."""

    def run(self) -> dict[str, Any]:
        """Everything that decides how a result comes out, by name: JSON-ready."""
        ...

    def lines(self, found: Found) -> list[str]:
        """What was found, for people."""
        ...


def add_options(parser: argparse.ArgumentParser, *, batches: bool = True) -> None:
    """Add --out and the options that belong to it; `batches`: those of documents that are written together."""
    add = parser.add_argument_group("many documents").add_argument
    add("--out", metavar="DIR", help="write each result into a file in DIR, whole or not at all")
    add("--resume", action="store_true", help="with --out: keep the results that DIR holds, and make the others")
    add("--shard", metavar="I/N", help="with --out: part I of N of the documents; `led-ref gather` puts all together")
    if not batches:
        parser.set_defaults(batch_size=1, batch_memory=None)
        return
    add(
        "--batch-size", type=int, metavar="N",
        help="with --out: most documents that are written together (default: 4; 1: each by itself)",
    )  # fmt: skip
    add(
        "--batch-memory", type=int, metavar="MB",
        help="with --out: megabytes that these may take beside the weights (default: 1074)",
    )  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """Misused if an option that belongs to --out is given without it: it would do nothing."""
    given = {"--resume": options.resume, "--shard": options.shard}
    if options.command in ("summarize", "generate"):
        given |= {"--batch-size": options.batch_size, "--batch-memory": options.batch_memory}
    alone = [name for name, value in given.items() if value not in (None, False)]
    if alone and options.out is None:
        raise Misused(f"{alone[0]} is for a run with results in files; add --out DIR")


def write_results(
    options: argparse.Namespace, kind: str, load: Callable[[ResultFolder, ProgressBars], Job]
) -> tuple[int, int]:
    """Make a result of each document, and write each as soon as it is known. A document that fails is named; the others go on.

    Args:
        options: the command line: files, out, json, resume, shard, batch_size.
        kind: stands in each result's name, such as "summary".
        load: loads the model; called when the documents have been read.

    Returns:
        How many documents failed, and how many there are.

    Raises:
        LEDError: as ResultFolder, and as `load`.
    """
    shard = shard_of(options.shard, BATCH_SIZE if options.batch_size is None else max(1, options.batch_size))
    corpus = Corpus(sorted(options.files))
    ending = f"{kind}.json" if options.json else f"{kind}.txt"
    folder = ResultFolder(Path(options.out), corpus.names, ending=ending, shard=shard, resume=options.resume)
    known: dict[str, str | None] = {}
    for file, digest in digests(corpus, shard):
        error = folder.refused.get(file, digest)
        known[file] = None if isinstance(error, LEDError) else error
        if isinstance(error, LEDError):
            complain(file, error)
    failed, count = sum(digest is None for digest in known.values()), len(known)
    if failed == count and count:
        return failed, count
    with ProgressBars("now", enabled=shows_bars(options), position=1) as progress:
        job = load(folder, progress)
        with folder.begun(job.run(), known) as done:
            if done and not options.quiet:
                say(f"{len(done)} of {count} are in {folder.path} already")
            with count_documents(count, len(done), enabled=shows_bars(options)) as count_one:
                for file, found in results(blocks(corpus, shard, known, done), job):
                    try:
                        if isinstance(found, LEDError):
                            raise found
                        text = json.dumps(found, ensure_ascii=False) if options.json else "\n".join(job.lines(found))
                        path = folder.write(file, printable(text))
                    except LEDError as error:
                        complain(file, error)
                        failed += 1
                        continue
                    count_one()
                    with reader_may_leave():
                        print(path, flush=True)
    if failed:
        say(
            f"{failed} of {count} documents failed; the results of the others are in {folder.path}. "
            "To try those again alone, run the same with --resume."
        )
    return failed, count


# ---- one document at a time ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FindInEach:
    """The job of a command that looks at each document by itself; arguments as in `report_on_files`."""

    options: argparse.Namespace
    model: Any
    find: Callable[[Any, str, str, ProgressBars], Found]
    lines: Callable[[Found], list[str]]
    settings: tuple[str, ...]
    progress: ProgressBars

    def __call__(
        self, documents: Sequence[tuple[str, str]], skip: Collection[int]
    ) -> Iterator[tuple[int, Found | LEDError]]:
        """What is found in each document."""
        for i, (file, text) in enumerate(documents):
            if i not in skip:
                try:
                    yield i, {"file": file, **self.find(self.model, file, text, self.progress)}
                except LEDError as error:
                    yield i, error

    def run(self) -> dict[str, Any]:
        """Everything that decides what is found."""
        settings = {name: getattr(self.options, name) for name in (*self.settings, "truncate")}
        return {**run_of_model(self.options, self.model), **settings}


def report_on_files(
    options: argparse.Namespace,
    load: Callable[..., Any],
    find: Callable[[Any, str, str, ProgressBars], Found],
    lines: Callable[[Found], list[str]],
    *,
    kind: str,
    settings: tuple[str, ...],
) -> int:
    """Read `options.files`, `load` a fine-tuned model, and print what it finds in each document, or write it with --out.

    Args:
        options: the command line.
        load: loads the model, with the arguments of a `load` function.
        find: given the model, name, text and progress bars, what is found out: JSON-ready.
        lines: what is found out as lines for people.
        kind: stands in the names of results, such as "answers".
        settings: the options that decide what is found.

    Returns:
        The exit code: 0, or 1 if any document failed.
    """
    need_files(options)
    expand_folders(options)
    check_options(options)
    if options.out is not None:

        def job(folder: ResultFolder, progress: ProgressBars) -> Job:
            return _FindInEach(options, load(options.model, **loading(options)), find, lines, settings, progress)

        return 1 if write_results(options, kind, job)[0] else 0
    documents = read_all(options.files)
    if not documents:
        return 1
    model = load(options.model, **loading(options))
    failed = report_on_each(options, documents, lambda file, text, progress: find(model, file, text, progress), lines)
    return 1 if failed or len(documents) < len(options.files) else 0
