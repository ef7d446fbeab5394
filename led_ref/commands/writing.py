"""`led-ref summarize` and `led-ref generate`: documents in, texts out."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from led_ref.api import LED, check_settings, global_mask, load
from led_ref.commands.output import print_json
from led_ref.commands.progress import ProgressBars, say
from led_ref.documents import is_manual_page, manual_page_body, read_document
from led_ref.errors import LEDError


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
    check_settings(settings)
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
        notice=None if quiet else say,
    )
    effective = led.model.effective_settings(**settings).to_dict()
    parameters = sum_of_parameters(led)
    if not quiet:
        say(
            f"loaded {led.name}: {parameters:,} parameters, computing in {led.model.dtype} on {led.model.backend.name}, "
            f"{time.perf_counter() - started:.2f} s"
        )
    for file, text in documents:
        try:
            found = {**_write_one(led, file, text, options, settings), "settings": effective}
        except LEDError as error:
            complain(file, error)
            failed += 1
            continue
        _show(found, options, show_all, several=len(options.files) > 1)
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


def _write_one(led: LED, file: str, text: str, options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything about one document: what was read, what was written, how long it took."""
    started = time.perf_counter()
    # Only the bundled model wants a page in the form of its training: other models were not taught on manual pages.
    is_page = options.model is None and is_manual_page(text)
    ids = led.encode((is_page and manual_page_body(text)) or text, truncation=options.truncate)
    mask = global_mask(options.global_attention, len(ids))
    if not options.quiet:
        if is_page:
            say(
                f"{_called(file)} is a manual page: read without title, footer and NAME, its lines joined, as in training"
            )
        say(f"reading {_called(file)} ({len(ids):,} tokens) ...")
    with ProgressBars(Path(_called(file)).name, enabled=not options.quiet and sys.stderr.isatty()) as progress:
        result = led.model.generate(
            [ids],
            attention_mask=[[1] * len(ids)],
            global_attention_mask=[mask],
            cross_attention=options.cross_attention,
            progress=progress,
            **{**settings, "return_dict_in_generate": True},
        )
    texts = [led.tokenizer.decode(row, skip_special_tokens=True).strip() for row in result.sequences.tolist()]
    scores = None if result.sequences_scores is None else [float(score) for score in result.sequences_scores]
    return {
        "file": file,
        "model": led.name,
        "tokens": len(ids),
        "global_tokens": sum(mask),
        "text": texts[0],
        "texts": texts,
        "scores": scores,
        "ids": result.sequences.tolist(),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _show(found: dict[str, Any], options: argparse.Namespace, show_all: bool, *, several: bool) -> None:
    """Print what was written: as JSON, as every text with its score, or as the best text alone."""
    if options.json:
        print_json(found)
        return
    head = f"{found['file']}: " if several else ""
    if show_all:
        for i, text in enumerate(found["texts"]):
            score = "" if found["scores"] is None else f"{found['scores'][i]:9.4f}  "
            print(f"{head}{score}{text}", flush=True)
    else:
        print(f"{head}{found['text']}", flush=True)
    if not options.quiet:
        say(f"{_called(found['file'])}: done in {found['seconds']:.1f} s")
