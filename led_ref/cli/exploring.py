"""`led-ref explore`: run the model on a document, and write the page in which the run can be walked through."""

import argparse
from pathlib import Path

from led_ref.api import check_settings, load
from led_ref.bundled.manual_pages import is_manual_page, manual_page_body
from led_ref.cli.output import megabytes
from led_ref.cli.progress import say
from led_ref.oracle.traces.trace import check_target
from led_ref.pipelines.global_attention import global_mask
from led_ref.pipelines.text_files import read_document
from led_ref.tools.explorer.page import page
from led_ref.tools.explorer.record import record


def explore(options: argparse.Namespace) -> int:
    """Write the page, and say where it is and how large."""
    out = Path(options.out or _default_name(options.file))
    check_target(out, overwrite=options.overwrite)  # before the run, which may take minutes
    text = read_document(options.file)
    given = {"num_beams": options.num_beams, "max_new_tokens": options.max_new_tokens}
    settings = {name: value for name, value in given.items() if value is not None}
    check_settings(settings)
    led = load(options.model, revision=options.revision, notice=None if options.quiet else say)
    if options.model is None and is_manual_page(text):  # as led-ref summarize reads one
        text = manual_page_body(text) or text
    ids = led.encode(text, truncation=options.truncate)
    if not options.quiet:
        say(f"reading {len(ids):,} tokens ...")
    mask = global_mask(options.global_attention, len(ids))
    title = "standard input" if options.file == "-" else Path(options.file).name
    made = page(record(led, ids, mask, title=title, **settings))
    out.write_text(made, encoding="utf-8")
    print(f"{out}: {len(ids):,} tokens, {megabytes(len(made.encode()))}; open it in a browser")
    return 0


def _default_name(file: str) -> str:
    return "explore.html" if file == "-" else f"{Path(file).name.removesuffix('.gz').removesuffix('.txt')}.html"
