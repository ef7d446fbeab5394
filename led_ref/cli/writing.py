"""What `led-ref summarize` and `led-ref generate` do: documents in, texts out.

The texts go to standard output, or with --out into files, one for each document (many.py). A run that is repeated with
--resume forms the same batches of documents as the first, skips those that are done, and so ends with the same files to
the byte.
"""

import argparse
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from led_ref.api import LED, check_settings
from led_ref.bundled.forms import as_trained
from led_ref.cli.documents import bars, complain, expand_files, failures, read_all, report_on_each, title
from led_ref.cli.many import BATCH_SIZE, check_options, write_results
from led_ref.cli.shared_options import (
    Misused,
    given,
    global_attention_of,
    load_model,
    need_files,
    quietly,
    run_of_model,
)
from led_ref.errors import LEDError, SettingsError
from led_ref.pipelines.batching import BATCH_MEMORY
from led_ref.pipelines.loading import Document, Written
from led_ref.pipelines.many import Found, Job
from led_ref.pipelines.progress import ProgressBars
from led_ref.pipelines.result_folder import ResultFolder
from led_ref.pipelines.splitting import OVERLAP, check_split, prepare_pieces
from led_ref.pipelines.summarization import write_each
from led_ref.tools.terminal import say
from led_ref.weights.keys import parameter_count


def write_documents(options: argparse.Namespace, *, settings: dict[str, Any], show_all: bool) -> int:
    """Write for each of `options.files`. A document that fails is named on standard error; the others go on.

    What needs no model is checked before one is loaded, which may mean fetching gigabytes: settings, folder and documents.

    Args:
        options: the command line.
        settings: those of generate that no option has.
        show_all: show every text of a document with its score, not the best one alone.

    Returns:
        0, or 1 if any document failed.

    Raises:
        Misused: for options that contradict each other, or without a document.
        LEDError: if the model cannot be loaded, or a setting cannot be: no document would fare better.
    """
    need_files(options)
    expand_files(options)
    check_options(options)
    if options.overlap is not None and options.split is None:
        raise Misused("--overlap is for documents in pieces; add --split join or --split again")
    by_option = given(options, "num_beams", "max_new_tokens") | _sampling_settings(options)
    if twice := settings.keys() & by_option.keys():
        raise Misused(f"{min(twice)} is given twice, by --set and by an option of its own; leave one out")
    settings = settings | by_option
    if options.sample or options.lookup:  # a checkpoint's own beams are no wish of the user's
        settings.setdefault("num_beams", 1)
    check_settings(settings)
    if options.split is not None:
        check_split(options.split, truncation=options.truncate, seed=None)
    if options.out is not None:
        kind = "texts" if show_all else "summary"
        failed, count = write_results(
            options, kind, lambda folder, bars: _load(options, settings, show_all, folder, bars)
        )
    else:
        documents = read_all(options)
        count = len(options.files)
        if not documents:
            return 1
        failed = _print_documents(_load(options, settings, show_all), documents)
    if options.model is None and not options.quiet and failed < count:
        say(
            "that was written by a 6-million-parameter model that has read manual pages, RFCs and package descriptions alone; "
            "for summaries: led-ref summarize FILE --model allenai/led-large-16384-arxiv"
        )
    return 1 if failed else 0


def _load(
    options: argparse.Namespace,
    settings: dict[str, Any],
    show_all: bool,
    folder: ResultFolder | None = None,
    progress: ProgressBars | None = None,
) -> "_Writer":
    """The model with the settings of the run; a seed that is drawn is that of the run that `folder` resumes."""
    started = time.perf_counter()
    led = load_model(options)
    effective = led.model.effective_settings(**settings).to_dict()
    settings = settings | _take_seed(effective, None if folder is None else folder.seed, quiet=options.quiet)
    params = led.model.params
    parameters = parameter_count(led.model.config, untied_lm_head=params.lm_head is not params.shared)
    if not options.quiet:
        say(
            f"loaded {led.name}: {parameters:,} parameters, computing in {led.model.dtype} on {led.model.backend.name}, "
            f"{time.perf_counter() - started:.2f} s"
        )
    return _Writer(led, options, settings, effective, show_all=show_all, progress=progress)


