"""`led-ref tokenize`: the ids, pieces and offsets of a text."""

import argparse
import os
import sys

from led_ref.cli.shared_options import Misused, add_shared, is_piped

SUMMARY = "show the ids, pieces and offsets of a text"
EXAMPLES = """
  led-ref tokenize --text "Hello world"
  led-ref tokenize paper.txt --json
  led-ref tokenize --text "Hello world" --model allenai/led-base-16384
"""

# Background colours of the pieces, in turn (256-colour terminals).
_COLOURS = (24, 58, 90, 22, 94, 60)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref tokenize`."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a file; - or nothing: what comes through a pipe")
    parser.add_argument("--text", help="the text itself")
    add_shared(parser, "--model", help="whose vocabulary (default: the bundled model's)")
    parser.add_argument("--engine", choices=("python", "rust"), default="python", help="which of the two equal engines")
    add_shared(parser, "--json")


def run(options: argparse.Namespace) -> int:
    """Print ids, pieces and offsets: as JSON, or as a table under the coloured text."""
    if options.file is not None and options.text is not None:
        raise Misused("give a FILE or --text TEXT, not both")
    if options.file is None and options.text is None and not is_piped():
        raise Misused("give a FILE or --text TEXT, or send text through a pipe")
    from led_ref.api import bundled_model
    from led_ref.pipelines.text_files import read_document
    from led_ref.tokenizer.tokenizer import LEDTokenizer
    from led_ref.tools.terminal import print_json
    from led_ref.weights.find_files import resolve

    text = options.text if options.text is not None else read_document(options.file or "-")
    folder = bundled_model() if options.model is None else resolve(options.model)
    tokenizer = LEDTokenizer.from_pretrained(folder, engine=options.engine)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if options.json:
        print_json({"ids": ids, "pieces": pieces, "offsets": offsets, "text": text})
        return 0
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        print(coloured(text, offsets))
    print(f"{'':>6} {'id':>6}  {'offsets':<13} piece")
    for i, (token, piece, (start, end)) in enumerate(zip(ids, pieces, offsets, strict=True)):
        print(f"{i:>6} {token:>6}  {f'{start}-{end}':<13} {piece}")
    print(f"{len(ids)} tokens, {len(text)} characters")
    return 0


def coloured(text: str, offsets: list[tuple[int, int]]) -> str:
    """The text, every character once, each piece on a colour of its own.

    A space belongs to the piece behind it, though offsets leave it out; a character that several pieces share (its
    bytes were not merged) is shown with the first. What would move a terminal's cursor is shown as its escape.

    Example:
        >>> coloured("a b", [(0, 0), (0, 1), (2, 3), (0, 0)]).replace(chr(27), "")
        '[97;48;5;24ma[0m[97;48;5;58m b[0m'
    """
    shown, done, pieces = [], 0, 0
    for _, end in [*offsets, (len(text), len(text))]:
        if end > done:
            piece = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text[done:end])
            shown.append(f"\033[97;48;5;{_COLOURS[pieces % len(_COLOURS)]}m{piece}\033[0m")
            done, pieces = end, pieces + 1
    return "".join(shown)
