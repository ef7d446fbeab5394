"""What `led-ref summarize` and `led-ref generate` do: documents in, texts out.

The texts go to standard output, or with --out into files, one for each document (result_folder.py). A run that is repeated
with --resume forms the same batches of documents as the first, skips those that are done, and so ends with the same files
to the byte.
"""

import argparse
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from led_ref.api import LED, bundled_model, check_settings
from led_ref.bundled.manual_pages import is_manual_page, manual_page_body
from led_ref.cli.documents import bars, complain, expand_folders, failures, read_all, report_on_each, shows_bars, title
from led_ref.cli.result_folder import ResultFolder, check_options, model_digest
from led_ref.cli.shared_options import given, global_attention_of, load_model, need_files
from led_ref.errors import LEDError, SettingsError, printable
from led_ref.pipelines.batching import BATCH_MEMORY
from led_ref.pipelines.loading import Document
from led_ref.pipelines.progress import ProgressBars, count_documents
from led_ref.pipelines.summarization import Written, write_each
from led_ref.tools.terminal import reader_may_leave, say
from led_ref.weights.find_files import resolve
from led_ref.weights.keys import parameter_count

BATCH_SIZE = 4

Prepared = tuple[str, str, Document]  # a document's name, its text, and what the model reads


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
    expand_folders(options)
    check_options(options)
    settings = settings | given(options, "num_beams", "max_new_tokens") | _sampling_settings(options)
    check_settings(settings)
    folder = None if options.out is None else ResultFolder(options, kind="texts" if show_all else "summary")
    refused = {} if folder is None else folder.refused
    for file, error in refused.items():
        complain(file, error)
    documents = read_all([file for file in options.files if file not in refused])
    if not documents:
        return 1
    started = time.perf_counter()
    led = load_model(options)
    effective = led.model.effective_settings(**settings).to_dict()
    settings |= _take_seed(effective, None if folder is None else folder.seed, quiet=options.quiet)
    params = led.model.params
    parameters = parameter_count(led.model.config, untied_lm_head=params.lm_head is not params.shared)
    if not options.quiet:
        say(
            f"loaded {led.name}: {parameters:,} parameters, computing in {led.model.dtype} on {led.model.backend.name}, "
            f"{time.perf_counter() - started:.2f} s"
        )
    writer = _Writer(led, options, settings, effective, show_all=show_all)
    prepared = writer.prepare(documents)
    failed = len(options.files) - len(prepared)
    if options.stream:
        failed += failures(writer.stream(file, document) for file, _, document in prepared)
    elif folder is None:
        named = [(file, document) for file, _, document in prepared]
        failed += report_on_each(options, named, writer.write, writer.lines, says_seconds=True)
    elif prepared:
        failed += writer.write_into(folder, prepared)
        if failed:
            say(
                f"{failed} of {len(options.files)} documents failed; the texts of the others are in {folder.path}. "
                "To try those again alone, run the same with --resume."
            )
    if options.model is None and not options.quiet and failed < len(options.files):
        say(
            f"that was written by a {parameters / 1e6:.0f}-million-parameter model that has seen only manual pages; "
            "for summaries: led-ref summarize FILE --model allenai/led-large-16384-arxiv"
        )
    return 1 if failed else 0


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
    if (options.sample or options.lookup) and options.num_beams is None:
        settings["num_beams"] = 1
    return settings


def _take_seed(effective: dict[str, Any], before: int | None, *, quiet: bool) -> dict[str, Any]:
    """A seed as a setting, if ids are drawn and the user gave none: that of the run before, or one short enough to be typed."""
    if not effective["do_sample"] or effective["seed"] is not None:
        return {}
    effective["seed"] = secrets.randbits(32) if before is None else before
    if not quiet and before is None:
        say(f"drawing with a new seed; --seed {effective['seed']} draws the same again")
    return {"seed": effective["seed"]}


