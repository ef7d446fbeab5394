"""What an evaluation found: as JSON has it, and as lines for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from led_ref.tools.evaluation.cases import Case
from led_ref.tools.evaluation.scores import Score
from led_ref.tools.terminal import in_words

TITLES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "exact_match": "exact match",
    "f1": "F1",
    "has_answer_exact_match": "exact match, with an answer",
    "has_answer_f1": "F1, with an answer",
    "no_answer_accuracy": "accuracy, without an answer",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
}
MOST_CONFUSIONS = 20  # for people; the JSON has all


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How good a model is on some documents.

    Args:
        report: everything that was found, JSON-ready: docs/evaluation.md names the parts.
        cases: the documents, in the order of the files.
        written: the text, the answer or the label that the model gave for each.
        each: the measure by which documents are sorted, and its value for each, in percent.
    """

    report: dict[str, Any]
    cases: Sequence[Case]
    written: Sequence[str]
    each: tuple[str, Sequence[float]]

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {score.value:.2f}" for name, score in self.scores.items())
        return f"Evaluation({len(self.cases)} documents: {scores})"

    @property
    def scores(self) -> dict[str, Score]:
        """The scores of the model, by name."""
        return {name: Score(**values) for name, values in self.report["scores"].items()}

    def to_dict(self) -> dict[str, Any]:
        """The report."""
        return self.report

    def lines(self) -> list[str]:
        """The report for people."""
        report = self.report
        cut = f", {report['cut_off']:,} cut off" if report["cut_off"] else ", none cut off"
        lines = [f"{report['model']}: {report['task']}, {report['documents']:,} documents{cut}", ""]
        lines += _table(report)
        lines += [f"{TITLES[name]} is left out. {why}" for name, why in report["left_out"].items()]
        if "confusions" in report:
            lines += ["", *_confusions(report["confusions"])]
        if report["published"]:
            lines += ["", f"published for {report['compared_with']}, in percent", *_published(report["published"])]
        lines += ["", "scores in percent, the interval of 95% in brackets"]
        for part in ("lengths", "measured_by", "settings"):
            lines += [
                "",
                part.replace("_", " "),
                *(f"  {name:<38} {_word(value)}" for name, value in report[part].items()),
            ]
        return lines


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_word(inner)}" for name, inner in value.items())
    return f"{value:,.1f}" if isinstance(value, float) and abs(value) >= 2 else in_words(value)


def _table(report: Mapping[str, Any]) -> list[str]:
    """One row for the model and for each baseline, one column for each score."""
    rows = {"model": report["scores"], **report["baselines"]}
    wide = max(map(len, rows))
    names = list(report["scores"])
    lines = [f"{'':<{wide}}  " + "  ".join(f"{TITLES[name]:<26}" for name in names).rstrip()]
    for row, scores in rows.items():
        shown = [str(Score(**scores[name])) if name in scores else "-" for name in names]
        lines.append(f"{row:<{wide}}  " + "  ".join(f"{text:<26}" for text in shown).rstrip())
    return lines


def _confusions(table: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The most frequent confusions."""
    found = sorted(
        ((count, label, other) for label, row in table.items() for other, count in row.items() if other != label),
        key=lambda one: (-one[0], one[1], one[2]),
    )
    lines = [f"confusions: {sum(count for count, _, _ in found):,} documents"]
    lines += [f"  {count:>6,}  {label}, taken for {other}" for count, label, other in found[:MOST_CONFUSIONS]]
    left = len(found) - MOST_CONFUSIONS
    return lines if left <= 0 else [*lines, f"  and {left:,} pairs of labels that are rarer (--json has all)"]


def _published(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        scores = [
            f"{TITLES[name]} {row[name]:.2f}" for name in ("rouge1", "rouge2", "rougeL", "rougeLsum") if row[name]
        ]
        lines.append(f"  {row['model']}: {', '.join(scores)}; {row['settings']} ({row['source']})")
    return lines
