"""The worst and the best cases of an evaluation as one HTML page: document, reference, what was written, and what was copied.

The page holds no script, and nothing of it is fetched. All texts of documents and models are escaped.
"""

import html
from collections.abc import Sequence

from led_ref.tools.evaluation.cases import Case
from led_ref.tools.evaluation.copied import LEAST, Run, copied_runs
from led_ref.tools.evaluation.report import TITLES, Evaluation

MOST_CASES = 10  # of the worst, and of the best
MOST_CHARACTERS = 50_000  # of a document

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; }
section { border-top: 1px solid #8886; margin-top: 2rem; }
mark { background: #f7d774; color: #000; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd; } }
"""


def page(evaluation: Evaluation, most: int = MOST_CASES) -> str:
    """The page.

    Args:
        evaluation: what was found.
        most: how many of the worst cases, and of the best, are shown; a case is shown once.
    """
    name, values = evaluation.each
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    worst = order[: min(most, (len(order) + 1) // 2)]
    best = order[len(worst) :][::-1][:most]
    title = f"{evaluation.report['model']}: {len(values):,} documents"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        f"<pre>{_text(chr(10).join(evaluation.lines()))}</pre>",
        f"<p>Sorted by {TITLES[name]}. <mark>Marked</mark>: words that stand in the document in the same order, at least "
        f"{LEAST} of them.</p>",
    ]
    for heading, numbers in (("The worst", worst), ("The best", best)):
        parts.append(f"<h2>{heading}: {len(numbers)}</h2>")
        for i in numbers:
            shown = f"{TITLES[name]} {values[i]:.1f}"
            parts.append(_case(evaluation.cases[i], evaluation.written[i], shown, with_runs=name == "rougeL"))
    return "\n".join([*parts, "</body></html>\n"])


def _case(case: Case, written: str, score: str, *, with_runs: bool) -> str:
    runs, origins, share = copied_runs(written, case.text) if with_runs else ([], [], 0.0)
    cut = ", cut off" if case.is_cut else ""
    rows = [("question", _text(case.question))] if case.question else []
    rows += [("right", _text(text)) for text in case.right] or [("right", "there is no answer")]
    rows.append(("written", _marked(written, runs) or "nothing"))
    if with_runs:
        rows.append(("copied", f"{share:.0%} of the words"))
    beginning = case.text[:MOST_CHARACTERS]
    document = _marked(beginning, [run for run in origins if run[1] <= len(beginning)])
    if left := len(case.text) - len(beginning):
        document += f"\n... {left:,} more characters are not shown"
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows)
    return (
        f"<section><h3>{_text(case.place)}: {score}</h3><p>{len(case.read.ids):,} tokens{cut}</p><dl>{listed}</dl>"
        f"<details><summary>document</summary><pre>{document}</pre></details></section>"
    )


def _marked(text: str, runs: Sequence[Run]) -> str:
    """The text, escaped, with its runs marked; runs that overlap are one."""
    parts, at = list[str](), 0
    for start, end in sorted(runs):
        if end <= at:
            continue
        start = max(start, at)
        parts += [_text(text[at:start]), "<mark>", _text(text[start:end]), "</mark>"]
        at = end
    return "".join([*parts, _text(text[at:])])


def _text(text: str) -> str:
    return html.escape(text)
