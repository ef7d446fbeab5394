"""`led-ref summarize` and `led-ref generate`: documents in, texts out."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from led_ref.api import LED, check_settings, global_mask, load
from led_ref.commands.output import print_json
from led_ref.commands.progress import ProgressBars, say
from led_ref.documents import read_document
from led_ref.errors import LEDError, SettingsError


def write_documents(options: argparse.Namespace, *, settings: dict[str, Any], show_all: bool) -> int:
    """Write for each of `options.files`. A document that fails is named on standard error; the others go on.

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
    started = time.perf_counter()
    led = load(
        options.model,
        revision=options.revision,
        backend=options.backend,
        dtype=options.dtype,
        notice=None if quiet else say,
    )
    if not quiet:
        parameters = sum_of_parameters(led)
        say(
            f"loaded {led.name}: {parameters:,} parameters, computing in {led.model.dtype} on {led.model.backend.name}, "
            f"{time.perf_counter() - started:.2f} s"
        )
    failed = 0
    for file in options.files:
        try:
            found = _write_one(led, file, options, settings)
        except SettingsError:
            raise
        except LEDError as error:
            about = "" if file in str(error) else f"{file}: "
            print(f"led-ref: {about}{error}", file=sys.stderr)
            failed += 1
            continue
        _show(found, options, show_all, several=len(options.files) > 1)
    return 1 if failed else 0


def sum_of_parameters(led: LED) -> int:
    """How many numbers of the loaded model were trained."""
    from led_ref.weights.keys import parameter_count

    params = led.model.params
    return parameter_count(led.model.config, untied_lm_head=params.lm_head is not params.shared)


def _write_one(led: LED, file: str, options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything about one document: what was read, what was written, how long it took."""
    started = time.perf_counter()
    ids = led.encode(read_document(file), truncation=options.truncate)
    mask = global_mask(options.global_attention, len(ids))
    name = "standard input" if file == "-" else Path(file).name
    with ProgressBars(name, enabled=not options.quiet and sys.stderr.isatty()) as progress:
        result = led.model.generate(
            [ids],
            attention_mask=[[1] * len(ids)],
            global_attention_mask=[mask],
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
        "settings": settings,
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
        say(f"{found['file']}: {found['tokens']:,} tokens read, {found['seconds']:.1f} s")
