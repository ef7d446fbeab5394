"""Results in files: what `summarize`, `generate`, `answer` and `classify` do with --out, and the options that belong to it."""

import argparse
import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from led_ref.cli.documents import complain, corpus_of, expand_files, read_all, report_on_each, shows_bars
from led_ref.cli.shared_options import Misused, loading, need_files, quietly, run_of_model
from led_ref.errors import LEDError, printable
from led_ref.pipelines.many import Block, Found, Job, blocks, digests, results
from led_ref.pipelines.progress import DocumentCount, ProgressBars
from led_ref.pipelines.result_folder import ResultFolder
from led_ref.pipelines.shards import shard_of
from led_ref.tools.terminal import reader_may_leave, say

BATCH_SIZE = 4
_MOST_NAMED = 20  # documents that cannot be read


class CommandJob(Job, Protocol):
    """What a command does with a document."""

    @property
    def loader(self) -> Callable[[], Job]:
        """What loads the same job in another process, without a word."""
        ...

    def lines(self, found: Found) -> list[str]:
        """What was found, for people."""
        ...

    def brief(self, found: Found) -> Found:
        """What was found, without what is the same for all documents or found again from the rest."""
        ...


def add_options(parser: argparse.ArgumentParser, *, batches: bool = True) -> None:
    """Add --out and the options that belong to it; `batches`: those of documents that are written together."""
    add = parser.add_argument_group("many documents").add_argument
    add(
        "--text-field",
        default="text",
        metavar="NAME",
        help="of .jsonl, .csv, .parquet: the field of the text (default: text)",
    )
    add("--id-field", metavar="NAME", help="the field of the id that results keep (default: id, where there is one)")
    add("--out", metavar="DIR", help="write each result into a file in DIR, whole or not at all")
    add(
        "--jsonl", action="store_true",
        help="with --out: a line of JSON in place of a file for each result; so it is if FILE holds many documents",
    )  # fmt: skip
    add("--resume", action="store_true", help="with --out: keep the results that DIR holds, and make the others")
    add(
        "--redo", choices=("changed",), metavar="changed",
        help="with --resume: make anew what was made with another model or settings, or from another text",
    )  # fmt: skip
    add("--workers", type=int, metavar="N", help="with --out: N processes on this machine, by Dask")
    add("--scheduler", metavar="ADDRESS", help="with --out: the workers of a Dask scheduler")
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
    given = {"--resume": options.resume, "--shard": options.shard, "--jsonl": options.jsonl}
    given |= {"--workers": options.workers, "--scheduler": options.scheduler}
    if options.command in ("summarize", "generate"):
        given |= {"--batch-size": options.batch_size, "--batch-memory": options.batch_memory}
    alone = [name for name, value in given.items() if value not in (None, False)]
    if alone and options.out is None:
        raise Misused(f"{alone[0]} is for a run with results in files; add --out DIR")
    if options.redo and not options.resume:
        raise Misused("--redo changed is for a run that goes on; add --resume")


