"""`led-ref trace`, `led-ref steps` and `led-ref diff`: record what a model computes, explain it, compare two records."""

import argparse
import sys
from typing import Any

from led_ref.api import check_settings, load
from led_ref.classes.led import LEDForConditionalGeneration
from led_ref.cli.output import megabytes, print_json
from led_ref.cli.progress import say
from led_ref.errors import LEDError
from led_ref.oracle.traces.diff import diff
from led_ref.oracle.traces.step_names import STEPS, fold
from led_ref.oracle.traces.trace import Step, Trace, check_target, trace
from led_ref.pipelines.global_attention import global_mask
from led_ref.pipelines.text_files import read_document


def record_trace(options: argparse.Namespace) -> int:
    """Run the model on a document, and write what it told into a file."""
    check_target(options.out, overwrite=options.overwrite)  # before the run, which may take minutes
    text = read_document(options.file)
    given = {"num_beams": options.num_beams, "max_new_tokens": options.max_new_tokens}
    settings = {name: value for name, value in given.items() if value is not None}
    check_settings(settings)
    notice = None if options.quiet else say
    led = load(
        options.model,
        revision=options.revision,
        backend=options.backend,
        dtype=options.dtype,
        quantize=options.quantize,
        keep_stored=options.keep_stored,
        notice=notice,
    )
    ids = led.encode(text, truncation=options.truncate)
    document: dict[str, Any] = {
        "input_ids": [ids],
        "attention_mask": [[1] * len(ids)],
        "global_attention_mask": [global_mask(options.global_attention, len(ids))],
    }
    wanted = {"only": options.only, "layer": options.layer}
    if options.generate:
        traced = trace(led.model.generate, **document, **settings, **wanted)
    else:
        start = [[led.model.config.decoder_start_token_id]]
        traced = trace(led.model, **document, decoder_input_ids=start, **wanted)
    traced.save(options.out, overwrite=options.overwrite)
    if options.json:
        print_json({"file": options.out, "steps": len(traced), "tokens": len(ids), "bytes": traced.nbytes})
    else:
        print(f"{options.out}: {len(traced)} steps of {len(ids):,} tokens, {megabytes(traced.nbytes)}")
    return 0


def list_steps(options: argparse.Namespace) -> int:
    """Print what every step is and where it is told, from a run of the bundled model."""
    steps = all_steps(load().model)
    if options.json:
        print_json({"steps": [{"name": name, **_words(step)} for name, step in steps.items()]})
        return 0
    width = max(map(len, steps))
    for name, step in steps.items():
        print(f"{name:<{width}}  {step.letters:<12}  {step.source:<35}  {step.equation}")
    say("i is a layer, n a step; in a generation the decoder's names and the logits begin with step.n")
    return 0


def all_steps(model: LEDForConditionalGeneration) -> dict[str, Step]:
    """Every step that there is, by folded name (trace_steps.fold), in the order of work: of runs that leave nothing out."""
    document: dict[str, Any] = {
        "input_ids": [[0, 5, 6, 2]],
        "attention_mask": [[1, 1, 1, 1]],
        "global_attention_mask": [[1, 0, 0, 0]],
    }
    runs: list[Trace] = [trace(model, **document, labels=[[5, 6, 2]], decoder_attention_mask=[[1, 1, 1]])]
    kinds: list[dict[str, Any]] = [{"num_beams": 1}, {"num_beams": 1, "do_sample": True}, {"num_beams": 2}]
    runs += [trace(model.generate, **document, max_new_tokens=2, **kind) for kind in kinds]
    told: dict[str, Step] = {}
    for run in runs:
        for name, step in run.steps.items():
            told.setdefault(fold(name), step)
    return {name: told[name] for name in sorted(told, key=[*STEPS].index)}


def compare_traces(options: argparse.Namespace) -> int:
    """Compare two files. 0: equal, 1: different, 2: they cannot be compared, or what is equal is the lesser part of one."""
    try:
        if options.plot is not None:
            check_target(options.plot, overwrite=options.overwrite)
        difference = diff(Trace.load(options.a), Trace.load(options.b), rtol=options.rtol, atol=options.atol)
        if options.plot is not None:
            from led_ref.oracle.traces.diff_plot import save_plot

            save_plot(difference, options.plot)
    except LEDError as error:
        print(f"led-ref diff: {error}", file=sys.stderr)
        return 2
    if options.json:
        print_json(difference.to_dict())
    else:
        print(difference)
    if difference.equal and difference.mostly_unmatched:
        both = len(difference.compared)
        print(
            f"led-ref diff: {both} of {both + len(difference.only_in_a)} steps of a and of "
            f"{both + len(difference.only_in_b)} of b were compared: too few to call the two equal. "
            f"{difference.names_hint and difference.names_hint + '. '}"
            "Name the tensors as `led-ref steps` does, or record fewer: led-ref trace --only PATTERN.",
            file=sys.stderr,
        )
        return 2
    return 0 if difference.equal else 1


def _words(step: Step) -> dict[str, str]:
    return {"letters": step.letters, "source": step.source, "equation": step.equation}
