"""`led-ref answer` and `led-ref classify`: documents in, answers or labels out."""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from led_ref.cli.output import print_json
from led_ref.cli.progress import ProgressBars, say
from led_ref.cli.writing import complain, read_all
from led_ref.errors import LEDError
from led_ref.pipelines.classification import Classifier
from led_ref.pipelines.question_answering import QuestionAnswerer

# What is called for each document, with its text and a bar to move.
Find = Callable[[str, ProgressBars], dict[str, Any]]


def answer_in_files(options: argparse.Namespace) -> int:
    """The answers that each document has to the question. 0, or 1 if any document failed."""

    def prepare() -> Find:
        answerer = QuestionAnswerer.load(options.model, **_how(options))

        def ask(text: str, progress: ProgressBars) -> dict[str, Any]:
            answers = answerer.answer(
                options.question,
                text,
                top_k=options.top_k,
                max_answer_len=options.max_answer_len,
                handle_impossible_answer=options.handle_impossible_answer,
                truncation=options.truncate,
                progress=progress,
            )
            about = {"question": options.question, "model": answerer.name}
            return {**about, "answers": [asdict(answer) for answer in answers]}

        return ask

    def lines(found: dict[str, Any]) -> list[str]:
        # On one line, whatever lines it has in the document; an empty one is an answer, too.
        texts = [" ".join(answer["answer"].split()) or "(no answer)" for answer in found["answers"]]
        if options.top_k == 1:
            return texts
        return [
            f"{answer['score']:.4f}  {answer['start']:>7}-{answer['end']:<7}  {text}"
            for answer, text in zip(found["answers"], texts, strict=True)
        ]

    return _for_each_file(options, prepare, lines)


def classify_files(options: argparse.Namespace) -> int:
    """The labels of each document, the highest score first. 0, or 1 if any document failed."""

    def prepare() -> Find:
        classifier = Classifier.load(options.model, **_how(options))

        def judge(text: str, progress: ProgressBars) -> dict[str, Any]:
            labels = classifier.classify(
                text, global_attention=options.global_attention, truncation=options.truncate, progress=progress
            )
            return {"model": classifier.name, "labels": [asdict(label) for label in labels]}

        return judge

    def lines(found: dict[str, Any]) -> list[str]:
        return [f"{label['score']:.4f}  {label['label']}" for label in found["labels"]]

    return _for_each_file(options, prepare, lines)


def _how(options: argparse.Namespace) -> dict[str, Any]:
    """What both ways to load are told."""
    return {
        "revision": options.revision,
        "backend": options.backend,
        "dtype": options.dtype,
        "notice": None if options.quiet else say,
    }


def _for_each_file(
    options: argparse.Namespace,
    prepare: Callable[[], Find],
    lines: Callable[[dict[str, Any]], list[str]],
) -> int:
    """Read the documents, load the model, and print what it finds in each; one that fails is named, the others go on.

    Args:
        options: files, json, quiet.
        prepare: loads the model, and gives what is called for each text.
        lines: what is found as lines for people.
    """
    documents = read_all(options.files)
    failed = len(options.files) - len(documents)
    if not documents:
        return 1
    find = prepare()
    for file, text in documents:
        started = time.perf_counter()
        called = "standard input" if file == "-" else file
        try:
            with ProgressBars(Path(called).name, enabled=not options.quiet and sys.stderr.isatty()) as progress:
                found = find(text, progress)
        except LEDError as error:
            complain(file, error)
            failed += 1
            continue
        if options.json:
            print_json({"file": file, **found, "seconds": round(time.perf_counter() - started, 3)})
            continue
        for line in lines(found):
            print(f"{file}: {line}" if len(options.files) > 1 else line, flush=True)
    return 1 if failed else 0
