"""`led-ref tokenize` and `led-ref inspect`: look at a text's tokens, look at a checkpoint."""

import argparse
import json
import sys
from typing import Any

from led_ref.documents import read_document

# Background colours that a piece is shown on, one after the other (256-colour terminals).
_COLOURS = (24, 58, 90, 22, 94, 60)


def show_tokens(options: argparse.Namespace) -> int:
    """Print ids, pieces and offsets of a text: as JSON, or as a table under the coloured text."""
    from led_ref.api import bundled_model
    from led_ref.tokenizer.tokenizer import LEDTokenizer
    from led_ref.weights.hub import resolve

    text = options.text if options.text is not None else read_document(options.file)
    folder = bundled_model() if options.model is None else resolve(options.model)
    tokenizer = LEDTokenizer.from_pretrained(folder, engine=options.engine)
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if options.json:
        print(json.dumps({"ids": ids, "pieces": pieces, "offsets": offsets, "text": text}, ensure_ascii=False))
        return 0
    if sys.stdout.isatty():
        print(_coloured(text, offsets))
    print(f"{'':>6} {'id':>6}  {'offsets':<13} piece")
    for i, (token, piece, (start, end)) in enumerate(zip(ids, pieces, offsets, strict=True)):
        print(f"{i:>6} {token:>6}  {f'{start}-{end}':<13} {piece}")
    print(f"{len(ids)} tokens, {len(text)} characters")
    return 0


def _coloured(text: str, offsets: list[tuple[int, int]]) -> str:
    """The text with each piece on a colour of its own."""
    shown = []
    for i, (start, end) in enumerate(offsets):
        if end > start:
            shown.append(f"\033[97;48;5;{_COLOURS[i % len(_COLOURS)]}m{text[start:end]}\033[0m")
    return "".join(shown)


def show_checkpoint(options: argparse.Namespace) -> int:
    """Print what a checkpoint holds, from the headers of its files alone."""
    from led_ref.api import bundled_model
    from led_ref.weights.hub import resolve
    from led_ref.weights.summary import summarize_checkpoint

    folder = bundled_model() if options.model is None else resolve(options.model, revision=options.revision)
    summary = summarize_checkpoint(folder)
    values = summary.to_dict()
    if options.json:
        print(json.dumps(values, ensure_ascii=False))
        return 0
    _print_checkpoint(values, tensors=options.tensors)
    return 0


def _print_checkpoint(values: dict[str, Any], *, tensors: bool) -> None:
    listed = values.pop("tensors")
    config = values.pop("config")
    for name, value in values.items():
        print(f"{name:<34} {value:,}" if isinstance(value, int) else f"{name:<34} {value}")
    print(f"{'tensors':<34} {len(listed)}")
    for name, value in config.items():
        print(f"config.{name:<27} {value}")
    if tensors:
        for tensor in listed:
            print(f"{tensor['name']:<72} {tensor['dtype']:>5} {tuple(tensor['shape'])}")
