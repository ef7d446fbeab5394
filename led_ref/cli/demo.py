"""`led-ref demo`: the three bundled models at work, on a document that comes with them."""

import argparse
import textwrap
from typing import Any

from led_ref.cli.shared_options import add_shared, loading

SUMMARY = "let the bundled models summarize a document, answer a question about it, and classify a text"
EXAMPLES = """
  led-ref demo                       some seconds, offline
  led-ref demo --quiet               without bars and notices
"""
DOCUMENT = "led-vectors.txt"
QUESTION = "What is meant by Global token?"
TEXT = (
    "This program plays the sound files of a folder one after another. It reads Ogg, FLAC and MP3, shows their tags, and "
    "is controlled from the keyboard."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref demo`."""
    add_shared(parser, "--threads", "--quiet")


def run(options: argparse.Namespace) -> int:
    """Print what each model reads, and what it says of it. 0; an error where a model is not whole."""
    from led_ref.api import bundled_model, load
    from led_ref.bundled.forms import as_trained, place_in_original
    from led_ref.cli.documents import shows_bars
    from led_ref.pipelines.classification import Classifier
    from led_ref.pipelines.context_pieces import answer_in_pieces
    from led_ref.pipelines.progress import ProgressBars
    from led_ref.pipelines.question_answering import QuestionAnswerer

    given, path = loading(options), bundled_model() / DOCUMENT
    document = path.read_text(encoding="utf-8")
    read, _ = as_trained(document)  # without its abstract, and without what stands between the pages

    def heading(kind: str, model: Any, verb: str) -> None:
        millions = model.num_parameters() / 1e6
        print(f"The bundled {kind}, an LED of {millions:.1f} million parameters, {verb}", flush=True)

    def show(*paragraphs: str) -> None:
        print(*(f"\n{textwrap.indent(text, '    ')}" for text in paragraphs), "", sep="\n", flush=True)

    with ProgressBars(DOCUMENT, enabled=shows_bars(options)) as progress:
        summarizer = load(**given)
        heading("summarizer", summarizer.model, f"reads {len(read.split()):,} words of {DOCUMENT}, which begins")
        show(document[: document.index("Abstract")].rstrip() + "\n...")
        print("It writes this abstract, without having read the authors':", flush=True)
        show(textwrap.fill(str(summarizer.generate(read, progress=progress)), 96))
    with ProgressBars(DOCUMENT, enabled=shows_bars(options)) as progress:
        answerer = QuestionAnswerer.load(**given)
        heading("answerer", answerer.model, "is asked about the same document")
        (found,) = answer_in_pieces(answerer, QUESTION, read, align_to_words=False, progress=progress)
        place = place_in_original(read, found.start, found.end, document) if found.answer else None
        line = document.count("\n", 0, place[0]) + 1 if place else "not found"
        show(f"{QUESTION}\n{textwrap.fill(' '.join(found.answer.split()), 96)}\n({DOCUMENT}, line {line})")
    with ProgressBars("text", enabled=shows_bars(options)) as progress:
        classifier = Classifier.load(**given)
        heading("classifier", classifier.model, "is given the description of a program")
        labels = classifier.classify(TEXT, progress=progress)[:3]
        show(textwrap.fill(TEXT, 96), "\n".join(f"{label.score:6.1%}  {label.label}" for label in labels))
    return 0
