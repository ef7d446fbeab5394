"""The rules that name ids, the caller's own, and when a text ends: on examples worked by hand."""

import time

import numpy as np
import pytest
from toy_model import EOS, PAD, START, MarkovModel

from led_ref.errors import SettingsError
from led_ref.generation import GenerationConfig
from led_ref.generation.processors import add_biases, bias_table, build_processors, favour_the_end, suppress
from led_ref.generation.search import search
from led_ref.generation.step import OwnRules

INF = float("inf")
ONE = np.array([[START]])


def rules(**given) -> GenerationConfig:
    return GenerationConfig(**{"eos_token_id": EOS, "pad_token_id": PAD, **given})


def test_sequence_bias_on_last_id():
    table = bias_table([((4,), 1.0), ((5, 4), 2.0), ((3, 5, 4), 0.5), ((5, 6), -INF)])
    scores = np.zeros((3, 7), np.float32)
    scores.flags.writeable = False
    found = add_biases(np.array([[2, 3, 5], [2, 2, 5], [2, 5, 3]]), scores, biases=table)
    assert found[:, 4].tolist() == [3.5, 3.0, 1.0]
    assert found[:, 6].tolist() == [-INF, -INF, 0]
    assert found.dtype == np.float32
    assert add_biases(np.array([[5]]), scores[:1], biases=bias_table([((5, 5, 5), 9.0)])).tolist() == [[0] * 7]


def test_eos_in_bad_words_stays_allowed():
    (rule,) = build_processors(rules(bad_words_ids=((EOS,), (3,))), prompt_length=1)
    assert rule(ONE, np.zeros((1, 5))).tolist() == [[0, 0, 0, -INF, 0]]
    assert build_processors(rules(bad_words_ids=((EOS,),)), prompt_length=1) == ()


def test_suppressed_ids_everywhere_and_at_start():
    scores = np.zeros((1, 4))
    assert suppress(ONE, scores, token_ids=(1, 3)).tolist() == [[0, -INF, 0, -INF]]
    for forced, prompt, at in ((None, 1, 1), (0, 1, 2), (0, 3, 3)):
        settings = rules(begin_suppress_tokens=(3,), forced_bos_token_id=forced)
        *_, rule = build_processors(settings, prompt_length=prompt)
        hidden = [length for length in (1, 2, 3, 4) if rule(np.full((1, length), 2), scores)[0, 3] == -INF]
        assert hidden == [at]


def test_forbidden_id_is_not_biased():
    late = {"eos_token_ids": (0, 1), "after_length": 0, "factor": 2.0}
    assert favour_the_end(ONE, np.array([[-INF, -3.0, 1.0]]), **late).tolist() == [[-INF, 0.0, 1.0]]


def test_prefixes_are_of_documents():
    seen = []

    def allowed(document, ids):
        seen.append((document, ids.tolist()))
        return [3 + document]

    settings = rules(do_sample=True, seed=1, num_return_sequences=2, max_length=3)
    found = search(
        MarkovModel(1), np.array([[START], [START]]), settings, own=OwnRules(prefix_allowed_tokens_fn=allowed)
    )
    assert found.sequences.tolist() == [[2, 3, 3]] * 2 + [[2, 4, 4]] * 2
    assert [document for document, _ in seen] == [0, 0, 1, 1] * 2
    assert seen[-1] == (1, [2, 4])


def test_custom_processor_order_and_array_copies():
    def only_five(ids, scores):
        scores[:] = -INF
        scores[:, 5] = 0
        ids[:] = 0
        return scores

    settings = rules(do_sample=True, seed=1, top_k=1, max_length=4)
    found = search(MarkovModel(1), ONE, settings, own=OwnRules(logits_processor=[only_five]))
    assert found.sequences.tolist() == [[2, 5, 5, 5]]


@pytest.mark.parametrize(
    "more", [{}, {"do_sample": True, "seed": 1}, {"num_beams": 2}], ids=["greedy", "sampled", "beams"]
)
def test_row_stopped_by_criterion_is_padded(more):
    """Every text ends after three new ids, or after two where the second of them is 4 or more; no eos is needed."""
    told = []

    def criterion(ids, scores):
        told.append((ids.shape, scores))
        return (ids.shape[1] == 4) | ((ids.shape[1] == 3) & (ids[:, -1] >= 4))

    settings = rules(eos_token_id=None, max_length=12, output_scores=True, **more)
    prompts = np.array([[START, token] for token in (3, 4, 5, 6)])[:, 1:]
    found = search(MarkovModel(6), prompts, settings, own=OwnRules(stopping_criteria=[criterion]))
    for row in found.sequences.tolist():
        assert len(row) == 4
        assert row[3] == PAD or row[2] < 4
    assert any(row[2] >= 4 for row in found.sequences.tolist())
    assert told[-1][0][1] == 4
    assert len(told[-1][1]) == 3


@pytest.mark.parametrize("beams", [1, 2])
def test_time_ends_a_text(beams, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    settings = rules(num_beams=beams, max_length=30, max_time=3.5, eos_token_id=None)
    assert search(MarkovModel(1), ONE, settings).sequences.shape == (1, 5)  # the fourth look at the clock says 4


def test_stop_strings_need_a_tokenizer():
    with pytest.raises(SettingsError, match=r"stop_strings is \('x',\), but there is no tokenizer .*Pass tokenizer="):
        search(MarkovModel(1), ONE, rules(stop_strings=("x",)))


def test_remove_invalid_values():
    def step(token_ids, parents):
        return np.array([[np.nan, -1.0, 1.0, np.inf, -np.inf]], np.float32)

    settings = rules(max_length=3, eos_token_id=None, remove_invalid_values=True, output_logits=True)
    found = search(step, ONE, settings)
    assert found.sequences.tolist() == [[2, 3, 3]]
    assert np.isnan(found.logits[0][0, 0])
