"""Scores of written texts, of answers and of labels, in percent, with bootstrap intervals.

    texts      ROUGE-1, -2, -L and -Lsum: F-measures of Google's rouge-score (extra `evaluate`)
    answers    exact match and F1 of words, as SQuAD counts them (Rajpurkar et al. 2016, arXiv 1606.05250; 2018, 1806.03822)
    labels     accuracy, and the mean over labels of each label's F1

The interval of a score is that of rouge-score's aggregator: documents are drawn with replacement, as many as there are; the
score of each such sample is computed, and the interval leaves out the lowest and the highest 2.5% of them. The draws follow
from a seed, so they are the same for the model and for what it is compared with.

ROUGE-Lsum compares sentence by sentence, and rouge-score takes the lines of a text for its sentences. Of a text on one line it
gives ROUGE-L again, under a better name. So it is left out where a reference of several sentences stands on one line.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from led_backends.contract import HostArray
from led_ref.errors import InputError, SettingsError
from led_ref.files.json_file import is_whole

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SENTENCES = {
    "lines": "a line is a sentence",
    "split": "line ends count as blanks; a sentence ends with . ! or ? before a blank and a capital, digit or opening mark",
}

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+(?=[A-Z0-9(\[\"“‘])")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Score:
    """A score in percent and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are found.

    Args:
        samples: how many samples of the documents are drawn.
        seed: decides the draws.
        confidence: the share of the samples' scores inside the interval.

    Raises:
        SettingsError: if a number is none that it can be.
    """

    samples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("seed", 0)):
            value = getattr(self, name)
            if not is_whole(value) or value < least:
                raise SettingsError(
                    f"{name} of the bootstrap is {value!r:.60}; give a whole number of at least {least}."
                )

    def score(self, statistic: Callable[[HostArray], float], documents: int) -> Score:
        """The score of all documents, and its interval.

        Args:
            statistic: the score, in percent, of the documents with these numbers: int64, any of them any number of times.
            documents: how many there are.
        """
        rng = np.random.default_rng(self.seed)
        found = [statistic(rng.integers(documents, size=documents)) for _ in range(self.samples)]
        outside = 50 * (1 - self.confidence)
        low, high = np.percentile(found, [outside, 100 - outside])
        return Score(float(statistic(np.arange(documents))), float(low), float(high))

    def mean(self, values_X: HostArray) -> Score:
        """The mean of each document's score, float64 (X,), in percent."""
        return self.score(lambda drawn_X: float(values_X[drawn_X].mean()), len(values_X))


# ---- texts -----------------------------------------------------------------------------------------------------------


def sentences_of(text: str) -> list[str]:
    r"""The sentences of a text, by the rule "split" of `SENTENCES`.

    Example:
        >>> sentences_of("One comes first. Then\ntwo, i.e. the second. (Three.)")
        ['One comes first.', 'Then two, i.e. the second.', '(Three.)']
    """
    text, sentences, begin = " ".join(text.split()), [], 0
    for match in _SENTENCE_END.finditer(text):
        sentences.append(text[begin : match.end()].strip())
        begin = match.end()
    return [*sentences, text[begin:]]


def on_one_line(texts: Sequence[str]) -> int:
    """How many of these texts have several sentences on their only line."""
    return sum("\n" not in text.strip() and len(sentences_of(text)) > 1 for text in texts)


def check_sentences(sentences: str) -> None:
    """Refuse a rule that does not exist.

    Raises:
        SettingsError: naming those that do.
    """
    if sentences not in SENTENCES:
        raise SettingsError(f"sentences is {sentences!r:.60}; it is one of {', '.join(SENTENCES)}.")


def lsum_left_out(references: Sequence[Sequence[str]], sentences: str) -> str | None:
    """Why ROUGE-Lsum is not computed, as a sentence; None: it is."""
    if sentences != "lines" or not (count := on_one_line([text for texts in references for text in texts])):
        return None
    return (
        f"References with several sentences on one line: {count:,}; there ROUGE-Lsum would be ROUGE-L again. Write each "
        "sentence on a line, or let them be split: sentences='split' (--sentences split)."
    )


def rouge(
    references: Sequence[Sequence[str]], written: Sequence[str], *, stemmer: bool, sentences: str
) -> dict[str, HostArray]:
    """The F-measures of ROUGE of each document, float64 (X,), in percent; without rougeLsum where `lsum_left_out` says so.

    Args:
        references: one text or more of each document; of several the best one counts, for each measure by itself.
        written: the text of each document that is scored.
        stemmer: whether rouge-score cuts endings off (Porter's stemmer).
        sentences: what ROUGE-Lsum takes for sentences: a name of `SENTENCES`.

    Raises:
        InputError: if rouge-score is not installed.
        SettingsError: for another name.
    """
    check_sentences(sentences)
    names = [name for name in ROUGE if name != "rougeLsum" or lsum_left_out(references, sentences) is None]
    scorer = rouge_scorer(names, stemmer=stemmer)

    def lines(text: str) -> str:
        return "\n".join(sentences_of(text)) if sentences == "split" else text

    found = [
        scorer.score_multi([lines(text) for text in texts], lines(own))
        for texts, own in zip(references, written, strict=True)
    ]
    return {name: np.array([100.0 * scores[name].fmeasure for scores in found]) for name in names}


