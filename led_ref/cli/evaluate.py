"""`led-ref evaluate`: how good a model is on held-out documents, counted as papers count."""

import argparse
import contextlib
from collections.abc import Callable
from typing import Any

from led_ref.cli.shared_options import Misused, add_run_options, given, loading
from led_ref.pipelines.progress import DocumentCount, ProgressBars
from led_ref.tools.terminal import has_bars, print_json

SUMMARY = "score a model on documents: ROUGE of summaries, exact match and F1 of answers, accuracy of labels"
EXAMPLES = """
  led-ref evaluate heldout.jsonl --model my-led --truncate --baseline lead --out scores
  led-ref evaluate heldout.jsonl --model my-led --truncate --baseline lead --out scores --resume   where it was cut off
  led-ref evaluate heldout.jsonl --model my-led --truncate --out scores --shard 1/4   a part; at last --resume scores all
  led-ref evaluate papers.jsonl --model my-led --text-field article --target-field abstract --sentences split --stemmer
  led-ref evaluate papers.jsonl --model my-led --baseline lead 200 --baseline copy title --compare arxiv --html page.html
  led-ref evaluate squad.jsonl --model my-qa-led --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `led-ref evaluate`."""
    add = parser.add_argument
    add("data", nargs="*", metavar="DATA", help=".jsonl, .csv or .tsv, one document a line; .gz may follow")
    for part, default in (("text", "text"), ("question", "question"), ("context", "context"), ("answers", "answers")):
        add(f"--{part}-field", default=default, metavar="NAME", help=f"the field of the {part} (default: {default})")
    add("--target-field", metavar="NAME", help="the field of the reference or label (default: summary, label)")
    add(
        "--task",
        choices=("summarization", "question-answering", "classification"),
        help="default: the checkpoint's own",
    )
    add("--max-documents", type=int, metavar="N", help="evaluate the first N documents alone")
    add("--max-answer-len", type=int, metavar="N", help="most tokens of an answer (default: the model's own, or 15)")
    add_run_options(parser)
    scores = parser.add_argument_group("scores").add_argument
    scores("--stemmer", action="store_true", help="ROUGE of words without their endings (Porter's stemmer)")
    scores(
        "--sentences", choices=("lines", "split"), default="lines",
        help="of ROUGE-Lsum: the lines (default; left out where a reference has several sentences on one line), or split",
    )  # fmt: skip
    scores(
        "--baseline", nargs="+", action="append", default=[], metavar=("lead [N]", "copy FIELD"),
        help="score beside the model the first N words of each document (default: as many as a reference has), or a field",
    )  # fmt: skip
    scores("--compare", metavar="DATASET", help="add published scores of LED: arxiv, pubmed, govreport or billsum")
    scores("--samples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    scores("--sample-seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    scores("--html", metavar="FILE", help="write a page of the worst and the best cases")
    many = parser.add_argument_group("many documents").add_argument
    many("--out", metavar="DIR", help="keep each text in DIR as soon as it is written, and the scores")
    many("--resume", action="store_true", help="with --out: go on from the texts that DIR holds")
    many("--shard", metavar="I/N", help="with --out: part I of N; with --resume and without --shard all are scored")
    many("--workers", type=int, metavar="N", help="N processes on this machine, by Dask")
    many("--scheduler", metavar="ADDRESS", help="the workers of a Dask scheduler")
    many("--batch-size", type=int, default=4, metavar="N", help="most documents that are written together (default: 4)")


def run(options: argparse.Namespace) -> int:
    """Score the model, and print what came out."""
    baselines = [_baseline(words) for words in options.baseline]
    if not options.data:
        raise Misused("give a file of documents, DATA; it stands before the options")
    if isinstance(options.global_attention, dict):
        raise Misused(
            "--global-attention takes a .json file where each document is a file; here they are lines of DATA"
        )
    if (options.resume or options.shard) and options.out is None:
        raise Misused(f"{'--resume' if options.resume else '--shard'} is for a run with texts in files; add --out DIR")
    from led_ref.tools.evaluation.evaluate import evaluate
    from led_ref.tools.terminal import say

    names = (
        "task", "text_field", "target_field", "question_field", "context_field", "answers_field", "truncate", "max_documents",
        "stemmer", "sentences", "samples", "sample_seed", "compare", "out", "resume", "html", "global_attention",
        "cross_attention", "batch_size", "max_answer_len", "shard", "scheduler", "workers",
    )  # fmt: skip
    chosen: dict[str, Any] = {name: getattr(options, name) for name in names}
    enabled = not options.quiet and has_bars()
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(ProgressBars("now", enabled=enabled, position=1))
        bars: list[Callable[[], None]] = []

        def count(done: int, of: int) -> None:
            bars[:] = bars or [stack.enter_context(DocumentCount(of, done - 1, enabled=enabled))]
            bars[0]()

        found = evaluate(
            options.data,
            options.model,
            baselines=baselines,
            progress=progress,
            on_document=count,
            **chosen,
            **{**loading(options), "notice": None if options.quiet else say},
            **given(options, "num_beams", "max_new_tokens"),
        )
    if options.json:
        print_json(found.to_dict())
    else:
        print("\n".join(found.lines()))
    return 0


def _baseline(words: list[str]) -> str:
    if words[0] not in ("lead", "copy") or len(words) > 2 or (words[0] == "copy" and len(words) == 1):
        raise Misused(f"--baseline {' '.join(words)}: give lead, lead N or copy FIELD, and DATA before the options")
    return " ".join(words)
