"""Pieces of a long document: every token is in one, overlaps are as asked, cuts lie between sentences where they can."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import led_ref
from led_ref.errors import InputError
from led_ref.pipelines.splitting import pieces

TOKENIZER = led_ref.load(backend="numpy").tokenizer
WORDS = st.sampled_from(
    ["window", "a", "B", "naïve", "3.5", "¿", "x.", "End.", 'said."', "no!\n\n", "\n", "e.g.", " ", "😀😀"]
)


@given(st.lists(WORDS, min_size=1, max_size=60).map(" ".join), st.integers(1, 23), st.data())
def test_every_token_is_in_a_piece(text, room, data):
    overlap = data.draw(st.integers(0, room // 2))
    encoding = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    found = pieces(text, offsets, room, overlap)
    assert (found[0].start, found[-1].stop) == (0, len(offsets))
    assert all(0 < stop - start <= room for start, stop in found)
    for before, after in pairwise(found):
        assert before.start < after.start
        assert before.stop < after.stop
        assert 0 <= before.stop - after.start <= overlap


def test_cuts_lie_between_sentences():
    ends = (".", "?", '."', "!)", "!", ".", "?")
    text = " ".join(f"The file is {name}{end}" for name, end in zip("abcdefg", ends, strict=True))
    encoding = TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    sentence = max(len(TOKENIZER(part, add_special_tokens=False)["input_ids"]) for part in text.split("The"))
    found = pieces(text, offsets, room=2 * sentence, overlap=0)
    texts = [text[offsets[start][0] : offsets[stop - 1][1]] for start, stop in found]
    assert len(found) > 1
    assert all(part[-1] in '.?!)"' and part.startswith("The") for part in texts)
    assert " ".join(texts) == text


def test_one_word_without_end_is_cut_anywhere():
    offsets = [(i, i + 1) for i in range(17)]
    assert pieces("x" * 17, offsets, room=7, overlap=3) == [(0, 7), (4, 11), (8, 15), (12, 17)]


@pytest.mark.parametrize("overlap", [-1, 4])
def test_an_overlap_that_does_not_fit_is_refused(overlap):
    with pytest.raises(InputError, match="from 0 to 3"):
        pieces("x" * 17, [(i, i + 1) for i in range(17)], room=7, overlap=overlap)