@dataclass(frozen=True)
class _Writer:
    """A loaded model and the command line; `settings` as the user gave them, `effective`: all settings of the run."""

    led: LED
    options: argparse.Namespace
    settings: dict[str, Any]
    effective: dict[str, Any]
    show_all: bool

    def prepare(self, documents: Sequence[tuple[str, str]]) -> list[Prepared]:
        """The documents as the model reads them; of those that it cannot read an error is printed."""
        options, prepared = self.options, []
        for file, text in documents:
            # Only the bundled model wants a page in the form of its training: others were not trained on manual pages.
            is_page = options.model is None and is_manual_page(text)
            if is_page and not options.quiet:
                what = "a manual page: read without title, footer and NAME, its lines joined, as in training"
                say(f"{title(file)} is {what}")
            read = (is_page and manual_page_body(text)) or text
            try:
                own = global_attention_of(options, file)
                ids = self.led.prepare(read, global_attention=own, truncation=options.truncate)
                prepared.append((file, text, ids))
            except LEDError as error:
                complain(file, error)
        return prepared

    def stream(self, file: str, document: Document) -> bool:
        """Print the text of one document as it is written; a bar shows only the reading. False if it failed."""
        try:
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

    def write(self, file: str, document: Document, progress: ProgressBars) -> dict[str, Any]:
        """Write for one document, alone; everything about it."""
        if not self.options.quiet:
            say(f"reading {title(file)} ({len(document.ids):,} tokens) ...")
        ((_, written),) = self._write_each([document], progress)
        if isinstance(written, LEDError):
            raise written
        return self._about(file, document, written)

    def _write_each(self, documents: Sequence[Document], progress: ProgressBars, **batches: Any) -> Any:
        return write_each(
            self.led.model,
            documents,
            self.settings,
            cross_attention=self.options.cross_attention,
            progress=progress,
            tokenizer=self.led.tokenizer,
            **batches,
        )

    def _about(self, file: str, document: Document, written: Written) -> dict[str, Any]:
        """Everything about one document: what was read, what was written, with what settings."""
        texts = self.led.texts_of(written)
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

    def lines(self, found: dict[str, Any]) -> list[str]:
        """What a person is shown: every text with its score, or the best text alone."""
        if not self.show_all:
            return [found["text"]]
        scores = found["scores"] or [None] * len(found["texts"])
        shown = ["" if score is None else f"{score:9.4f}  " for score in scores]
        return [score + text for score, text in zip(shown, found["texts"], strict=True)]

    def write_into(self, folder: ResultFolder, documents: Sequence[Prepared]) -> int:
        """Write the results that the folder does not hold yet, each as soon as it is known; how many documents failed.

        Raises:
            InputError: if the folder's results were made with another model, other settings or from other texts.
        """
        options, failed = self.options, 0
        done = folder.begin(self._manifest(), {file: text for file, text, _ in documents})
        if done and not options.quiet:
            say(f"{len(done)} of {len(documents)} are in {folder.path} already")
        enabled = shows_bars(options)
        batches = {
            "batch_size": BATCH_SIZE if options.batch_size is None else options.batch_size,
            "batch_memory": BATCH_MEMORY if options.batch_memory is None else options.batch_memory * 10**6,
            "skip": {i for i, (file, _, _) in enumerate(documents) if file in done},
        }
        with (
            count_documents(len(documents), len(done), enabled=enabled) as count,
            ProgressBars("now", enabled=enabled, position=1) as progress,
        ):
            for i, written in self._write_each([document for _, _, document in documents], progress, **batches):
                file, _, document = documents[i]
                try:
                    if isinstance(written, LEDError):
                        raise written
                    found = self._about(file, document, written)
                    text = json.dumps(found, ensure_ascii=False) if options.json else "\n".join(self.lines(found))
                    path = folder.write(file, printable(text))
                except LEDError as error:
                    complain(file, error)
                    failed += 1
                    continue
                count()
                with reader_may_leave():
                    print(path, flush=True)
        return failed

    def _manifest(self) -> dict[str, Any]:
        """Everything that decides what the texts of a run are, and in what form they are written."""
        from led_ref import __version__

        options = self.options
        folder = bundled_model() if options.model is None else resolve(options.model, revision=options.revision)
        return {
            "led_ref": __version__,
            "model": self.led.name,
            "sha256 of the model": model_digest(folder),
            "backend": self.led.model.backend.name,
            "dtype": self.led.model.dtype,
            "quantize": options.quantize,
            "keep_stored": options.keep_stored,
            "cross_attention": options.cross_attention,
            "global_attention": options.global_attention,
            "truncate": options.truncate,
            **self.effective,
        }
