"""`led-ref answer`: a question and documents in, the answers that stand in each document out."""

import argparse
from typing import Any

from led_ref.cli import many
from led_ref.cli.shared_options import FILES, Misused, add_output_options, add_shared

SUMMARY = "find the answer to a question in documents"
EXAMPLES = """
  man gzip | led-ref answer "What does --keep do?"                       the bundled answerer: manual pages, specifications
  man tar | led-ref answer "What does --list do?" --top-k 3
  led-ref answer "Who wrote it?" a.txt b.txt --model ./my-qa-led --handle-impossible-answer --json
  led-ref answer "Who wrote it?" pages --model ./my-qa-led --out answers     a file of answers for each document
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref answer`."""
    add = parser.add_argument
    add("question", metavar="QUESTION", help="the question, in quotes")
    add("files", nargs="*", metavar="FILE", help=FILES)
    add_fine_tuned_options(parser, "LEDForQuestionAnswering")
    add(
        "--split",
        action="store_true",
        help="search a long document in pieces that overlap (the bundled answerer always does, but for --truncate)",
    )
    add("--top-k", type=int, default=1, metavar="N", help="how many answers (default: 1)")
    add("--max-answer-len", type=int, metavar="N", help="most tokens of an answer (default: the model's own, or 15)")
    add(
        "--handle-impossible-answer", action=argparse.BooleanOptionalAction,
        help="there may be no answer: an empty one, if that is likelier (default: the model's own, or not)",
    )  # fmt: skip


def add_fine_tuned_options(parser: argparse.ArgumentParser, architecture: str) -> None:
    """Add the options of a command whose model is a fine-tuned one of a class."""
    add_shared(
        parser, "--model", help=f"a folder or Hub name of a fine-tuned {architecture} (default: the bundled one)"
    )
    add_shared(parser, "--revision", "--backend", "--threads")
    add_shared(parser, "--dtype", help="what to compute in")
    add_shared(parser, "--truncate")
    add_output_options(parser)
    many.add_options(parser, batches=False)


def run(options: argparse.Namespace) -> int:
    """Print the answers of each document. 0, or 1 if any document failed."""
    from dataclasses import asdict

    from led_ref.bundled.forms import as_trained, place_in_original
    from led_ref.cli.documents import title
    from led_ref.cli.many import report_on_files
    from led_ref.pipelines.context_pieces import answer_in_pieces
    from led_ref.pipelines.question_answering import QuestionAnswerer
    from led_ref.tools.terminal import say

    if options.split and options.truncate:
        raise Misused("--split reads all of a document, --truncate its beginning; leave one out")

    def find(answerer: QuestionAnswerer, file: str, text: str, progress: Any) -> dict[str, Any]:
        given, (text, form) = text, as_trained(text) if options.model is None else (text, None)
        if form is not None and not options.quiet:
            say(f"{title(file)} is {form}")
        settings: dict[str, Any] = {
            name: getattr(options, name) for name in ("top_k", "max_answer_len", "handle_impossible_answer")
        }
        if options.split or (options.model is None and not options.truncate):
            answers = answer_in_pieces(
                answerer, options.question, text, align_to_words=False, progress=progress, **settings
            )  # fmt: skip
        else:
            answers = answerer.answer(
                options.question, text, truncation=options.truncate, progress=progress, **settings
            )  # fmt: skip
        found = {
            "question": options.question,
            "model": answerer.name,
            "answers": [asdict(answer) for answer in answers],
        }
        for answer in found["answers"]:
            if form is not None and answer["answer"]:
                # In the file, where people look it up, and not in what the model read.
                place = place_in_original(text, answer["start"], answer["end"], given)
                answer["start"], answer["end"] = place or (None, None)
            in_file = answer["answer"] and answer["start"] is not None
            answer["line"] = given.count("\n", 0, answer["start"]) + 1 if in_file else None
        return found

    def lines(found: dict[str, Any]) -> list[str]:
        # One line for each answer, whatever lines it has in the document; an empty one is an answer, too.
        texts = [" ".join(answer["answer"].split()) or "(no answer)" for answer in found["answers"]]
        if options.top_k == 1:
            if options.out is None and not options.quiet and texts and found["answers"][0]["line"] is not None:
                say(f"{title(found['file'])}, line {found['answers'][0]['line']}:")
            return texts
        return [
            f"{answer['score']:.4f}  {_shown(answer['start']):>7}-{_shown(answer['end']):<7}  {text}"
            for answer, text in zip(found["answers"], texts, strict=True)
        ]

    return report_on_files(
        options, QuestionAnswerer.load, find, lines, kind="answers",
        settings=("question", "top_k", "max_answer_len", "handle_impossible_answer", "split"),
    )  # fmt: skip


def _shown(character: int | None) -> str:
    return "?" if character is None else str(character)
