"""Each processor on an example worked by hand; the n-gram rules against their definition; the order of all of them."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from led_ref.errors import SettingsError
from led_ref.generation import GenerationConfig
from led_ref.generation.processors import (
    build_processors,
    favour_source_ids,
    forbid_early_end,
    forbid_repeated_ngrams,
    forbid_source_ngrams,
    force_ids,
    ngram_table,
    penalise_repetition,
)

INF = float("inf")
VOCABULARY = 5


def scores(*rows):
    array = np.array(rows, dtype=np.float32)
    array.flags.writeable = False  # processors leave what they are given as it is
    return array


def ids(*rows):
    return np.array(rows, dtype=np.int64)


def test_repetition_penalty_once_per_id():
    given = scores([4, 1, -3, 0, -INF], [4, 1, -3, 0, 2])
    result = penalise_repetition(ids([0, 2, 2], [3, 4, 1]), given, penalty=2.0)
    assert result.tolist() == [[2, 1, -6, 0, -INF], [4, 0.5, -3, 0, 1]]
    assert result.dtype == np.float32


def test_encoder_repetition_penalty_per_document():
    given = scores(*[[4, 1, -3, 0, 2]] * 4)
    result = favour_source_ids(ids([1], [1], [1], [1]), given, source_ids=[ids(0, 2), ids(4)], penalty=2.0)
    assert result.tolist() == [[8, 1, -1.5, 0, 2]] * 2 + [[4, 1, -3, 0, 4]] * 2
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    ("size", "written", "forbidden"),
    [
        (1, [2, 4, 2], {2, 4}),
        (2, [2, 4, 2], {4}),
        (2, [3, 3], {3}),
        (2, [2, 4, 3], set()),
        (3, [1, 2, 3, 1, 2], {3}),
        (3, [1, 2, 3, 1, 2, 4, 1, 2], {3, 4}),
        (3, [1, 2], set()),
        (4, [1], set()),
    ],
)
def test_no_repeated_ngram(size, written, forbidden):
    result = forbid_repeated_ngrams(ids(written), scores([0] * VOCABULARY), size=size)
    assert set(np.flatnonzero(result[0] == -INF)) == forbidden


@settings(max_examples=100, deadline=None)
@given(
    source=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    written=st.lists(st.integers(0, 4), min_size=1, max_size=7),
    size=st.integers(1, 4),
)
@example(source=[0, 3], written=[0], size=2)  # just enough is written to begin one
def test_ngram_rules_match_definitions(source, written, size):
    def ends(text):
        """Every id that, written next, would complete n ids that stand in `text`."""
        begun = written[len(written) - size + 1 :] if size > 1 else []
        if len(begun) < size - 1:
            return set()
        return {token for token in range(VOCABULARY) for k in range(len(text)) if text[k : k + size] == [*begun, token]}

    plain = scores(*[[0] * VOCABULARY] * 4)
    rows = ids(*[written] * 4)
    own = forbid_repeated_ngrams(rows, plain, size=size)
    assert [set(np.flatnonzero(row == -INF)) for row in own] == [ends(written)] * 4
    tables = [ngram_table(np.array(text), size=size) for text in (source, source[::-1])]
    copied = forbid_source_ngrams(rows, plain, tables=tables, size=size)
    assert [set(np.flatnonzero(row == -INF)) for row in copied] == [*[ends(source)] * 2, *[ends(source[::-1])] * 2]


def test_min_length_suppresses_eos():
    given = scores([0, 1, 2, 3, 4])
    held = forbid_early_end(ids([2, 3]), given, eos_token_ids=(2, 4), least_length=3)
    assert held.tolist() == [[0, 1, -INF, 3, -INF]]
    assert forbid_early_end(ids([2, 3, 3]), given, eos_token_ids=(2, 4), least_length=3).tolist() == given.tolist()


def test_forced_ids_at_one_length_only():
    given = scores([0, 1, 2, 3, 4])
    assert force_ids(ids([2]), given, token_ids=(3,), at_length=1).tolist() == [[-INF, -INF, -INF, 0, -INF]]
    assert force_ids(ids([2]), given, token_ids=(3, 0), at_length=1).tolist() == [[0, -INF, -INF, 0, -INF]]
    assert force_ids(ids([2, 3]), given, token_ids=(3,), at_length=1).tolist() == given.tolist()


def names(**given):
    rule = GenerationConfig(**given)
    chosen = build_processors(rule, prompt_length=1, source_ids=ids([5, 6]))
    return [processor.func.__name__ for processor in chosen]


def test_processor_order_and_selection():
    assert names() == names(min_length=3) == []  # without an end there is nothing to hold back
    assert names(
        forced_eos_token_id=2,
        forced_bos_token_id=0,
        min_new_tokens=2,
        min_length=3,
        eos_token_id=2,
        encoder_no_repeat_ngram_size=2,
        no_repeat_ngram_size=3,
        repetition_penalty=1.2,
        encoder_repetition_penalty=1.2,
    ) == [
        "favour_source_ids",
        "penalise_repetition",
        "forbid_repeated_ngrams",
        "forbid_source_ngrams",
        "forbid_early_end",
        "force_ids",
        "force_ids",
    ]


def test_lengths_with_and_without_prompt():
    rule = GenerationConfig(min_new_tokens=2, max_length=6, eos_token_id=2, forced_eos_token_id=2)
    early_end, forced_end = build_processors(rule, prompt_length=3)
    given = scores([0] * VOCABULARY)
    assert [early_end(ids([3] * n), given)[0, 2] for n in (3, 4, 5)] == [-INF, -INF, 0]
    assert [forced_end(ids([3] * n), given)[0, 3] for n in (4, 5, 6)] == [0, -INF, 0]
    for least in ({"min_length": 5}, {"min_length": 4, "min_new_tokens": 2}, {"min_length": 5, "min_new_tokens": 1}):
        (early_end,) = build_processors(GenerationConfig(**least, eos_token_id=2), prompt_length=3)
        assert [early_end(ids([3] * n), given)[0, 2] for n in (3, 4, 5)] == [-INF, -INF, 0], least


@pytest.mark.parametrize("setting", ["encoder_no_repeat_ngram_size", "encoder_repetition_penalty"])
def test_rules_about_the_source_need_its_ids(setting):
    with pytest.raises(SettingsError, match=rf"{setting} is 3.*Pass input_ids"):
        build_processors(GenerationConfig(**{setting: 3}), prompt_length=1)
