"""`led-ref tokenize` and `led-ref inspect`: look at a text's tokens, look at a checkpoint."""

import argparse
import os
import sys

from led_ref.api import bundled_model
from led_ref.cli.output import in_words, megabytes, print_json, print_values
from led_ref.pipelines.text_files import read_document
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.weights.hub import resolve
from led_ref.weights.summary import CheckpointSummary, summarize_checkpoint

# Background colours that a piece is shown on, one after the other (256-colour terminals).
_COLOURS = (24, 58, 90, 22, 94, 60)


def show_tokens(options: argparse.Namespace) -> int:
    """Print ids, pieces and offsets of a text: as JSON, or as a table under the coloured text."""
    text = options.text if options.text is not None else read_document(options.file)
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


def show_checkpoint(options: argparse.Namespace) -> int:
    """Print what a checkpoint holds, from the headers of its files alone. 1 if it cannot be loaded as it is."""
    if options.model is None:
        folder = bundled_model()
    else:
        folder = resolve(options.model, revision=options.revision)
    summary = summarize_checkpoint(folder)
    if options.json:
        print_json(summary.to_dict())
    else:
        _print_summary(summary, tensors=options.tensors)
    if summary.problem is not None:
        print(f"led-ref: {folder}: {summary.problem}", file=sys.stderr)
        return 1
    return 0


def _print_summary(summary: CheckpointSummary, *, tensors: bool) -> None:
    print_values(
        {
            "files": f"{', '.join(summary.files)} ({megabytes(summary.bytes_on_disk)})",
            "parameters": summary.parameters,
            "memory": f"{megabytes(summary.bytes_in_float32)} in float32, {megabytes(2 * summary.bytes_in_float32)} in float64",
            "tensors": ", ".join(f"{count} of {dtype}" for dtype, count in summary.dtypes.items()),
            "window, total (2R)": summary.windows,
            "radius, each side (R)": summary.radii,
            "can be loaded": summary.problem is None,
        }
    )
    print("config.json")
    config = summary.config.to_dict()
    width = max(map(len, config))
    for name, value in config.items():
        if value is None:  # not set: says nothing
            continue
        # Numbers as they stand in the file; lists in words.
        print(f"  {name:<{width}}  {in_words(value) if isinstance(value, list | bool) else value}")
    if tensors:
        print("tensors")
        for tensor in summary.tensors:
            print(f"  {tensor.name:<72} {tensor.dtype:>5} {list(tensor.shape)}")
