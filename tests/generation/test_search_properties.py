"""The searches are their definition (oracle/definition/search.py), find the best of all texts where they can, go by order."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from make.enumeration import enumerate_texts
from toy_model import EOS, PAD, START, MarkovModel

from led_ref.generation import GenerationConfig
from led_ref.generation.search import beam_search, greedy_search, search
from led_ref.oracle.definition import search as dense_search

# A float32 search may decide otherwise than a float64 one where two scores are closer than this: sums of some ten
# float32 numbers of size 1 to 30, each with an error of 6e-8 of it.
TOO_CLOSE = 1e-4
MANY = settings(max_examples=3 * settings().max_examples)


# ---- the searches are their definition ------------------------------------------------------------------------------


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, dict[str, Any], list[list[int]], list[list[int]]]:
    """A model's seed, settings that can be together, prompts, and the ids of the documents that were read."""
    beams, documents, prompt = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 3]))
    chosen: dict[str, Any] = {
        "num_beams": beams,
        "max_length": draw(st.integers(prompt + 1, 9)),
        "eos_token_id": draw(st.sampled_from([EOS, EOS, (EOS, 5)])),
        "pad_token_id": PAD,
        "min_length": draw(st.sampled_from([0, 0, 4])),
        "min_new_tokens": draw(st.sampled_from([None, None, 2])),
        "no_repeat_ngram_size": draw(st.sampled_from([0, 0, 1, 2, 3])),
        "encoder_no_repeat_ngram_size": draw(st.sampled_from([0, 0, 0, 2])),
        "repetition_penalty": draw(st.sampled_from([1.0, 1.0, 1.4, 0.7])),
        "encoder_repetition_penalty": draw(st.sampled_from([1.0, 1.0, 1.6])),
        "forced_bos_token_id": draw(st.sampled_from([None, None, 0])),
        "forced_eos_token_id": draw(st.sampled_from([None, None, EOS])),
    }
    chosen["min_length"] = min(chosen["min_length"], chosen["max_length"] - 1)
    if chosen["min_new_tokens"] and prompt + chosen["min_new_tokens"] >= chosen["max_length"]:
        chosen["min_new_tokens"] = None
    if beams > 1:
        chosen |= {
            "num_return_sequences": draw(st.integers(1, beams)),
            "length_penalty": draw(st.sampled_from([1.0, 1.0, 0.0, 2.0, 4.0, -1.0])),
            "early_stopping": draw(st.sampled_from([True, False, False, "never"])),
        }
    ids = st.lists(st.integers(3, 6), min_size=prompt - 1, max_size=prompt - 1)
    prompts = [[START, *draw(ids)] for _ in range(documents)]
    sources = [draw(st.lists(st.integers(0, 6), min_size=4, max_size=4)) for _ in range(documents)]
    return draw(st.integers(0, 10_000)), chosen, prompts, sources


class ModelOfDocuments:
    """A MarkovModel for each document, so that one document's rows cannot pass for another's."""

    def __init__(self, seed: int, documents: int) -> None:
        self.models = [MarkovModel(seed + b, eos_bias=1.0) for b in range(documents)]

    def __call__(self, token_ids: np.ndarray, parents: np.ndarray | None) -> np.ndarray:
        before = np.zeros_like(token_ids[:, :1]) if parents is None else self.last_two[parents]
        self.last_two = np.concatenate([before, token_ids], axis=1)[:, -2:]
        rows = np.arange(len(token_ids)) * len(self.models) // len(token_ids)
        return np.stack([self.models[b].table[tuple(pair)] for b, pair in zip(rows, self.last_two, strict=True)])

    def logits_of(self, document: int, ids: list[int]) -> list[float]:
        return self.models[document].table[(0, *ids)[-2], ids[-1]].tolist()


@MANY
@given(calls())
def test_search_is_its_definition(drawn: tuple[int, dict[str, Any], list[list[int]], list[list[int]]]) -> None:
    seed, chosen, prompts, sources = drawn
    model = ModelOfDocuments(seed, len(prompts))
    try:
        expected = dense_search.search(model.logits_of, prompts, chosen, sources)
    except AssertionError:
        assume(False)  # the settings forbid every id of some beam: what is returned then is nobody's wish
    assume(expected.smallest_gap > TOO_CLOSE)
    found = search(model, np.array(prompts), GenerationConfig(**chosen), source_ids=np.array(sources))
    assert found.sequences.tolist() == expected.sequences
    if expected.scores is not None:
        np.testing.assert_allclose(found.sequences_scores, expected.scores, rtol=1e-5, atol=1e-4)


