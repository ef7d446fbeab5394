"""`led-ref steps`: every step of the model with its equation, its shape and the line that computes it."""

import argparse
from typing import TYPE_CHECKING, Any

from led_ref.cli.shared_options import add_shared
from led_ref.tools.terminal import print_json, say

if TYPE_CHECKING:
    from led_ref.classes.conditional_generation import LEDForConditionalGeneration
    from led_ref.oracle.traces.trace import Step

SUMMARY = "list all steps with equation, shape and line of code"
EXAMPLES = """
  led-ref steps
  led-ref steps --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref steps`."""
    add_shared(parser, "--json")


def run(options: argparse.Namespace) -> int:
    """Print every step, as runs of the bundled model record it."""
    from led_ref.api import load

    steps = all_steps(load().model)
    if options.json:
        keys = ("letters", "source", "equation")
        print_json({"steps": [{"name": name, **{k: getattr(step, k) for k in keys}} for name, step in steps.items()]})
        return 0
    width = max(map(len, steps))
    for name, step in steps.items():
        print(f"{name:<{width}}  {step.letters:<12}  {step.source:<35}  {step.equation}")
    say("i is a layer, n a step; in a generation the decoder's names and the logits begin with step.n")
    return 0


def all_steps(model: "LEDForConditionalGeneration") -> "dict[str, Step]":
    """All steps in the order of work, by folded name (oracle/traces/step_names.py), from runs that leave nothing out.

    Forward, then the searches, then the way back: the gradients of intermediates and of weights.
    """
    from led_ref.oracle.traces.step_names import GRADIENT, fold, place
    from led_ref.oracle.traces.trace import trace

    document: dict[str, Any] = {
        "input_ids": [[0, 5, 6, 2]],
        "attention_mask": [[1, 1, 1, 1]],
        "global_attention_mask": [[1, 0, 0, 0]],
    }
    searches: list[dict[str, Any]] = [{"num_beams": 1}, {"num_beams": 1, "do_sample": True}, {"num_beams": 2}]
    labels = [[5, 6, 2]]
    runs = [trace(model, **document, labels=labels, decoder_attention_mask=[[1, 1, 1]])]
    runs.append(trace(model, **document, labels=labels, gradients=True, only=f"*{GRADIENT}"))
    runs += [trace(model.generate, **document, max_new_tokens=2, **search) for search in searches]
    recorded: dict[str, Step] = {}
    for run in runs:
        for name, step in run.steps.items():
            recorded.setdefault(fold(name), step)
    return {name: recorded[name] for name in sorted(recorded, key=lambda name: (name.endswith(GRADIENT), place(name)))}
