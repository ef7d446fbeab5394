"""`led-ref classify`: documents in, labels with scores out."""

import argparse
from typing import Any

from led_ref.cli.answer import add_fine_tuned_options
from led_ref.cli.shared_options import FILES, add_shared, global_attention_of

SUMMARY = "give documents labels, with scores"
EXAMPLES = """
  led-ref classify description.txt                   the bundled classifier: sections of Debian's archive
  led-ref classify review.txt --model ./my-classifier
  man gzip | led-ref classify --model ./my-classifier --json
  led-ref classify book.txt --model ./my-classifier --truncate --global-attention 0,1,2
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref classify`."""
    parser.add_argument("files", nargs="*", metavar="FILE", help=FILES)
    add_fine_tuned_options(parser, "LEDForSequenceClassification")
    add_shared(parser, "--global-attention")


def run(options: argparse.Namespace) -> int:
    """Print the labels of each document, the highest score first. 0, or 1 if any document failed."""
    from dataclasses import asdict

    from led_ref.cli.many import report_on_files
    from led_ref.pipelines.classification import Classifier

    def find(classifier: Classifier, file: str, text: str, progress: Any) -> dict[str, Any]:
        own = global_attention_of(options, file)
        labels = classifier.classify(text, global_attention=own, truncation=options.truncate, progress=progress)
        return {"model": classifier.name, "labels": [asdict(label) for label in labels]}

    def lines(found: dict[str, Any]) -> list[str]:
        return [f"{label['score']:.4f}  {label['label']}" for label in found["labels"]]

    return report_on_files(
        options, Classifier.load, find, lines, kind="labels",
        settings=("global_attention",),
    )  # fmt: skip
