"""`led-ref train`: fine-tune a model on documents and what is to be made of them.

Its options are the settings of training/settings.py, each with its own; one that is not given has the recipe's value, else the
default.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from led_ref.cli.shared_options import Misused, add_shared, chosen_backend
from led_ref.tools.terminal import TrainingBar, has_bars, print_json, print_values
from led_ref.training.settings import RECIPES, SETTINGS, DataArguments, Setting, TrainingArguments

SUMMARY = "fine-tune a model: documents with summaries, labels or answers"
EXAMPLES = """
  led-ref train papers.jsonl --model allenai/led-base-16384 --out my-led
  led-ref train papers.jsonl --model allenai/led-base-16384 --out my-led --text-field article --target-field abstract
  led-ref train papers.jsonl --model ./led --out my-led --recipe ai2 --validate heldout.jsonl --early-stopping 2
  led-ref train a.csv b.csv.gz --model ./led --out my-led --batch-size 2 --gradient-accumulation 8 --epochs 1
  led-ref train papers.jsonl --model ./led --out my-led --resume   where it was cut off, bit for bit the same
  led-ref train reviews.csv --model ./led --out my-classifier --task classification --target-field stars
  led-ref train squad.jsonl --model ./led --out my-qa-led --task question-answering --plot curve.svg
"""

_DEFAULTS: dict[str, Any] = {f.name: f.default for kind in (DataArguments, TrainingArguments) for f in fields(kind)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref train`: those of the command, then a group for each heading of the settings."""
    add = parser.add_argument
    add("data", nargs="+", metavar="DATA", help=".jsonl, .csv or .tsv, one document a line; .gz may follow")
    add("--model", required=True, metavar="START", help="a folder or Hub name of the checkpoint to begin with")
    add_shared(parser, "--revision")
    add("--out", required=True, metavar="DIR", help="the folder of the trained model, its log and its checkpoint")
    add(
        "--recipe",
        choices=tuple(RECIPES),
        help="known settings: " + "; ".join(f"{n}: {r.about}" for n, r in RECIPES.items()),
    )
    add("--validate", action="append", metavar="HELDOUT", help="held-out documents, a file as DATA; may be repeated")
    add("--resume", action="store_true", help="go on from the checkpoint in DIR")
    add("--plot", metavar="FILE", help="draw loss and learning rate: .svg, .png, .pdf (needs matplotlib)")
    add_shared(parser, "--backend", "--threads")
    add(
        "--dtype",
        choices=("float32", "float64", "float16"),
        default="float32",
        help="what to compute in; float16 on a GPU alone: weights are kept in float32, and the loss is scaled",
    )
    groups = {setting.group: parser.add_argument_group(setting.group) for setting in SETTINGS.values()}
    for name, setting in SETTINGS.items():
        groups[setting.group].add_argument(setting.option, dest=name, default=None, **for_argparse(name, setting))
    add_shared(parser, "--json")
    add_shared(parser, "--quiet")


def for_argparse(name: str, setting: Setting) -> dict[str, Any]:
    """The arguments of add_argument for a setting of a training."""
    form, default = setting.form, _DEFAULTS[name]
    shown = "" if default in (None, ()) or isinstance(default, bool) else f" (default: {default})"
    text = (setting.about + shown).replace("%", "%%")
    if form.parse is None:
        return {"action": "store_const", "const": not setting.option.startswith("--no-"), "help": text}
    if form.choices:
        return {"choices": form.choices, "help": text}
    return {"type": form.parse, "metavar": setting.letter, "help": text}


def run(options: argparse.Namespace) -> int:
    """Train, and print what came out. 0, or 1 if it failed."""
    settings = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    if {"num_train_epochs", "max_steps"} <= settings.keys():
        raise Misused("give --epochs or --steps, not both")
    for_held_out = ("early_stopping_patience", "eval_steps", "metric_for_best_model")
    alone = [SETTINGS[name].option for name in for_held_out if name in settings]
    if alone and options.validate is None:
        raise Misused(f"{alone[0]} is for held-out documents; add --validate HELDOUT")
    from led_backends.notices import inform
    from led_ref.api import train
    from led_ref.training.log import check_picture, read_log, save_curve
    from led_ref.training.run_state import CHECKPOINT

    if options.plot is not None:
        check_picture(options.plot)
    with TrainingBar(enabled=not options.quiet and has_bars()) as bar:
        try:
            trained = train(
                options.data,
                options.model,
                options.out,
                recipe=options.recipe,
                validate=options.validate,
                resume=options.resume,
                revision=options.revision,
                backend=chosen_backend(options),
                dtype=options.dtype,
                notice=inform if options.quiet else bar.say,
                on_log=lambda line: _report(options, bar, line),
                **settings,
            )
        except KeyboardInterrupt:
            if (Path(options.out) / CHECKPOINT).exists() and not options.quiet:
                bar.say(f"{options.out} has a checkpoint; to go on from it run the same with --resume")
            raise
    if options.plot is not None:
        save_curve(read_log(Path(options.out) / "log.jsonl"), options.plot)
    found = {**trained.to_dict(), **({"curve": options.plot} if options.plot else {})}
    if options.json:
        print_json(found)
    else:
        print_values(found)
    return 0


def _report(options: argparse.Namespace, bar: TrainingBar, line: Mapping[str, Any]) -> None:
    """Show a line of the log: on the bar; what is not a plain step in words, too."""
    bar.show(line)
    if options.quiet:
        return
    if "skipped" in line:
        documents = ", ".join(line["documents"])
        bar.say(f"step {line['step']:,} was not taken: {line['skipped']} (documents: {documents})")
    elif measures := {name: value for name, value in line.items() if name.startswith("eval_")}:
        bar.say(f"step {line['step']:,}: {json.dumps(measures)}")
