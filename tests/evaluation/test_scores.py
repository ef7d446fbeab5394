"""Scores of evaluation, against Google's rouge-score and SQuAD's counting, on pairs that are drawn."""

import re
import string

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from led_ref.errors import SettingsError
from led_ref.tools.evaluation.scores import (
    Bootstrap,
    answer_scores,
    confusions,
    label_scores,
    lsum_left_out,
    rouge,
    squad,
)

PAIRS = 300
WORDS = (
    "A",
    "a",
    "an",
    "The",
    "the",
    "cat",
    "cats",
    "running",
    "runs",
    "U.S.'s",
    "it's",
    "(dog)",
    "état",
    "10",
    "-",
    "naïve!,",
)


def drawn_texts(rng, *, lines):
    sentences = [" ".join(rng.choice(WORDS, rng.integers(0, 8))) for _ in range(rng.integers(0, 4))]
    return ("\n" if lines else " ").join(sentences)


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_equals_googles_on_drawn_pairs(stemmer):
    rng = np.random.default_rng(7)
    references = [[drawn_texts(rng, lines=True) for _ in range(rng.integers(1, 4))] for _ in range(PAIRS)]
    written = [drawn_texts(rng, lines=True) for _ in range(PAIRS)]
    found = rouge(references, written, stemmer=stemmer, sentences="lines")
    google = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=stemmer)
    assert list(found) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    for name, values in found.items():
        best = [
            max(google.score(text, own)[name].fmeasure for text in texts)
            for texts, own in zip(references, written, strict=True)
        ]
        np.testing.assert_array_equal(values, 100 * np.array(best))
        assert 0.1 < np.mean(values > 0) < 0.95
    assert np.any(found["rougeLsum"] != found["rougeL"])


def test_interval_equals_googles(monkeypatch):
    values = np.random.default_rng(1).random(41)
    draws = np.random.default_rng(5)
    monkeypatch.setattr(np.random, "choice", lambda numbers, size: draws.integers(len(numbers), size=size))
    google = BootstrapAggregator(confidence_interval=0.95, n_samples=1000)
    scorer = RougeScorer(["rouge1"])
    kind = type(scorer.score("a", "a")["rouge1"])
    for value in values:
        google.add_scores({"rouge1": kind(0, 0, value)})
    expected = google.aggregate()["rouge1"]
    found = Bootstrap(seed=5).mean(100 * values)
    np.testing.assert_allclose(
        [found.low, found.high], [100 * expected.low.fmeasure, 100 * expected.high.fmeasure], rtol=1e-12
    )
    np.testing.assert_allclose(found.value, 100 * values.mean(), rtol=1e-12)


def squad_by_definition(gold, answer):
    """Exact match and F1 of one pair: what SQuAD's paper and its program say, letter by letter."""

    def plain(text):
        letters = [letter for letter in text.lower() if letter not in set(string.punctuation)]
        words = re.sub(r"\b(a|an|the)\b", " ", "".join(letters)).split()
        return words

    wanted, words = plain(gold), plain(answer)
    common = 0
    left = list(wanted)
    for word in words:
        if word in left:
            left.remove(word)
            common += 1
    if not wanted or not words:
        return float(wanted == words), float(wanted == words)
    if not common:
        return 0.0, 0.0
    precision, recall = common / len(words), common / len(wanted)
    return float(wanted == words), 2 * precision * recall / (precision + recall)


def test_squad_counts_on_drawn_pairs():
    rng = np.random.default_rng(3)

    def phrase(most):
        return " ".join(rng.choice(WORDS, rng.integers(0, most)))

    answers = [[phrase(4) for _ in range(rng.integers(0, 4))] for _ in range(PAIRS)]
    written = [str(rng.choice(texts)) if texts and rng.random() < 0.3 else phrase(5) for texts in answers]
    exact, f1 = squad(answers, written)
    blind = 0
    for i, (texts, own) in enumerate(zip(answers, written, strict=True)):
        gold = [text for text in texts if squad_by_definition(text, "")[0] == 0] or [""]
        blind += gold == [""]
        pairs = [squad_by_definition(text, own) for text in gold]
        assert exact[i] == 100 * max(pair[0] for pair in pairs)
        np.testing.assert_allclose(f1[i], 100 * max(pair[1] for pair in pairs), rtol=1e-12)
    assert 50 < blind < 150
    assert 0.1 < exact.mean() / 100 < f1.mean() / 100 < 0.9
    found = answer_scores(answers, written, Bootstrap(samples=3))
    assert list(found) == ["exact_match", "f1", "no_answer_accuracy", "has_answer_exact_match", "has_answer_f1"]
    share = blind / PAIRS
    parts = share * found["no_answer_accuracy"].value + (1 - share) * found["has_answer_exact_match"].value
    np.testing.assert_allclose(parts, found["exact_match"].value, rtol=1e-12)


def test_label_scores_by_hand():
    labels, found = ["a", "a", "a", "b", "b", "c"], ["a", "a", "b", "b", "d", "c"]
    scores = label_scores(labels, found, Bootstrap(samples=50))
    # F1: a 2·2/(3+2), b 2·1/(2+2), c 1, d 0
    np.testing.assert_allclose(scores["macro_f1"].value, 100 * (0.8 + 0.5 + 1 + 0) / 4, rtol=1e-12)
    np.testing.assert_allclose(scores["accuracy"].value, 400 / 6, rtol=1e-12)
    assert scores["macro_f1"].low < scores["macro_f1"].value < scores["macro_f1"].high
    assert confusions(labels, found) == {"a": {"a": 2, "b": 1}, "b": {"b": 1, "d": 1}, "c": {"c": 1}}


def test_lsum_of_one_line_is_left_out():
    references, written = [["One is here. Two is there."], ["Three."]], ["One is here.", "Three."]
    assert "several sentences on one line: 1;" in lsum_left_out(references, "lines")
    assert "rougeLsum" not in rouge(references, written, stemmer=False, sentences="lines")
    split = rouge(references, ["Two is there. One is here.", "Three."], stemmer=False, sentences="split")
    np.testing.assert_allclose(split["rougeLsum"], [100, 100])
    assert split["rougeL"][0] < 100
    with pytest.raises(SettingsError, match="sentences is 'nltk'; it is one of lines, split"):
        rouge(references, written, stemmer=False, sentences="nltk")
    with pytest.raises(SettingsError, match=r"samples of the bootstrap is 0; give a whole number of at least 1"):
        Bootstrap(samples=0)
