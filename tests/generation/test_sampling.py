"""Drawing: how often each id comes, what a seed promises, and what beam sampling draws."""

import math

import numpy as np
import pytest
from toy_model import EOS, PAD, START, MarkovModel

from led_ref.errors import InputError, SettingsError
from led_ref.generation import GenerationConfig
from led_ref.generation.sampling import Stream, draw_ids, draw_without_replacement
from led_ref.generation.search import search
from led_ref.generation.step import OwnRules
from led_ref.generation.warpers import build_warpers, probabilities

DRAWS = 10_000

# The chance that a right sampler gives a larger chi-square than the one found. Seeds are fixed, so each test passes always or
# never; a right sampler would be unlucky with one seed in a thousand. A wrong one, that moves a tenth of the weight of an id of
# 0.4 to one of 0.25, comes to 400^2 / 4000 + 400^2 / 2500 = 104, which has a chance of 1e-21 with five classes.
LEAST_CHANCE = 1e-3


def chance_of_more(counts, expected) -> float:
    """P(chi-square >= the one of these counts), for an even number of degrees of freedom: exp(-x/2) sum_k (x/2)^k / k!."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = len(counts) - 1
    assert degrees % 2 == 0, "choose an odd number of classes: then this sum is exact"
    assert expected.min() >= 5, "the usual condition for chi-square"
    return math.exp(-statistic / 2) * sum((statistic / 2) ** k / math.factorial(k) for k in range(degrees // 2))


def rules(**given) -> GenerationConfig:
    return GenerationConfig(**{"eos_token_id": EOS, "pad_token_id": PAD, "do_sample": True, "seed": 11, **given})


def filtered(logits_NV, settings):
    """The distribution that is drawn from, by the filters alone."""
    for warper in build_warpers(settings):
        logits_NV = warper(np.zeros((len(logits_NV), 1), int), logits_NV)
    return probabilities(logits_NV)


@pytest.mark.parametrize(
    "more", [{"top_k": 0}, {"top_p": 0.9, "temperature": 1.7}, {"min_p": 0.06, "top_k": 7}], ids=str
)
def test_sample_frequencies(more):
    """Two ids each, of one document: the streams of different texts, and the numbers of one stream, are independent."""
    settings = rules(max_length=3, eos_token_id=None, **more)
    object.__setattr__(settings, "num_return_sequences", DRAWS)  # more than a call may ask for
    model = MarkovModel(5)
    texts = search(MarkovModel(5), np.array([[START]]), settings).sequences
    first_V = filtered(model.table[0, START][None].astype(np.float32), settings)[0]
    then_VV = filtered(model.table[START].astype(np.float32), settings)
    expected_X = (first_V[:, None] * then_VV).ravel() * DRAWS
    counts_X = np.bincount(texts[:, 1] * model.vocabulary + texts[:, 2], minlength=len(expected_X))
    assert counts_X[expected_X == 0].sum() == 0
    rare = expected_X < 5
    groups = np.where(rare, -1, np.arange(len(rare)))
    names = sorted(set(groups[expected_X > 0]))
    counts = np.array([counts_X[groups == name].sum() for name in names])
    expected = np.array([expected_X[groups == name].sum() for name in names])
    if len(counts) % 2 == 0:
        counts, expected = (np.append(a[:-2], a[-2:].sum()) for a in (counts, expected))
    assert counts.sum() == DRAWS
    assert chance_of_more(counts, expected) > LEAST_CHANCE


def test_random_streams_are_uniform():
    scores = np.log(np.array([[0.4, 0.25, 0.2, 0.1, 0.05]], np.float32))
    one = Stream(7, 0)
    in_turn = np.array([draw_ids(scores, [one])[0] for _ in range(DRAWS)])
    of_seeds = draw_ids(np.repeat(scores, DRAWS, axis=0), [Stream(seed, 0) for seed in range(DRAWS)])
    for drawn in (in_turn, of_seeds):
        assert chance_of_more(np.bincount(drawn, minlength=5), probabilities(scores)[0] * DRAWS) > LEAST_CHANCE


def test_draws_without_replacement_match_urn():
    """P(i, then j) = p_i p_j / (1 - p_i), for all 7 * 6 pairs and one more class."""
    scores = np.log(np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05], np.float32))
    p = probabilities(scores)
    pairs = np.array([draw_without_replacement(scores, 2, Stream(seed, 0)) for seed in range(DRAWS)])
    expected = (p[:, None] * p[None] / (1 - p[:, None]))[~np.eye(7, dtype=bool)] * DRAWS
    counts = np.bincount(pairs[:, 0] * 7 + pairs[:, 1], minlength=49).reshape(7, 7)
    assert np.diag(counts).sum() == 0
    flat = counts[~np.eye(7, dtype=bool)]
    joined = [np.append(a[:-2], a[-2:].sum()) for a in (flat, expected)]
    assert chance_of_more(*joined) > LEAST_CHANCE


@pytest.mark.parametrize("beams", [1, 3])
def test_seeded_sample_is_batch_invariant(beams):
    """Alone, twice, with neighbours before and behind, with a seed of its own for each: always the same ids."""
    settings = rules(num_beams=beams, num_return_sequences=beams, max_length=11, seed=4, top_k=5)
    prompts = np.array([[START, 3], [START, 4], [START, 3], [START, 6]])

    def written(which, **more):
        rule = settings if not more else rules(**{**settings.to_dict(), "eos_token_id": EOS, **more})
        found = search(MarkovModel(8), prompts[which], rule).sequences
        return [[t for t in row.tolist() if t != PAD] for row in found]

    together = written([0, 1, 2, 3])
    alone = [written([i]) for i in range(4)]
    assert [together[i * beams : (i + 1) * beams] for i in range(4)] == alone
    assert written([3, 1]) == [*alone[3], *alone[1]]
    assert alone[0] == alone[2] != alone[1]
    own = written([0, 1, 2, 3], seed=(4, 4, 5, 9))
    assert own[: 2 * beams] == together[: 2 * beams]
    assert own[2 * beams : 3 * beams] != alone[0]


def test_first_of_several_samples_equals_single():
    of_five = search(
        MarkovModel(2), np.array([[START]]), rules(num_return_sequences=5, max_length=9, eos_token_id=None)
    )
    of_one = search(MarkovModel(2), np.array([[START]]), rules(max_length=9, eos_token_id=None))
    assert of_five.sequences[:1].tolist() == of_one.sequences.tolist()
    assert len({tuple(row) for row in of_five.sequences.tolist()}) == 5


def test_without_a_seed_texts_differ():
    texts = [
        search(MarkovModel(2), np.array([[START]]), rules(seed=None, max_length=30, eos_token_id=None)) for _ in "ab"
    ]
    assert texts[0].sequences.tolist() != texts[1].sequences.tolist()


def test_beam_sampling_texts_match_scores():
    from led_ref.generation.step import compute_transition_scores

    settings = rules(num_beams=4, num_return_sequences=4, max_length=9, output_scores=True, length_penalty=1.5, top_k=5)
    found = search(MarkovModel(3, eos_bias=-1.0), np.array([[START], [START]]), settings)
    worth = compute_transition_scores(found.sequences, found.scores, found.beam_indices, normalize=False)
    written = (found.beam_indices >= 0).sum(axis=1)
    np.testing.assert_allclose(worth.sum(axis=1) / written**1.5, found.sequences_scores, rtol=1e-6)
    best = search(
        MarkovModel(3, eos_bias=-1.0), np.array([[START], [START]]), rules(**{**settings.to_dict(), "do_sample": False})
    )
    assert found.sequences.tolist() != best.sequences.tolist()
    assert found.sequences[:4].tolist() == found.sequences[4:].tolist()  # equal documents, one seed


# ---- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
def test_empty_distribution_is_an_error(beams):
    with pytest.raises(InputError, match=r"Row 0 has no id left to draw: all scores are -inf.*loosen"):
        search(MarkovModel(1), np.array([[START]]), rules(num_beams=beams, suppress_tokens=tuple(range(7))))


def test_one_seed_per_document():
    with pytest.raises(SettingsError, match=r"seed holds 3 numbers, but there are 2 documents. Give one seed for all"):
        search(MarkovModel(1), np.array([[START], [START]]), rules(seed=(1, 2, 3)))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            {"logits_processor": [lambda ids, scores: scores[:, :2]]},
            r"logits_processor <lambda> returned float.*\(1, 2\)",
        ),
        (
            {"logits_processor": [lambda ids, scores: scores * np.nan]},
            "returned NaN, which is no score. Forbid an id with",
        ),
        (
            {"stopping_criteria": [lambda ids, scores: 1.0]},
            r"stopping_criteria <lambda> returned float64.*Return one bool",
        ),
        ({"prefix_allowed_tokens_fn": lambda document, ids: []}, r"returned \[\] for document 0 .*at least one id"),
        ({"prefix_allowed_tokens_fn": lambda document, ids: [7]}, r"returned \[7\] .*ids from 0 to 6"),
    ],
)
def test_custom_processors_are_validated(own, words):
    with pytest.raises(InputError, match=words):
        search(MarkovModel(1), np.array([[START]]), rules(max_length=5), own=OwnRules(**own))
