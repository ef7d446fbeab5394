"""`return_overflowing_tokens` and `stride`: the rows of the tokenizers library, which transformers' tokenizer has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import led_ref
from led_ref import LEDTokenizer
from led_ref.errors import InputError

FOLDER = led_ref.bundled_model()
OURS = {side: LEDTokenizer.from_pretrained(FOLDER, engine="rust") for side in ("right", "left")}
OURS["left"].truncation_side = "left"
WORDS = st.lists(st.sampled_from(["window", "a", "naïve", "3.5", "no!\n\n", " ", "😀😀", "</s>", "of"]), max_size=30)


@given(WORDS.map(" ".join), st.integers(1, 11), st.sampled_from(["right", "left"]), st.booleans(), st.data())
def test_rows_are_those_of_the_library(text, room, side, is_pair, data):
    stride = data.draw(st.integers(0, room - 1))
    library = Tokenizer.from_str(OURS[side]._engine._rust.to_str())
    library.enable_truncation(room, stride=stride, direction=side)
    first = library.encode(text, add_special_tokens=False)
    rows = [(row.ids, row.offsets) for row in (first, *first.overflowing)]
    before = [0, *OURS[side].encode("a question", add_special_tokens=False), 2, 2] if is_pair else [0]
    texts = ("a question", text) if is_pair else (text,)
    found = OURS[side](
        *texts, truncation="only_second" if is_pair else True, max_length=room + len(before) + 1, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    assert found.input_ids == [[*before, *ids, 2] for ids, _ in rows]
    assert [row[len(before) : -1] for row in found.offset_mapping] == [offsets for _, offsets in rows]
    assert found.overflow_to_sample_mapping == [0] * len(rows)


def test_rows_of_several_texts_say_whose_they_are():
    texts = ["a b c d e f g", "a", "a b c d"]
    found = OURS["right"](
        texts, truncation=True, max_length=5, return_overflowing_tokens=True, padding=True, return_tensors="np"
    )
    assert found.overflow_to_sample_mapping.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.input_ids.shape == (6, 5)
    assert isinstance(found.overflow_to_sample_mapping, np.ndarray)
    whole = OURS["right"]("one text", truncation=True, max_length=9, return_overflowing_tokens=True)
    assert whole.input_ids == [OURS["right"].encode("one text")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stride": 3}, "stride=3 does nothing without return_overflowing_tokens"),
        ({"return_overflowing_tokens": True}, "does nothing without truncation"),
        ({"return_overflowing_tokens": True, "truncation": True, "max_length": 5, "stride": 3}, "room for 3 tokens"),
        ({"return_overflowing_tokens": True, "truncation": True, "max_length": 5, "stride": -1}, "stride is -1"),
        ({"return_overflowing_tokens": True, "truncation": True, "max_length": 5, "stride": True}, "stride is True"),
        ({"return_overflowing_tokens": "no", "truncation": True}, "return_overflowing_tokens is 'no'"),
    ],
)
def test_what_has_no_effect_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        OURS["right"]("a b c d e f g", **settings)


def test_the_text_that_is_cut_must_be_named():
    settings = {"return_overflowing_tokens": True, "truncation": True, "max_length": 8}
    with pytest.raises(InputError, match="needs the one that is cut"):
        OURS["right"]("a b c d", "a b c d", **settings)