def _print_documents(writer: "_Writer", documents: Sequence[tuple[str, str]]) -> int:
    """Print the text of each document; how many failed."""
    options, prepared = writer.options, list[tuple[str, Prepared]]()
    for file, text in documents:
        try:
            prepared.append((file, writer.prepare(file, text)))
        except LEDError as error:
            complain(file, error)
    failed = len(options.files) - len(prepared)
    if options.stream:
        return failed + failures(writer.stream(file, document) for file, document in prepared)
    return failed + report_on_each(options, prepared, writer.write, writer.lines, says_seconds=True)


def _sampling_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of --sample, --seed, --temperature, --top-p and --lookup.

    Raises:
        SettingsError: if a text is to be shown as it is written, and also whole.
    """
    if options.stream and (options.json or options.out is not None):
        raise SettingsError(
            "--stream prints a text as it is written, --json and --out are for texts that are whole. Leave one out."
        )
    settings = given(options, "seed", "temperature", "top_p")
    if options.sample:
        settings["do_sample"] = True
    if options.lookup is not None:
        settings["prompt_lookup_num_tokens"] = options.lookup
    return settings


def _take_seed(effective: dict[str, Any], before: int | None, *, quiet: bool) -> dict[str, Any]:
    """A seed as a setting, if ids are drawn and the user gave none: that of the run before, or one short enough to be typed."""
    if not effective["do_sample"] or effective["seed"] is not None:
        return {}
    effective["seed"] = secrets.randbits(32) if before is None else before
    if not quiet and before is None:
        say(f"drawing with a new seed; --seed {effective['seed']} draws the same again")
    return {"seed": effective["seed"]}


Prepared = Document | list[Document]


@dataclass(frozen=True)
class _Writer:
    """A loaded model and the command line; `settings` as the user gave them, `effective`: all settings of the run."""

    led: LED
    options: argparse.Namespace
    settings: dict[str, Any]
    effective: dict[str, Any]
    show_all: bool
    progress: ProgressBars | None = None

    @property
    def loader(self) -> Callable[[], Job]:
        """What loads the same in another process; a seed that was drawn is among the settings."""
        return partial(_load, quietly(self.options), self.settings, self.show_all)

    def prepare(self, file: str, text: str) -> Prepared:
        """A document as the model reads it, or the pieces of one that is too long."""
        options = self.options
        # Only the bundled model wants a document in the form of its training: others were trained on other documents.
        read, what = as_trained(text) if options.model is None else (text, None)
        if what is not None and not options.quiet:
            say(f"{title(file)} is {what}")
        own = global_attention_of(options, file)
        if options.split is not None:
            pieces = prepare_pieces(self.led, read, global_attention=own, overlap=self._overlap())
            return pieces[0] if len(pieces) == 1 else pieces
        return self.led.prepare(read, global_attention=own, truncation=options.truncate)

    def _overlap(self) -> int:
        return OVERLAP if self.options.overlap is None else int(self.options.overlap)

    def __call__(
        self, documents: Sequence[tuple[str, str]], skip: Collection[int]
    ) -> Iterator[tuple[int, Found | LEDError]]:
        """What is written for each document of a block: the work of many.py."""
        options, prepared = self.options, dict[int, Prepared]()
        for i, (file, text) in enumerate(documents):
            try:
                prepared[i] = self.prepare(file, text)
            except LEDError as error:
                yield i, error
        whole = {i: document for i, document in prepared.items() if isinstance(document, Document)}
        numbers = list(whole)
        batches = {
            "batch_size": BATCH_SIZE if options.batch_size is None else options.batch_size,
            "batch_memory": BATCH_MEMORY if options.batch_memory is None else options.batch_memory * 10**6,
        }
        skipped = {k for k, i in enumerate(numbers) if i in skip}
        for k, written in self._write_each(list(whole.values()), self.progress, **batches, skip=skipped):
            i = numbers[k]
            try:
                yield i, written if isinstance(written, LEDError) else self._about(documents[i][0], whole[i], written)
            except LEDError as error:  # an id that is no token
                yield i, error
        for i, pieces in prepared.items():
            if isinstance(pieces, list) and i not in skip:
                try:
                    yield i, self._of_pieces(documents[i][0], pieces, self.progress, **batches)
                except LEDError as error:
                    yield i, error

    def stream(self, file: str, document: Prepared) -> bool:
        """Print the text of one document as it is written; a bar shows only the reading. False if it failed."""
        try:
            if isinstance(document, list):
                raise SettingsError(
                    "--stream prints a text as it is written, --split makes it of several. Leave one out."
                )
            with bars(self.options, file) as progress:
                pieces = self.led.stream_prepared(
                    document,
                    cross_attention=self.options.cross_attention,
                    progress=lambda stage, done, total: progress(stage, done, total) if stage == "read" else None,
                    **self.settings,
                )
            if len(self.options.files) > 1:
                print(f"{file}: ", end="")
            for piece in pieces:
                print(piece, end="", flush=True)
            print(flush=True)
        except LEDError as error:
            complain(file, error)
            return False
        return True

    def write(self, file: str, document: Prepared, progress: ProgressBars) -> Found:
        """Write for one document, alone; everything about it."""
        pieces = document if isinstance(document, list) else [document]
        if not self.options.quiet:
            in_pieces = f" in {len(pieces)} pieces" if len(pieces) > 1 else ""
            say(f"reading {title(file)} ({sum(len(piece.ids) for piece in pieces):,} tokens{in_pieces}) ...")
        if isinstance(document, list):
            return self._of_pieces(file, document, progress)
        ((_, written),) = self._write_each([document], progress)
        if isinstance(written, LEDError):
            raise written
        return self._about(file, document, written)

    def _write_each(self, documents: Sequence[Document], progress: ProgressBars | None, **batches: Any) -> Any:
        return write_each(
            self.led.model,
            documents,
            self.settings,
            cross_attention=self.options.cross_attention,
            progress=progress,
            tokenizer=self.led.tokenizer,
            **batches,
        )

    def _about(self, file: str, document: Document, written: Written, texts: Sequence[str] | None = None) -> Found:
        """Everything about one document: what was read, what was written, with what settings."""
        texts = self.led.texts_of(written) if texts is None else texts
        return {
            "file": file,
            "model": self.led.name,
            "tokens": len(document.ids),
            "global_tokens": sum(document.global_mask),
            "text": texts[0],
            "texts": texts,
            "scores": written.scores,
            "ids": written.ids,
            "settings": self.effective,
        }

    def _of_pieces(self, file: str, pieces: Sequence[Document], progress: ProgressBars | None, **batches: Any) -> Found:
        """Write for a document in pieces; everything about it."""
        options = self.options
        text = self.led.write_in_pieces(
            pieces, options.split, self.settings, global_attention=global_attention_of(options, file),
            overlap=self._overlap(), cross_attention=options.cross_attention, progress=progress, **batches,
        )  # fmt: skip
        about = self._about(file, pieces[0], Written([], None), [text])
        counts = {
            "tokens": [len(piece.ids) for piece in pieces],
            "global_tokens": [sum(piece.global_mask) for piece in pieces],
        }
        return about | {name: sum(each) for name, each in counts.items()} | {"pieces": counts["tokens"]}

    def lines(self, found: dict[str, Any]) -> list[str]:
        """What a person is shown: every text with its score, or the best text alone."""
        if not self.show_all:
            return [found["text"]]
        scores = found["scores"] or [None] * len(found["texts"])
        shown = ["" if score is None else f"{score:9.4f}  " for score in scores]
        return [score + text for score, text in zip(shown, found["texts"], strict=True)]

    def brief(self, found: Found) -> Found:
        """The text, or with `show_all` all texts and scores."""
        return {name: found[name] for name in (("texts", "scores") if self.show_all else ("text",))}

    def run(self) -> dict[str, Any]:
        """Everything that decides what the texts of a run are, and in what form they are written."""
        options = self.options
        return {
            **run_of_model(options, self.led),
            "cross_attention": options.cross_attention,
            "global_attention": options.global_attention,
            "truncate": options.truncate,
            **({} if options.split is None else {"split": options.split, "overlap": self._overlap()}),
            **self.effective,
        }