def rouge_scorer(names: Sequence[str], *, stemmer: bool) -> Any:
    """Google's scorer.

    Raises:
        InputError: if rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise InputError(f"ROUGE needs rouge-score ({error}). Install it: pip install 'led-ref[evaluate]'") from error
    return RougeScorer(list(names), use_stemmer=stemmer)


# ---- answers ---------------------------------------------------------------------------------------------------------


def normalized(answer: str) -> str:
    """An answer as SQuAD compares it: small letters, no punctuation (ASCII), no articles, one blank between words.

    Example:
        >>> normalized("The  U.S. Army's")
        'us armys'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def word_f1(written: str, answer: str) -> float:
    """The F1 of an answer's words, in percent; an answer without a word agrees with such a one alone.

    Example:
        >>> word_f1("the black cat", "black dog")
        50.0
    """
    words, wanted = normalized(written).split(), normalized(answer).split()
    if not words or not wanted:
        return 100.0 * (words == wanted)
    common = sum((Counter(words) & Counter(wanted)).values())
    return 200.0 * common / (len(words) + len(wanted))


def squad(answers: Sequence[Sequence[str]], written: Sequence[str]) -> tuple[HostArray, HostArray]:
    """Exact match and F1 of each question, float64 (X,), in percent.

    Args:
        answers: those of each question that are right, the best one counts; none, or none that has a word: there is no answer,
            and "" is right.
        written: the answer to each question that is scored.
    """
    exact, f1 = [], []
    for texts, own in zip(answers, written, strict=True):
        right = [text for text in texts if normalized(text)] or [""]
        exact.append(100.0 * max(normalized(own) == normalized(text) for text in right))
        f1.append(max(word_f1(own, text) for text in right))
    return np.array(exact, np.float64), np.array(f1, np.float64)


def answer_scores(answers: Sequence[Sequence[str]], written: Sequence[str], bootstrap: Bootstrap) -> dict[str, Score]:
    """exact_match and f1; where some questions have no answer also no_answer_accuracy, has_answer_exact_match, has_answer_f1.

    Arguments as in `squad`, and how the intervals are found.
    """
    exact_X, f1_X = squad(answers, written)
    scores = {"exact_match": bootstrap.mean(exact_X), "f1": bootstrap.mean(f1_X)}
    answerable_X = np.array([any(normalized(text) for text in texts) for texts in answers])
    if not answerable_X.all():
        scores["no_answer_accuracy"] = bootstrap.mean(exact_X[~answerable_X])
        if answerable_X.any():
            scores["has_answer_exact_match"] = bootstrap.mean(exact_X[answerable_X])
            scores["has_answer_f1"] = bootstrap.mean(f1_X[answerable_X])
    return scores


# ---- labels ----------------------------------------------------------------------------------------------------------


def confusions(labels: Sequence[str], found: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each label how often which label was found for it: {label: {found label: documents}}; what never occurs is left out.

    Example:
        >>> confusions(["a", "b", "a"], ["a", "a", "b"])
        {'a': {'a': 1, 'b': 1}, 'b': {'a': 1}}
    """
    table: dict[str, dict[str, int]] = {}
    for (label, other), count in sorted(Counter(zip(labels, found, strict=True)).items()):
        table.setdefault(label, {})[other] = count
    return table


def label_scores(labels: Sequence[str], found: Sequence[str], bootstrap: Bootstrap) -> dict[str, Score]:
    """accuracy, and macro_f1: the mean of F1 over the labels that are right or found for some document.

    A label that is never right, or never found, has the F1 0. In each sample of the bootstrap the labels are those of it.
    """
    number_of = {name: number for number, name in enumerate(sorted({*labels, *found}))}
    right_X = np.array([number_of[name] for name in labels])
    found_X = np.array([number_of[name] for name in found])

    def macro_f1(drawn_X: HostArray) -> float:
        right, other = right_X[drawn_X], found_X[drawn_X]
        hits, wanted, given = (
            np.bincount(numbers, minlength=len(number_of)) for numbers in (right[right == other], right, other)
        )
        occurs = wanted + given > 0
        return float(np.mean(200.0 * hits[occurs] / (wanted + given)[occurs]))

    return {
        "accuracy": bootstrap.mean(100.0 * (right_X == found_X)),
        "macro_f1": bootstrap.score(macro_f1, len(right_X)),
    }
