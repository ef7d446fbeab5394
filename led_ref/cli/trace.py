"""`led-ref trace`: run the model on a document, and save what it computes at every step."""

import argparse
from typing import Any

from led_ref.cli.shared_options import Misused, add_run_options, given, global_attention_of, load_model

SUMMARY = "record every named intermediate of a run as safetensors"
EXAMPLES = """
  led-ref trace paper.txt --out trace.safetensors
  led-ref trace paper.txt --out probs.safetensors --only "*.probs" --layer 0
  led-ref trace paper.txt --out beams.safetensors --generate --num-beams 4 --only "beam.*"
  led-ref trace paper.txt --out back.safetensors --target summary.txt --gradients --only "*.grad"
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref trace`."""
    add = parser.add_argument
    add("file", metavar="FILE", help="the document, as for summarize; - for standard input")
    add("--out", required=True, metavar="FILE.safetensors", help="the file to write")
    add("--only", action="append", metavar="PATTERN", help="only names like this: '*.probs', fc1; may be repeated")
    add("--layer", type=int, metavar="N", help="only what is inside the layers of this number")
    add("--generate", action="store_true", help="a whole generation, not one step of the decoder")
    add("--gradients", action="store_true", help="also the gradient of every step and weight (needs --target)")
    add("--target", metavar="FILE", help="the text that the decoder reads, and the loss is for (teacher forcing)")
    add("--overwrite", action="store_true", help="replace an existing file")
    add_run_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run the model on a document, and save the intermediates."""
    settings = given(options, "num_beams", "max_new_tokens")
    if settings and not options.generate:
        raise Misused("--num-beams and --max-new-tokens are for a generation; add --generate")
    if options.gradients and options.target is None:
        raise Misused("--gradients are those of a loss; add --target FILE, the text to learn")
    if options.generate and options.target is not None:
        raise Misused("--generate writes a text of its own; leave out --generate or --target")
    from led_ref.api import check_settings
    from led_ref.oracle.traces.trace import check_target, trace
    from led_ref.pipelines.text_files import read_document
    from led_ref.tools.terminal import megabytes, print_json

    check_target(options.out, overwrite=options.overwrite)  # before the run, which may take minutes
    text = read_document(options.file)
    check_settings(settings)
    led = load_model(options)
    ids = led.encode(text, truncation=options.truncate)
    document: dict[str, Any] = {
        "input_ids": [ids],
        "attention_mask": [[1] * len(ids)],
        "global_attention_mask": [led.global_mask(ids, global_attention_of(options, options.file))],
    }
    chosen = {"only": options.only, "layer": options.layer}
    if options.target is not None:
        labels = [led.tokenizer.encode(read_document(options.target))]  # as in training
        traced = trace(led.model, **document, labels=labels, gradients=options.gradients, **chosen)
    elif options.generate:
        traced = trace(led.model.generate, **document, **settings, **chosen)
    else:
        start = [[led.model.config.decoder_start_token_id]]
        traced = trace(led.model, **document, decoder_input_ids=start, **chosen)
    traced.save(options.out, overwrite=options.overwrite)
    unseen = traced.blind_spots()
    if options.json:
        about = {"file": options.out, "steps": len(traced), "tokens": len(ids), "bytes": traced.nbytes}
        print_json({**about, "blind_spots": unseen})
    else:
        print(f"{options.out}: {len(traced)} steps of {len(ids):,} tokens, {megabytes(traced.nbytes)}")
        for sentence in unseen:
            print(f"cannot show: {sentence}")
    return 0