# ---- equal scores ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), beams=st.integers(1, 4), ends=st.booleans())
def test_ties_prefer_lower_index(seed: int, beams: int, ends: bool) -> None:
    """Every row has the same logits in another order, each of them twice: sums are equal to the bit, again and again."""
    rng = np.random.default_rng(seed)
    table = np.stack([rng.permutation(np.float32([3, 3, 2, 2, 0, 0])) for _ in range(6)])
    chosen = {"num_beams": beams, "num_return_sequences": beams, "max_length": 5, "pad_token_id": PAD}
    chosen |= {"eos_token_id": EOS if ends else None, "length_penalty": 0.0}
    # log_softmax of the same six numbers, rounded once: float64 sums of these are exact, and ties stay ties.
    logprobs = table - np.float32(np.log(np.exp(np.float64([3, 3, 2, 2, 0, 0])).sum()))
    logprobs = np.round(logprobs * 1024) / 1024

    def as_they_are(logits: Any) -> Any:
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("led_ref.generation.beam_search.log_softmax", as_they_are)
        patch.setattr(dense_search, "log_softmax", as_they_are)
        found = search(lambda ids, parents: logprobs[ids[:, -1]], np.array([[3]]), GenerationConfig(**chosen))
        expected = dense_search.search(lambda document, ids: logprobs[ids[-1]].tolist(), [[3]], chosen)
    assert found.sequences.tolist() == expected.sequences


# ---- beams and the best of all texts --------------------------------------------------------------------------------


def rules(**given: Any) -> GenerationConfig:
    return GenerationConfig(**{"eos_token_id": EOS, "pad_token_id": PAD, "early_stopping": "never", **given})


@settings(max_examples=max(1, settings().max_examples // 4))
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([-1.0, 0.0, 1.0, 2.0]), steps=st.sampled_from([2, 3]))
def test_exhaustive_beams_find_the_optimum(seed: int, penalty: float, steps: int) -> None:
    """Two theorems on early_stopping="never", whose hope for a running text is an upper bound of all it can become.

    1. With a beam for every text that a step before the last can come to, ended or not, nothing is ever dropped. (A beam for
       every unfinished one is not enough: an end counts only among the best W.) So the best of all texts is found, and
       fewer beams find none that is better.
    2. In two steps each number of beams finds no worse than the one below it: the first step's W + 1 running texts
       hold the W ones, and the last step's candidates are all that continue them. (Not so in three: there W + 1 texts may
       push one out that W would have kept.)
    """
    model = MarkovModel(seed, vocabulary=4, eos_bias=0.5)
    enough = 4 * 3 ** (steps - 2)  # three ids go on, one ends
    best = [
        float(
            beam_search(
                model, np.array([[START]]), rules(num_beams=beams, max_length=1 + steps, length_penalty=penalty)
            ).sequences_scores[0]
        )
        for beams in range(1, enough + 1)
    ]
    texts = enumerate_texts(
        lambda _, ids: model.table[(0, *ids)[-2], ids[-1]].tolist(),
        [START],
        {"eos_token_id": EOS, "max_length": 1 + steps, "length_penalty": penalty},
    )
    assert best[-1] == pytest.approx(texts[0].score, abs=1e-5)
    assert max(best) == pytest.approx(best[-1], abs=1e-5)
    if steps == 2:
        assert all(more >= fewer - 1e-5 for fewer, more in pairwise(best)), best


@given(seed=st.integers(0, 10_000), bias=st.sampled_from([0.0, 1.0]), length=st.integers(3, 12))
def test_one_beam_is_greedy_search(seed: int, bias: float, length: int) -> None:
    rule = rules(max_length=length, early_stopping=True)
    prompt = np.array([[START, 3], [START, 4]])
    by_greedy = greedy_search(MarkovModel(seed, eos_bias=bias), prompt, rule)
    by_beam = beam_search(MarkovModel(seed, eos_bias=bias), prompt, rule)
    assert by_beam.sequences.tolist() == by_greedy.sequences.tolist()


# ---- order ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), beams=st.integers(1, 4), data=st.data())
def test_document_order_is_output_order(seed: int, beams: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(3)))
    prompt = np.array([[START, 3], [START, 5], [START, 6]])
    rule = dataclasses.replace(rules(num_beams=beams, max_length=8), num_return_sequences=beams)
    plain = search(MarkovModel(seed, eos_bias=1.0), prompt, rule).sequences
    shuffled = search(MarkovModel(seed, eos_bias=1.0), prompt[order], rule).sequences
    assert shuffled.tolist() == plain.reshape(3, beams, -1)[order].reshape(3 * beams, -1).tolist()
