"""The options of `led-ref answer` and `led-ref classify`, apart from cli.py, which is long enough."""

import argparse
from collections.abc import Callable
from typing import Any

ANSWER_EXAMPLES = """
  led-ref answer "Which option lists an archive?" tar.txt --model ./my-qa-led
  man tar | led-ref answer "Which option lists an archive?" --model ./my-qa-led --top-k 3
  led-ref answer "Who wrote it?" a.txt b.txt --model ./my-qa-led --handle-impossible-answer --json
"""
CLASSIFY_EXAMPLES = """
  led-ref classify review.txt --model ./my-classifier
  man gzip | led-ref classify --model ./my-classifier --json
  led-ref classify book.txt --model ./my-classifier --truncate --global-attention 0,1,2
"""
_FILES = "text, as for summarize; - or nothing: what comes through a pipe"


def add_asking_commands(
    commands: Any,
    command: Callable[..., argparse.ArgumentParser],
    global_attention: Callable[[str], Any],
    need_files: Callable[[str, argparse.Namespace], int | None],
) -> None:
    """Add `answer` and `classify`.

    Args:
        commands: the subparsers of `led-ref`.
        command: cli.py's way to add one.
        global_attention: cli.py's way to read a choice of global tokens.
        need_files: cli.py's way to find the documents: puts - where none are named, or gives the exit code for wrong usage.
    """

    def run(name: str) -> Callable[[argparse.Namespace], int]:
        def run_it(options: argparse.Namespace) -> int:
            mistaken = need_files(name, options)
            if mistaken is not None:
                return mistaken
            from led_ref.cli import asking

            return asking.answer_in_files(options) if name == "answer" else asking.classify_files(options)

        return run_it

    answer = command(commands, "answer", run("answer"), "find the answer to a question in documents")
    answer.add_argument("question", metavar="QUESTION", help="the question, in quotes")
    answer.add_argument("files", nargs="*", metavar="FILE", help=_FILES)
    _add_common_options(answer, "LEDForQuestionAnswering")
    answer.add_argument("--top-k", type=int, default=1, metavar="N", help="how many answers (default: 1)")
    answer.add_argument(
        "--max-answer-len", type=int, default=15, metavar="N", help="most tokens of an answer (default: 15)"
    )
    answer.add_argument(
        "--handle-impossible-answer",
        action="store_true",
        help="there may be no answer: an empty one, if that is likelier",
    )

    classify = command(commands, "classify", run("classify"), "give documents labels, with scores")
    classify.add_argument("files", nargs="*", metavar="FILE", help=_FILES)
    _add_common_options(classify, "LEDForSequenceClassification")
    classify.add_argument(
        "--global-attention", type=global_attention, default="first", metavar="first|none|all|0,5,9",
        help="which tokens see everything: first (default), none, all, or positions",
    )  # fmt: skip


def _add_common_options(parser: argparse.ArgumentParser, architecture: str) -> None:
    parser.add_argument(
        "--model", required=True, metavar="NAME|DIR", help=f"a folder or Hub name of a fine-tuned {architecture}"
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--backend", default="auto", help="auto, numpy or cupy")
    parser.add_argument(
        "--dtype", choices=("float32", "float64", "float16"), default="float32", help="what to compute in"
    )
    parser.add_argument(
        "--truncate", action="store_true", help="read only the beginning of a document that is too long"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a document, one a line")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and notices")
