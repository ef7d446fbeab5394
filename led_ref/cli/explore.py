"""`led-ref explore`: run the model on a document, and write an HTML page that shows its attention and its search."""

import argparse
from pathlib import Path

from led_ref.cli.shared_options import add_shared, given, global_attention_of, load_model
from led_ref.errors import printable
from led_ref.files.json_file import write_text
from led_ref.tools.terminal import megabytes, say

SUMMARY = "write one HTML page in which attention and search can be walked through"
EXAMPLES = """
  led-ref explore page.txt                          writes page.html: open it in a browser
  led-ref explore paper.txt --out paper.html --global-attention 0,100 --num-beams 6
  man gzip | led-ref explore - --out gzip.html
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref explore`."""
    parser.add_argument("file", metavar="FILE", help="the document, as for summarize; - for standard input")
    parser.add_argument("--out", metavar="PAGE.html", help="the page to write (default: FILE's name with .html, here)")
    add_shared(parser, "--model", "--revision", "--threads")
    add_shared(parser, "--num-beams", help="beams (default: the checkpoint's own, or 4)")
    add_shared(parser, "--max-new-tokens")
    add_shared(
        parser, "--global-attention", metavar="first|none|0,5,9",
        help="which tokens see everything: first (default), none, or positions",
    )  # fmt: skip
    add_shared(parser, "--truncate")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing page")
    add_shared(parser, "--quiet", help="no notices")


def run(options: argparse.Namespace) -> int:
    """Write the page, and print where it is and how large."""
    from led_ref.api import check_settings
    from led_ref.bundled.forms import as_trained
    from led_ref.oracle.traces.trace import check_target
    from led_ref.pipelines.text_files import read_document
    from led_ref.tools.explorer.page import page
    from led_ref.tools.explorer.record import record

    out = Path(options.out or _default_name(options.file))
    check_target(out, overwrite=options.overwrite)  # before the run, which may take minutes
    text = read_document(options.file)
    settings = given(options, "num_beams", "max_new_tokens")
    check_settings(settings)
    led = load_model(options)
    if options.model is None:
        text, _ = as_trained(text)  # as led-ref summarize reads it
    ids = led.encode(text, truncation=options.truncate)
    if not options.quiet:
        say(f"reading {len(ids):,} tokens ...")
    mask = led.global_mask(ids, global_attention_of(options, options.file))
    title = "standard input" if options.file == "-" else printable(Path(options.file).name)
    html = page(record(led, ids, mask, title=title, **settings))
    write_text(out, html)
    print(f"{out}: {len(ids):,} tokens, {megabytes(len(html.encode()))}; open it in a browser")
    return 0


def _default_name(file: str) -> str:
    return "explore.html" if file == "-" else f"{Path(file).name.removesuffix('.gz').removesuffix('.txt')}.html"
