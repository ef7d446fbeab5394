"""`led-ref summarize` and `led-ref generate`: documents in, texts out."""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from led_ref.api import LED, check_settings, load
from led_ref.bundled.manual_pages import is_manual_page, manual_page_body
from led_ref.cli.output import print_json
from led_ref.cli.progress import ProgressBars, say
from led_ref.cli.sampling_options import sampling_settings, take_seed
from led_ref.cli.writing_many import ResultsOf, write_into_folder
from led_ref.errors import LEDError
from led_ref.pipelines.batching import Document, Written, write_each
from led_ref.pipelines.text_files import read_document


def write_documents(options: argparse.Namespace, *, settings: dict[str, Any], show_all: bool) -> int:
    """Write for each of `options.files`. A document that fails is named on standard error; the others go on.

    What needs no model is checked before one is loaded, which may mean fetching gigabytes: documents are read, settings
    looked at.

    Returns:
        0, or 1 if any document failed.

    Raises:
        LEDError: if the model cannot be loaded, or a setting cannot be: no document would fare better.
    """
    quiet = options.quiet
    for name in ("num_beams", "max_new_tokens"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    settings |= sampling_settings(options)
    check_settings(settings)
    results = None
    if options.out is not None:  # before anything is read: names that collide, a folder that may not be written to
        results = ResultsOf(options, options.files, kind="texts" if show_all else "summary")
    documents = read_all(options.files)
    failed = len(options.files) - len(documents)
    if not documents:
        return 1
    started = time.perf_counter()
    led = load(
        options.model,
        revision=options.revision,
        backend=options.backend,
        dtype=options.dtype,
        quantize=options.quantize,
        keep_stored=options.keep_stored,
        notice=None if quiet else say,
    )
    effective = led.model.effective_settings(**settings).to_dict()
    settings |= take_seed(effective, quiet=quiet)
    parameters = sum_of_parameters(led)
    if not quiet:
        say(
            f"loaded {led.name}: {parameters:,} parameters, computing in {led.model.dtype} on {led.model.backend.name}, "
            f"{time.perf_counter() - started:.2f} s"
        )
    prepared = []
    for file, text in documents:
        try:
            prepared.append((file, text, _prepare(led, file, text, options)))
        except LEDError as error:
            complain(file, error)
            failed += 1
    if options.stream:
        failed += sum(not _stream_one(led, file, document, options, settings) for file, _, document in prepared)
    elif results is None:
        several = len(options.files) > 1
        failed += _write_to_standard_output(led, prepared, options, settings, effective, show_all, several=several)
    elif prepared:
        lines = partial(_lines, show_all=show_all)
        failed += write_into_folder(led, prepared, results, options, settings, _about, lines, complain)
        if failed:
            say(
                f"{failed} of {len(options.files)} documents failed; the texts of the others are in {results.folder}. "
                "To try those again alone, run the same with --resume."
            )
    if options.model is None and not quiet and failed < len(options.files):
        say(
            f"that was written by a {parameters / 1e6:.0f}-million-parameter model that has seen only manual pages; "
            "for summaries: led-ref summarize FILE --model allenai/led-large-16384-arxiv"
        )
    return 1 if failed else 0


def read_all(files: Sequence[str]) -> list[tuple[str, str]]:
    """The names and texts of those that can be read; of the others it is said why not."""
    documents = []
    for file in files:
        try:
            documents.append((file, read_document(file)))
        except LEDError as error:
            complain(file, error)
    return documents


def complain(file: str, error: LEDError) -> None:
    """Say on standard error what is wrong with a document."""
    name = _called(file)
    print(f"led-ref: {'' if name in str(error) else f'{name}: '}{error}", file=sys.stderr)


def _called(file: str) -> str:
    return "standard input" if file == "-" else file


def sum_of_parameters(led: LED) -> int:
    """How many numbers of the loaded model were trained."""
    from led_ref.weights.keys import parameter_count

    params = led.model.params
    return parameter_count(led.model.config, untied_lm_head=params.lm_head is not params.shared)


def _prepare(led: LED, file: str, text: str, options: argparse.Namespace) -> Document:
    """The document as the model is to read it."""
    # Only the bundled model wants a page in the form of its training: other models were not taught on manual pages.
    is_page = options.model is None and is_manual_page(text)
    if is_page and not options.quiet:
        say(f"{_called(file)} is a manual page: read without title, footer and NAME, its lines joined, as in training")
    read = (is_page and manual_page_body(text)) or text
    return led.prepare(read, global_attention=options.global_attention, truncation=options.truncate)


def _stream_one(led: LED, file: str, document: Document, options: argparse.Namespace, settings: dict[str, Any]) -> bool:
    """Print the text of one document as it is written; a bar shows only the reading. Whether it could be written."""
    try:
        with ProgressBars(Path(_called(file)).name, enabled=not options.quiet and sys.stderr.isatty()) as bars:
            pieces = led.stream_prepared(
                document,
                cross_attention=options.cross_attention,
                progress=lambda stage, done, total: bars(stage, done, total) if stage == "read" else None,
                **settings,
            )
        if len(options.files) > 1:
            print(f"{file}: ", end="")
        for piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)
    except LEDError as error:
        complain(file, error)
        return False
    return True


def _write_to_standard_output(
    led: LED,
    documents: Sequence[tuple[str, str, Document]],
    options: argparse.Namespace,
    settings: dict[str, Any],
    effective: dict[str, Any],
    show_all: bool,
    *,
    several: bool,
) -> int:
    """Write one document after the other, and print each text as it is there; how many failed."""
    failed = 0
    for file, _, document in documents:
        started = time.perf_counter()
        if not options.quiet:
            say(f"reading {_called(file)} ({len(document.ids):,} tokens) ...")
        with ProgressBars(Path(_called(file)).name, enabled=not options.quiet and sys.stderr.isatty()) as progress:
            ((_, written),) = write_each(
                led.model,
                [document],
                settings,
                cross_attention=options.cross_attention,
                progress=progress,
                tokenizer=led.tokenizer,
            )
        if isinstance(written, LEDError):
            complain(file, written)
            failed += 1
            continue
        seconds = time.perf_counter() - started
        found = _about(led, file, document, written, effective)
        if options.json:
            print_json({**found, "seconds": round(seconds, 3)})
            continue
        for line in _lines(found, show_all=show_all):
            print(f"{file}: {line}" if several else line, flush=True)
        if not options.quiet:
            say(f"{_called(file)}: done in {seconds:.1f} s")
    return failed


def _about(led: LED, file: str, document: Document, written: Written, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything about one document: what was read, what was written, with what settings."""
    texts = [led.tokenizer.decode(row, skip_special_tokens=True).strip() for row in written.ids]
    return {
        "file": file,
        "model": led.name,
        "tokens": len(document.ids),
        "global_tokens": sum(document.global_mask),
        "text": texts[0],
        "texts": texts,
        "scores": written.scores,
        "ids": written.ids,
        "settings": settings,
    }


def _lines(found: dict[str, Any], *, show_all: bool) -> list[str]:
    """What is shown of it to a person: every text with its score, or the best text alone."""
    if not show_all:
        return [found["text"]]
    scores = found["scores"] or [None] * len(found["texts"])
    shown = ["" if score is None else f"{score:9.4f}  " for score in scores]
    return [score + text for score, text in zip(shown, found["texts"], strict=True)]
