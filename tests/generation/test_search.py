"""Greedy and beam search on a toy model that is small enough to enumerate, without torch."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toy_model import EOS, PAD, START, MarkovModel

from led_ref.errors import InputError, SettingsError
from led_ref.generation import GenerationConfig, make_prompt
from led_ref.generation.beam_search import best_of_many
from led_ref.generation.search import beam_search, greedy_search, search

START_ONLY = np.array([[START]])
SEEDS = st.integers(0, 10_000)
QUICK = settings(max_examples=40, deadline=None)


def rules(**given) -> GenerationConfig:
    return GenerationConfig(**{"eos_token_id": EOS, "pad_token_id": PAD, **given})


def trimmed(row: np.ndarray) -> list[int]:
    """Without the padding at the end."""
    return row[: len(row) - int(np.argmax(row[::-1] != PAD))].tolist()


# ---- what is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("ends", [(EOS,), (EOS, 0)])
def test_enough_beams_find_the_best_sequence(length_penalty, ends):
    model = MarkovModel(seed=17, vocabulary=4)
    max_length, beams, returned = 5, 27, 5
    values = {}
    for text in model.every_text(max_length, ends):
        values[text] = sum(model.log_probabilities(text)) / (len(text) - 1) ** length_penalty
    best = sorted(values, key=values.__getitem__, reverse=True)[:returned]

    rule = rules(num_beams=beams, num_return_sequences=returned, max_length=max_length, eos_token_id=ends)
    rule = dataclasses.replace(rule, length_penalty=length_penalty, early_stopping="never", pad_token_id=3)
    result = beam_search(model, START_ONLY, rule)

    for row, score, text in zip(result.sequences, result.sequences_scores, best, strict=True):
        assert row[: len(text)].tolist() == list(text)
        assert (row[len(text) :] == 3).all()
        assert score == pytest.approx(values[text], abs=1e-5)


@QUICK
@given(seed=SEEDS, documents=st.integers(1, 3))
def test_greedy_argmax_and_padding(seed, documents):
    model = MarkovModel(seed, eos_bias=1.0)
    prompt = np.array([[START], [3], [4]])[:documents]
    result = greedy_search(model, prompt, rules(max_length=9))
    for row, first in zip(result.sequences, prompt[:, 0], strict=True):
        expected = [int(first)]
        while len(expected) < 9 and (len(expected) == 1 or expected[-1] != EOS):
            expected.append(int(model.table[(0, *expected)[-2], expected[-1]].argmax()))
        assert row.tolist() == expected + [PAD] * (len(row) - len(expected))


@QUICK
@given(seed=SEEDS, bias=st.sampled_from([0.0, 2.0]))
def test_one_beam_with_early_stopping_is_greedy(seed, bias):
    prompt = np.array([[START, 3], [START, 4]])
    rule = rules(max_length=11, early_stopping=True, no_repeat_ngram_size=0)
    by_greedy = greedy_search(MarkovModel(seed, eos_bias=bias), prompt, rule)
    by_beam = beam_search(MarkovModel(seed, eos_bias=bias), prompt, rule)
    assert by_beam.sequences.tolist() == by_greedy.sequences.tolist()


@QUICK
@given(seed=SEEDS, beams=st.integers(2, 5), prompt_length=st.integers(1, 3), penalty=st.sampled_from([0.0, 1.0, 2.0]))
def test_beam_scores_match_teacher_forcing(seed, beams, prompt_length, penalty):
    model = MarkovModel(seed, eos_bias=1.0)
    prompt = np.full((2, prompt_length), 3)
    rule = rules(num_beams=beams, num_return_sequences=beams, max_length=9, length_penalty=penalty, output_scores=True)
    result = beam_search(model, prompt, rule)
    for row, score, path in zip(result.sequences, result.sequences_scores, result.beam_indices, strict=True):
        written = int((path >= 0).sum())
        text = row[: prompt_length + written].tolist()
        each = model.log_probabilities(tuple(text), prompt_length)
        assert score == pytest.approx(sum(each) / written**penalty, abs=1e-4)
        by_row = [result.scores[t][path[t], text[prompt_length + t]] for t in range(written)]
        assert by_row == pytest.approx(each, abs=1e-5)
        assert (row[prompt_length + written :] == PAD).all()
    moved = [p for _, p in model.calls[1:] if (p != np.arange(len(p))).any()]
    assert moved or len(model.calls) < 4  # beams do change places, so that a search with wrong parents is seen


@QUICK
@given(seed=SEEDS, beams=st.integers(1, 4), early=st.sampled_from([True, False, "never"]))
def test_a_batch_is_its_parts(seed, beams, early):
    """A length penalty of 3 makes late texts win: a document that was closed must not take them while others go on."""
    prompt = np.array([[START, 3], [START, 5], [START, 6]])
    rule = rules(num_beams=beams, num_return_sequences=beams, max_length=14, early_stopping=early, length_penalty=3.0)
    together = search(MarkovModel(seed, eos_bias=1.5), prompt, rule)
    for document, alone in enumerate(prompt):
        part = search(MarkovModel(seed, eos_bias=1.5), alone[None], rule)
        rows = together.sequences[document * beams : (document + 1) * beams]
        assert [trimmed(row) for row in rows] == [trimmed(row) for row in part.sequences]


def test_finished_beam_frees_its_slot():
    chances = np.full((5, 5), 1e-9)
    chances[START, [EOS, 3, 4]] = 0.5, 0.3, 0.2  # the best two begin with an end; both 3 and 4 must go on all the same
    chances[3, [EOS, 0, 1]] = 0.4, 0.3, 0.3
    chances[4, EOS] = 1.0
    rule = rules(num_beams=2, num_return_sequences=2, max_length=4, length_penalty=0.0, early_stopping="never")
    result = beam_search(lambda ids, parents: np.log(chances[ids[:, -1]]), START_ONLY, rule)
    assert result.sequences.tolist() == [[START, EOS, PAD], [START, 4, EOS]]
    assert np.exp(result.sequences_scores).tolist() == pytest.approx([0.5, 0.2], rel=1e-5)


# ---- when it stops --------------------------------------------------------------------------------------------------


def steps_and_score(seed, early, penalty=1.0):
    model = MarkovModel(seed, eos_bias=1.0)
    result = beam_search(
        model, START_ONLY, rules(num_beams=2, max_length=12, early_stopping=early, length_penalty=penalty)
    )
    return len(model.calls), float(result.sequences_scores[0])


@QUICK
@given(seed=SEEDS, penalty=st.sampled_from([0.5, 1.0, 2.0]))
def test_patience_steps_and_score_are_monotonic(seed, penalty):
    hasty, usual, patient = (steps_and_score(seed, early, penalty) for early in (True, False, "never"))
    assert hasty[0] <= usual[0] <= patient[0]
    assert hasty[1] <= usual[1] <= patient[1]


def test_three_early_stopping_variants():
    places = {early: {steps_and_score(seed, early)[0] for seed in range(30)} for early in (True, False, "never")}
    differing = [
        seed for seed in range(30) if len({steps_and_score(seed, early)[0] for early in (True, False, "never")}) == 3
    ]
    assert differing, places


@pytest.mark.parametrize("penalty", [0.0, -1.0])
def test_early_stopping_never_with_length_penalty(penalty):
    for seed in range(20):
        assert steps_and_score(seed, "never", penalty) == steps_and_score(seed, False, penalty)


def test_max_length_without_eos():
    model = MarkovModel(seed=3, eos_bias=-50.0)
    assert beam_search(model, START_ONLY, rules(num_beams=3, max_length=6)).sequences.shape == (1, 6)
    assert len(model.calls) == 5


# ---- equal scores ---------------------------------------------------------------------------------------------------


def indifferent(token_ids, parents):
    return np.zeros((len(token_ids), 5))


def test_ties_prefer_lower_id_and_beam():
    rule = GenerationConfig(num_beams=2, num_return_sequences=2, max_length=4)
    assert greedy_search(indifferent, START_ONLY, GenerationConfig(max_length=4)).sequences.tolist() == [[2, 0, 0, 0]]
    assert beam_search(indifferent, START_ONLY, rule).sequences.tolist() == [[2, 0, 0, 0], [2, 0, 0, 1]]


@QUICK
@given(
    scores=arrays(np.float32, st.integers(8, 60), elements=st.sampled_from([-np.inf, -1e9, -2.0, -1.5, 0.0, 3.0])),
    count=st.integers(1, 8),
)
def test_best_of_many_is_a_truncated_stable_sort(scores, count):
    expected = np.argsort(-scores, kind="stable")[:count]
    assert best_of_many(scores, count).tolist() == expected.tolist()


# ---- what passes between search and model ---------------------------------------------------------------------------


def test_step_inputs_are_prompt_then_one_id():
    model, told = MarkovModel(seed=5, eos_bias=-50.0), []
    prompt = np.array([[START, 3, 4], [START, 5, 6]])
    search(model, prompt, rules(num_beams=2, max_length=6), progress=lambda *at: told.append(at))
    (first_ids, first_parents), *later = model.calls
    assert first_ids.tolist() == [[2, 3, 4], [2, 3, 4], [2, 5, 6], [2, 5, 6]]
    assert first_parents is None
    assert all(ids.shape == (4, 1) and ids.dtype == parents.dtype == np.int64 for ids, parents in later)
    assert all((parents // 2 == [0, 0, 1, 1]).all() for _, parents in later)
    assert told == [(4, 6), (5, 6), (6, 6)]


@pytest.mark.parametrize("beams", [1, 3])
def test_output_scores_are_float32(beams):
    model = MarkovModel(seed=5, eos_bias=-50.0)
    result = search(model, START_ONLY, rules(num_beams=beams, max_length=5, output_scores=True))
    assert [scores.shape for scores in result.scores] == [(beams, 7)] * 4
    assert {scores.dtype for scores in result.scores} == {np.dtype(np.float32)}
    assert search(model, START_ONLY, rules(num_beams=beams, max_length=5)).scores is None


def test_search_is_float32_for_any_model_dtype():
    def step(token_ids, parents):
        return np.array([[0.0, 1.0, 1.0 + 1e-12]] * len(token_ids))  # apart in float64, equal in float32

    assert greedy_search(step, START_ONLY, GenerationConfig(max_length=2)).sequences.tolist() == [[2, 1]]
    result = beam_search(step, START_ONLY, GenerationConfig(max_length=2, num_beams=2))
    assert result.sequences.tolist() == [[2, 1]]
    assert result.sequences_scores.dtype == np.float32


def test_scores_are_logits_or_log_probabilities():
    logits = np.log(np.array([[1.0, 2.0, 3.0, 4.0]]))

    def step(token_ids, parents):
        return np.repeat(logits, len(token_ids), axis=0)

    rule = GenerationConfig(max_length=2, output_scores=True)
    np.testing.assert_allclose(greedy_search(step, START_ONLY, rule).scores[0], logits, rtol=1e-6)
    by_beam = beam_search(step, START_ONLY, dataclasses.replace(rule, num_beams=2)).scores[0]
    np.testing.assert_allclose(by_beam[0], np.log([0.1, 0.2, 0.3, 0.4]), rtol=1e-6)


def test_pad_0_pads_with_0():
    """transformers takes a pad id of 0 for "none" in beam search and fills up with eos; what is asked for is done here."""
    model = MarkovModel(seed=1, eos_bias=2.0)
    rule = rules(num_beams=3, num_return_sequences=3, max_length=8, pad_token_id=0)
    result = beam_search(model, START_ONLY, rule)
    short = (result.beam_indices < 0).nonzero()
    assert len(short[0])
    assert (result.sequences[:, 1:][short] == 0).all()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_non_finite_logits_are_refused(beams, poison):
    def step(token_ids, parents):
        logits = np.zeros((len(token_ids), 5))
        logits[-1, 3] = poison
        return logits

    with pytest.raises(InputError, match=rf"row {beams - 1} contain {poison}.*float32"):
        search(step, START_ONLY, rules(num_beams=beams))


def test_greedy_search_finds_one_text():
    with pytest.raises(SettingsError, match=r"num_return_sequences is 3.*num_beams=3"):
        search(indifferent, START_ONLY, rules(num_return_sequences=3))


def test_prompt_starts_with_start_id():
    def made(rows):
        return make_prompt(None if rows is None else np.array(rows), documents=2, start_token_id=2).tolist()

    assert made(None) == [[2], [2]]
    assert made([[2, 5], [2, 6]]) == [[2, 5], [2, 6]]
    assert made([[5], [6]]) == [[2, 5], [2, 6]]
    with pytest.raises(InputError, match=r"Row 1 .* begins with 6.*Begin all rows with 2, or none"):
        made([[2, 5], [6, 5]])
    for misshapen in ([[2, 5]], [2, 5], [[], []]):
        with pytest.raises(InputError, match=r"shape \(.*\(2, P\)"):
            made(misshapen)
