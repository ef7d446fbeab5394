"""How what was written is scored, beside baselines: the report of an evaluation."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from led_ref.errors import SettingsError
from led_ref.tools.evaluation.baselines import Baseline
from led_ref.tools.evaluation.cases import Case
from led_ref.tools.evaluation.copied import copied_runs
from led_ref.tools.evaluation.published import published
from led_ref.tools.evaluation.report import Evaluation
from led_ref.tools.evaluation.scores import (
    ROUGE,
    SENTENCES,
    Bootstrap,
    Score,
    answer_scores,
    check_sentences,
    confusions,
    label_scores,
    lsum_left_out,
    on_one_line,
    rouge,
    rouge_scorer,
    squad,
)


@dataclass(frozen=True)
class Measure:
    """How what was written is scored; arguments as in `evaluate`.

    Raises:
        SettingsError: for a rule of sentences, a data set or a bootstrap that does not exist.
    """

    bootstrap: Bootstrap
    stemmer: bool
    sentences: str
    baselines: tuple[Baseline, ...]
    compare: str | None

    def __post_init__(self) -> None:
        check_sentences(self.sentences)
        if self.compare is not None:
            published(self.compare)

    @property
    def copied_fields(self) -> list[str]:
        """The fields that a baseline copies."""
        return [baseline.field for baseline in self.baselines if baseline.kind == "copy"]

    def check(self, task: str, settings: Mapping[str, Any]) -> None:
        """Refuse what is for summaries alone, and ROUGE without its program.

        Raises:
            SettingsError: for what is for summaries, where the task is another.
            InputError: if rouge-score is not installed.
        """
        if task == "summarization":
            rouge_scorer(ROUGE, stemmer=self.stemmer)
            return
        named = {
            **dict.fromkeys(settings, True),
            "stemmer": self.stemmer,
            "sentences": self.sentences != "lines",
            "compare": self.compare is not None,
            "baselines=['lead']": any(baseline.kind == "lead" for baseline in self.baselines),
        }
        if wrong := [name for name, is_given in named.items() if is_given]:
            raise SettingsError(f"{wrong[0]} is for summaries, but the task is {task}. Leave it out.")

    def evaluate(
        self, task: str, cases: Sequence[Case], written: Sequence[str], run: Mapping[str, Any], files: Sequence[Any]
    ) -> Evaluation:
        """Score what was written, and the baselines, and put the report together."""
        right = [case.right for case in cases]
        scores, each = self._scores(task, right, written)
        by_baseline = dict(baseline.texts(cases) for baseline in self.baselines)
        report: dict[str, Any] = {
            "task": task,
            "model": run["model"],
            "data": list(map(str, files)),
            "documents": len(cases),
            "cut_off": sum(case.is_cut for case in cases),
            "scores": _plain(scores),
            "left_out": {},
            "baselines": {name: _plain(self._scores(task, right, texts)[0]) for name, texts in by_baseline.items()},
            "compared_with": self.compare,
            "published": published(self.compare) if self.compare is not None else [],
            "lengths": {"tokens that were read": _lengths([len(case.read.ids) for case in cases])},
            "measured_by": {**self._about(task, right, written), "bootstrap": asdict(self.bootstrap)},
            "settings": dict(run),
        }
        if task == "summarization":
            report["lengths"] |= {
                "words of a reference": _lengths([len(text.split()) for texts in right for text in texts]),
                "words that were written": _lengths([len(text.split()) for text in written]),
                "percent of the words copied": _lengths(
                    [100 * copied_runs(text, case.text)[2] for text, case in zip(written, cases, strict=True)]
                ),
            }
            if why := lsum_left_out(right, self.sentences):
                report["left_out"]["rougeLsum"] = why
        if task == "classification":
            report["confusions"] = confusions([texts[0] for texts in right], written)
        return Evaluation(report, cases, written, each)

    def _scores(
        self, task: str, right: Sequence[Sequence[str]], written: Sequence[str]
    ) -> tuple[Mapping[str, Score], tuple[str, list[float]]]:
        """The scores; and the measure of a single document, with its values."""
        if task == "summarization":
            found = rouge(right, written, stemmer=self.stemmer, sentences=self.sentences)
            means = {name: self.bootstrap.mean(values_X) for name, values_X in found.items()}
            return means, ("rougeL", found["rougeL"].tolist())
        if task == "question-answering":
            return answer_scores(right, written, self.bootstrap), ("f1", squad(right, written)[1].tolist())
        labels = [texts[0] for texts in right]
        hits = [100.0 * (label == own) for label, own in zip(labels, written, strict=True)]
        return label_scores(labels, written, self.bootstrap), ("accuracy", hits)

    def _about(self, task: str, right: Sequence[Sequence[str]], written: Sequence[str]) -> dict[str, Any]:
        if task == "summarization":
            return {
                "program": f"rouge-score {metadata.version('rouge-score')}, F-measure",
                "stemmer": self.stemmer,
                "sentences of ROUGE-Lsum": f"{self.sentences}: {SENTENCES[self.sentences]}",
                "several references": "the best one, for each measure",
                "written on one line with sentences": on_one_line(written),
            }
        if task == "question-answering":
            return {
                "program": "counted as SQuAD's, the best of several answers",
                "questions without an answer": sum(not texts for texts in right),
            }
        return {"macro F1": "mean over the labels that are right or found for some document"}


def _plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: asdict(score) for name, score in scores.items()}


def _lengths(numbers: Sequence[float]) -> dict[str, float]:
    return {"mean": round(statistics.fmean(numbers), 1), "median": statistics.median(numbers), "most": max(numbers)}