def write_results(
    options: argparse.Namespace, kind: str, load: Callable[[ResultFolder, ProgressBars], CommandJob]
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
    corpus = corpus_of(options, sorted(options.files))
    ending = None if options.jsonl or corpus.has_records else f"{kind}.json" if options.json else f"{kind}.txt"
    folder = ResultFolder(
        Path(options.out), corpus.names, ending=ending, shard=shard, resume=options.resume, redo=bool(options.redo)
    )  # fmt: skip
    known: dict[str, str | None] = {}
    refused = list[str]()
    for file, digest in digests(corpus, shard):
        error = folder.refused.get(file, digest)
        known[file] = None if isinstance(error, LEDError) else error
        if isinstance(error, LEDError):
            refused.append(file)
            if len(refused) <= _MOST_NAMED:
                complain(file, error)
    if len(refused) > _MOST_NAMED:
        say(f"... and {len(refused) - _MOST_NAMED:,} more that cannot be read")
    failed, count = len(refused), len(known)
    if failed == count and count:
        return failed, count
    with ProgressBars("now", enabled=shows_bars(options), position=1) as progress:
        job = load(folder, progress)
        with folder.begun(job.run(), known) as done:
            if folder.redone:
                say(f"{len(folder.redone)} results were made otherwise; they are removed, and made anew")
            if done and not options.quiet:
                say(f"{len(done)} of {count} are in {folder.path} already")
            with (
                contextlib.ExitStack() as stack,
                DocumentCount(count, len(done), enabled=shows_bars(options)) as count_one,
            ):
                for file, found in _found(stack, options, job, blocks(corpus, shard, known, done)):
                    try:
                        if isinstance(found, LEDError):
                            raise found
                        path = folder.write(file, _shown(found, job, options.json, ending))
                    except LEDError as error:
                        complain(file, error)
                        failed += 1
                        continue
                    count_one(found.get("tokens", 0))
                    with reader_may_leave():
                        print(file if ending is None else path, flush=True)
                if count_one.documents and not options.quiet:
                    say(f"{count_one}")
    if failed:
        say(
            f"{failed} of {count} documents failed; the results of the others are in {folder.path}. "
            "To try those again alone, run the same with --resume."
        )
    return failed, count


def _found(
    stack: contextlib.ExitStack, options: argparse.Namespace, job: CommandJob, given: Iterable[Block]
) -> Iterator[tuple[str, Found | LEDError]]:
    """What is found in the blocks, here or on the workers of a cluster, which ends with the stack."""
    if options.workers is None and options.scheduler is None:
        return results(given, job)
    from led_ref.pipelines.generate_many import on_workers

    where = {"scheduler": options.scheduler, "workers": options.workers}
    return stack.enter_context(on_workers(given, job.loader, job.run(), **where))


def _shown(found: Found, job: CommandJob, is_json: bool, ending: str | None) -> str | Found:
    """A result as it is written: as JSON or for people; as a line of JSON where there is no ending of a file's name."""
    if ending is None:
        return found if is_json else {name: found[name] for name in ("file", "id") if name in found} | job.brief(found)
    return printable(json.dumps(found, ensure_ascii=False) if is_json else "\n".join(job.lines(found)))


# ---- one document at a time ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FindInEach:
    """The job of a command that looks at each document by itself; arguments as in `report_on_files`."""

    options: argparse.Namespace
    load: Callable[..., Any]
    find: Callable[[Any, str, str, ProgressBars], Found]
    lines: Callable[[Found], list[str]]
    settings: tuple[str, ...]
    progress: ProgressBars
    model: Any

    @property
    def loader(self) -> Callable[[], Job]:
        """What loads the same in another process."""
        return partial(_load_each, quietly(self.options), self.load, self.find, self.lines, self.settings)

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

    def brief(self, found: Found) -> Found:
        """What was found, without question and model."""
        return {name: value for name, value in found.items() if name not in ("file", "question", "model")}

    def run(self) -> dict[str, Any]:
        """Everything that decides what is found."""
        settings = {name: getattr(self.options, name) for name in (*self.settings, "truncate")}
        return {**run_of_model(self.options, self.model), **settings}


def _load_each(
    options: argparse.Namespace, load: Callable[..., Any], find: Callable[[Any, str, str, ProgressBars], Found],
    lines: Callable[[Found], list[str]], settings: tuple[str, ...], progress: ProgressBars | None = None,
) -> _FindInEach:  # fmt: skip
    progress = progress or ProgressBars("", enabled=False)
    return _FindInEach(options, load, find, lines, settings, progress, load(options.model, **loading(options)))


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
    expand_files(options)
    check_options(options)
    if options.out is not None:

        def job(folder: ResultFolder, progress: ProgressBars) -> CommandJob:
            return _load_each(options, load, find, lines, settings, progress)

        return 1 if write_results(options, kind, job)[0] else 0
    documents = read_all(options)
    if not documents:
        return 1
    model = load(options.model, **loading(options))
    failed = report_on_each(options, documents, lambda file, text, progress: find(model, file, text, progress), lines)
    return 1 if failed or len(documents) < len(options.files) else 0
