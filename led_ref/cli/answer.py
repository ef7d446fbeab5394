"""`led-ref answer`: a question and documents in, the answers that stand in each document out."""

import argparse
from typing import Any

from led_ref.cli import many
from led_ref.cli.shared_options import FILES, Misused, add_output_options, add_shared

SUMMARY = "find the answer to a question in documents"
EXAMPLES = """
  led-ref answer "Which option lists an archive?" tar.txt --model ./my-qa-led
  man tar | led-ref answer "Which option lists an archive?" --model ./my-qa-led --top-k 3
  led-ref answer "Who wrote it?" a.txt b.txt --model ./my-qa-led --handle-impossible-answer --json
  led-ref answer "Who wrote it?" pages --model ./my-qa-led --out answers     a file of answers for each document
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref answer`."""
    add = parser.add_argument
    add("question", metavar="QUESTION", help="the question, in quotes")
    add("files", nargs="*", metavar="FILE", help=FILES)
    add_fine_tuned_options(parser, "LEDForQuestionAnswering")
    add("--split", action="store_true", help="search a document that is too long in pieces that overlap")
    add("--top-k", type=int, default=1, metavar="N", help="how many answers (default: 1)")
    add("--max-answer-len", type=int, default=15, metavar="N", help="most tokens of an answer (default: 15)")
    add(
        "--handle-impossible-answer", action="store_true",
        help="there may be no answer: an empty one, if that is likelier",
    )  # fmt: skip


def add_fine_tuned_options(parser: argparse.ArgumentParser, architecture: str) -> None:
    """Add the options of a command that needs a fine-tuned model of a class."""
    add_shared(parser, "--model", required=True, help=f"a folder or Hub name of a fine-tuned {architecture}")
    add_shared(parser, "--revision", "--backend", "--threads")
    add_shared(parser, "--dtype", help="what to compute in")
    add_shared(parser, "--truncate")
    add_output_options(parser)
    many.add_options(parser, batches=False)


def run(options: argparse.Namespace) -> int:
    """Print the answers of each document. 0, or 1 if any document failed."""
    from dataclasses import asdict

    from led_ref.cli.many import report_on_files
    from led_ref.pipelines.context_pieces import answer_in_pieces
    from led_ref.pipelines.question_answering import QuestionAnswerer

    if options.split and options.truncate:
        raise Misused("--split reads all of a document, --truncate its beginning; leave one out")

    def find(answerer: QuestionAnswerer, file: str, text: str, progress: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {
            name: getattr(options, name) for name in ("top_k", "max_answer_len", "handle_impossible_answer")
        }
        if options.split:
            answers = answer_in_pieces(
                answerer, options.question, text, align_to_words=False, progress=progress, **settings
            )  # fmt: skip
        else:
            answers = answerer.answer(
                options.question, text, truncation=options.truncate, progress=progress, **settings
            )  # fmt: skip
        return {"question": options.question, "model": answerer.name, "answers": [asdict(answer) for answer in answers]}

    def lines(found: dict[str, Any]) -> list[str]:
        # One line for each answer, whatever lines it has in the document; an empty one is an answer, too.
        texts = [" ".join(answer["answer"].split()) or "(no answer)" for answer in found["answers"]]
        if options.top_k == 1:
            return texts
        return [
            f"{answer['score']:.4f}  {answer['start']:>7}-{answer['end']:<7}  {text}"
            for answer, text in zip(found["answers"], texts, strict=True)
        ]

    return report_on_files(
        options, QuestionAnswerer.load, find, lines, kind="answers",
        settings=("question", "top_k", "max_answer_len", "handle_impossible_answer", "split"),
    )  # fmt: skip
